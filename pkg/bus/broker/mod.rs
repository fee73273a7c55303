//! What durable brokers have in common, and the narrow contract that one of them implements.
//!
//! A bus has a fixed number of partitions; all events of a document lie in one of them, in order. Within
//! a group one live member at a time owns a partition, under a [`Claim`] that ends unless it is renewed.
//! The owner reads its partitions in order, hands each document's events to its handlers one after the
//! other, retries, and acknowledges each event when it was handled or lies in the dead letters. When an
//! owner dies the next one first gets what was not acknowledged and only then what is new: a document's
//! order holds across owners.
//!
//! Brokers also have a mode that keeps nothing: [`LiveBus`] is for those, on a [`Channel`].
//!
//! Order, retries, dead letters, draining, states and the sharing of partitions are the machine's part,
//! written once. An adapter says how its broker stores, hands out and forgets.

mod bus;
mod claims;
mod desk;
mod intake;
mod leaving;
mod live;
mod member;
mod options;
mod partition;
mod reading;
mod unfinished;
mod wire;
mod working;

use std::fmt::{self, Debug};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::{PublishError, StartFrom};
use crate::error::{Error, Result};
use crate::event::{Event, EventId};

pub(in crate::bus) use bus::DurableBus;
pub(in crate::bus) use intake::Intake;
pub(in crate::bus) use live::{Channel, LiveBus};
pub(in crate::bus) use options::MachineOptions;

/// A durable broker, as the machine needs it.
///
/// Every method fails with `Unavailable` or `Timeout` when the broker cannot be reached; the machine
/// then tries again, with pauses. Methods on a group that does not exist (any more) fail with
/// `NotFound`. Every future may be dropped at any `await`: what it was about to do has then happened
/// wholly or not at all.
#[async_trait]
pub(in crate::bus) trait Broker: Debug + Send + Sync + 'static {
    /// What messages call it: `"redis bus"`.
    fn label(&self) -> &'static str;

    /// How many partitions the bus has; recorded in the broker when it was first opened.
    fn partitions(&self) -> u32;

    /// The largest event in its form on the wire, in bytes. The machine refuses larger ones as poison.
    fn max_event_bytes(&self) -> Option<usize>;

    /// Stores events, in order, and returns when the broker has confirmed all of them.
    ///
    /// An event is never stored before those in front of it in the same call that are about the same
    /// document, also under failures and reconnects: whoever sends several at a time needs a broker that
    /// takes them all or none. After an unclear failure the caller repeats the call, with the same event
    /// ids.
    async fn append(&self, events: &[Outgoing]) -> Result<(), AppendFailure>;

    /// Creates a group, or finds it. Returns the record that is stored, which is the one of whoever was
    /// first. Events whose append begins after this has returned reach the group.
    async fn open_group(&self, group: &GroupRecord) -> Result<GroupRecord>;

    /// Forgets a group with all that belongs to it. A group that does not exist is no error.
    async fn remove_group(&self, group: &str) -> Result<()>;

    /// Removes [transient](GroupRecord::transient) groups whose last heartbeat ran out, and that were
    /// created, longer ago than `silence`. Any process may call it at any time.
    async fn reap(&self, silence: Duration) -> Result<()>;

    /// One heartbeat of a member: it counts as live for `ttl` from now, and so do the claims it holds.
    /// Renews nothing that meanwhile went to somebody else.
    async fn pulse(
        &self,
        group: &str,
        member: &str,
        held: &[Claim],
        ttl: Duration,
    ) -> Result<Pulse>;

    /// Takes up to `at_most` partitions that nobody holds, or whose claims have run out. A claim has a
    /// fence above every earlier one of the partition. What the previous owner had not acknowledged is
    /// the new owner's from here on, and whatever the previous owner still does under its claim (read,
    /// acknowledge, bury) has no effect.
    async fn acquire(
        &self,
        group: &str,
        member: &str,
        at_most: usize,
        ttl: Duration,
    ) -> Result<Vec<Claim>>;

    /// Gives claims back before their time; those that are not the member's any more are left alone.
    async fn release(&self, group: &str, member: &str, held: &[Claim]) -> Result<()>;

    /// Ends a membership: as `release`, and the member is not live any more. The group stays.
    async fn resign(&self, group: &str, member: &str, held: &[Claim]) -> Result<()>;

    /// Reads for one member of a group. Opens nothing yet.
    fn reader(&self, group: &str, member: &str) -> Box<dyn Reader>;

    /// These deliveries are done. Claims that are not current are passed over in silence. Repeating it
    /// is harmless. A broker that redelivers by time keeps deliveries alive for as long as their claim
    /// is held: the machine does not ask for it.
    async fn acknowledge(&self, group: &str, member: &str, done: &[Acknowledgement]) -> Result<()>;

    /// How many attempts at a delivery's event [`begin`](Self::begin) has noted since it was last acknowledged;
    /// `None` if the claim is not current.
    async fn begun(
        &self,
        group: &str,
        member: &str,
        delivery: Acknowledgement,
    ) -> Result<Option<u32>>;

    /// Notes durably that an attempt begins, and says how many that makes; `None` if the claim is not current.
    /// Acknowledging and burying forget them.
    async fn begin(
        &self,
        group: &str,
        member: &str,
        delivery: Acknowledgement,
    ) -> Result<Option<u32>>;

    /// Stores a dead letter of the group, and then acknowledges the delivery. Repeating it leaves one
    /// letter. At most about `at_most` letters are kept, over all members.
    async fn bury(
        &self,
        group: &str,
        member: &str,
        done: Acknowledgement,
        letter: &Letter,
        at_most: usize,
    ) -> Result<Burial>;

    /// The dead letters of the group, oldest first.
    async fn letters(&self, group: &str, at_most: usize) -> Result<Vec<Letter>>;

    /// Moves letters back: the owner of their partition gets them as [redriven](Delivery::redriven)
    /// deliveries, at least once, also after a crash in between. Says how many of the ids were found.
    async fn redrive(&self, group: &str, letters: &[EventId]) -> Result<usize>;

    /// Forgets letters. Says how many of the ids were found.
    async fn discard(&self, group: &str, letters: &[EventId]) -> Result<usize>;

    /// Lets go of connections. Nothing is called afterwards.
    async fn close(&self);
}

