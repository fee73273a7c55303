mod job;
mod partitions;
mod reading;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{Acknowledgement, Claim, Payload, Position};
use crate::bus::work::{Lanes, Recent};
use crate::document::DocumentKey;
use crate::event::Event;

pub(super) use job::Job;
pub(super) use reading::Incoming;

/// What one member holds: its partitions, what was read from them and is not finished, and what is
/// finished and not acknowledged. No more than `capacity` of both together.
#[derive(Debug)]
pub(super) struct Desk {
    state: Mutex<State>,
    capacity: usize,
    /// There may be something to take.
    work: Notify,
    /// There may be room, or the claims have changed.
    pub(super) intake: Notify,
    /// There is something to acknowledge.
    pub(super) handled: Notify,
    /// Something has moved: for whoever waits for partitions to be idle, or empty.
    settled: Notify,
}

#[derive(Debug)]
struct State {
    owned: BTreeMap<u32, Owned>,
    /// The partition to take from next, so that none starves another.
    turn: u32,
    handled: Vec<Acknowledgement>,
    /// Taken from `handled`, on its way to the broker.
    acknowledging: Vec<Acknowledgement>,
    stalled: Option<Arc<str>>,
    /// Reads on until there is nothing more, and then no further.
    draining: bool,
    /// Rises whenever the claims that may be read change.
    revision: u64,
}

#[derive(Debug)]
struct Owned {
    claim: Claim,
    /// Cancelled when the claim is lost: handlers are dropped.
    lost: CancellationToken,
    lanes: Lanes<Lane, Item>,
    recent: Recent,
    busy: usize,
    /// Is being given back: nothing new is read or taken.
    yielding: bool,
    /// The broker had nothing more at some moment since draining began.
    exhausted: bool,
}

/// Events about a document share a lane; what is no event has one of its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Lane {
    Document(DocumentKey),
    Foreign(Position),
}

#[derive(Debug, Clone)]
struct Item {
    position: Position,
    content: Content,
    /// See [`Delivery::times`](super::Delivery::times).
    times: u32,
}

/// What lies at a position of a partition.
#[derive(Debug, Clone)]
pub(super) enum Content {
    Event(Event),
    Foreign { payload: Payload, error: String },
}

impl Desk {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            state: Mutex::new(State {
                owned: BTreeMap::new(),
                turn: 0,
                handled: Vec::new(),
                acknowledging: Vec::new(),
                stalled: None,
                draining: false,
                revision: 0,
            }),
            capacity,
            work: Notify::new(),
            intake: Notify::new(),
            handled: Notify::new(),
            settled: Notify::new(),
        }
    }

    /// No code of others runs under this lock, so a poisoned one means nothing.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn moved(&self) {
        self.work.notify_one();
        self.intake.notify_one();
        self.settled.notify_waiters();
    }

    /// Waits until `reached` says so; it is asked whenever something has moved.
    pub(super) async fn until(&self, mut reached: impl FnMut() -> bool) {
        loop {
            let settled = self.settled.notified();
            tokio::pin!(settled);
            // Registered before looking, so that no change in between is missed.
            settled.as_mut().enable();
            if reached() {
                return;
            }
            settled.await;
        }
    }

    /// Has whoever waits in [`until`](Self::until) look again.
    pub(super) fn nudge(&self) {
        self.moved();
    }

    // Acknowledging.

    /// What is to be acknowledged now; [`acknowledged`](Self::acknowledged) says that it was.
    pub(super) fn take_handled(&self) -> Vec<Acknowledgement> {
        let mut state = self.state();
        state.acknowledging = std::mem::take(&mut state.handled);
        state.acknowledging.clone()
    }

    /// What [`take_handled`](Self::take_handled) gave last and has not been acknowledged yet.
    pub(super) fn acknowledging(&self) -> Vec<Acknowledgement> {
        self.state().acknowledging.clone()
    }

    /// Whether anything is left to acknowledge.
    pub(super) fn has_handled(&self) -> bool {
        let state = self.state();
        !state.handled.is_empty() || !state.acknowledging.is_empty()
    }

    pub(super) fn acknowledged(&self) {
        self.state().acknowledging.clear();
        self.moved();
    }

    // Stalling.

    pub(super) fn stall(&self, reason: Option<Arc<str>>) {
        self.state().stalled = reason;
        self.moved();
    }

    pub(super) fn stalled(&self) -> Option<Arc<str>> {
        self.state().stalled.clone()
    }
}

impl State {
    fn current(&mut self, claim: Claim) -> Option<&mut Owned> {
        let owned = self.owned.get_mut(&claim.partition)?;
        (owned.claim == claim).then_some(owned)
    }

    fn forget(&mut self, partition: u32) {
        if let Some(owned) = self.owned.remove(&partition) {
            owned.lost.cancel();
            self.revision += 1;
            // Its acknowledgements would be passed over.
            self.handled.retain(|it| it.claim != owned.claim);
        }
    }

    fn queued(&self) -> usize {
        self.owned.values().map(|it| it.lanes.queued()).sum()
    }

    fn held(&self) -> usize {
        self.queued() + self.handled.len() + self.acknowledging.len()
    }

    fn has_ready(&self) -> bool {
        self.owned.values().any(|it| it.lanes.has_ready())
    }

    fn unacknowledged(&self, claim: Claim) -> bool {
        let mut all = self.handled.iter().chain(&self.acknowledging);
        all.any(|it| it.claim == claim)
    }
}