/// Reads the partitions that one member owns. Only one call at a time.
#[async_trait]
pub(in crate::bus) trait Reader: Send + 'static {
    /// The next deliveries, at most `at_most` in all; waits up to `wait` for the first and for no other.
    ///
    /// Of a claim that was not among `claims` before, first what its earlier owners had not
    /// acknowledged, in order, and only then what is new, in order. `claims` are all that the member
    /// holds and wants to read now; one that is missing may come back in a later call and then goes on
    /// where it was. A claim that is not current any more gives nothing.
    ///
    /// An empty answer says that the broker had nothing for any of the claims at some moment since the
    /// call began; with a `wait` of zero it comes at once.
    ///
    /// If the future is dropped or fails, whatever it had taken out of the broker comes again in the
    /// next call, still in order.
    async fn read(
        &mut self,
        claims: &[Claim],
        at_most: usize,
        wait: Duration,
    ) -> Result<Vec<Delivery>>;
}

/// An event on its way into the broker.
#[derive(Debug, Clone)]
pub(in crate::bus) struct Outgoing {
    pub(in crate::bus) partition: u32,
    pub(in crate::bus) event: Event,
    /// The event's form on the wire.
    pub(in crate::bus) payload: Payload,
}

/// Bytes of an event, or of something that is none. Cheap to clone; never shown.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::bus) struct Payload(pub(in crate::bus) Bytes);

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// Why a call of [`Broker::append`] was not stored to its end.
#[derive(Debug)]
pub(in crate::bus) struct AppendFailure {
    /// How many leading events of the call are stored for certain.
    pub(in crate::bus) confirmed: usize,
    /// Whether the event after those can never be stored, rather than nothing at the moment.
    pub(in crate::bus) poison: bool,
    pub(in crate::bus) error: Error,
}

impl From<AppendFailure> for PublishError {
    fn from(failure: AppendFailure) -> Self {
        if failure.poison {
            Self::poison(failure.confirmed, failure.error)
        } else {
            Self::unavailable(failure.confirmed, failure.error)
        }
    }
}

/// A group as the broker remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::bus) struct GroupRecord {
    pub(in crate::bus) name: Arc<str>,
    /// What its members ask for, as text that is equal for equal wishes.
    pub(in crate::bus) asks: String,
    pub(in crate::bus) start: StartFrom,
    /// Whether it goes when it has been without a heartbeat for long: a broadcast.
    pub(in crate::bus) transient: bool,
}

/// The right to read a partition for a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::bus) struct Claim {
    pub(in crate::bus) partition: u32,
    /// Rises with every owner.
    pub(in crate::bus) fence: u64,
}

/// The answer to a heartbeat.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::bus) struct Pulse {
    /// The live members, this one included, in the same order for all of them.
    pub(in crate::bus) members: Vec<String>,
    /// Those claims that are still held, and now for another `ttl`.
    pub(in crate::bus) held: Vec<Claim>,
}

/// Where a delivery lies in its partition, for the adapter that gave it. Larger is later, within one
/// `source`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::bus) struct Position {
    /// The adapter's own: which of the places that feed the partition.
    pub(in crate::bus) source: u8,
    pub(in crate::bus) major: u64,
    pub(in crate::bus) minor: u64,
}

/// Something read from a partition.
#[derive(Debug, Clone)]
pub(in crate::bus) struct Delivery {
    pub(in crate::bus) claim: Claim,
    pub(in crate::bus) position: Position,
    pub(in crate::bus) payload: Payload,
    /// A dead letter that somebody wants handled again.
    pub(in crate::bus) redriven: bool,
    /// How often the broker has handed it out to owners, this time included; at least that.
    pub(in crate::bus) times: u32,
}

/// A delivery that is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bus) struct Acknowledgement {
    pub(in crate::bus) claim: Claim,
    pub(in crate::bus) position: Position,
}

/// A dead letter as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::bus) struct Letter {
    /// The event's; for what is no event, an id that follows from where it lay.
    pub(in crate::bus) id: EventId,
    /// Where it comes back to.
    pub(in crate::bus) partition: u32,
    pub(in crate::bus) payload: Payload,
    pub(in crate::bus) error: String,
    pub(in crate::bus) attempts: u32,
}

/// What became of a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bus) enum Burial {
    Stored,
    /// There are `at_most` letters already; nothing was acknowledged.
    Full,
    /// The claim is not current; nothing was done.
    NotOwner,
}
