//! Event buses: one contract for publishing and subscribing, whatever carries the events.
//!
//! # What every bus promises
//! * **Delivery.** An event that [`publish`](EventBus::publish) confirmed reaches every group and every
//!   broadcast subscription that existed when the call began and whose filter it passes, at least
//!   once. A group handles it in exactly one of its members at a time.
//! * **Order.** Events with the same [partition key](crate::Event::partition_key), that is events about
//!   the same document, are handled one after the other in the order they were published, with any
//!   number of workers and members, also while one of them is being retried: later events of that
//!   document wait, those of others do not. A redriven dead letter is the exception: it comes late.
//! * **Failure.** A handler that returns an error or panics is tried again after a backoff; after its
//!   last attempt the event lies in the subscription's dead letters with error and attempts, and the
//!   document's next event gets its turn. On a bus that outlives its processes so does an event over which
//!   the process dies [every time](Subscription::max_unfinished). If the dead letters are full the subscription stalls and says
//!   so in its [state](SubscriptionState); it never drops an event.
//! * **Backpressure.** Each group buffers a bounded number of events. A slow group does not hold up
//!   the others while it is less than that far behind. Beyond it `publish` waits, after everyone else
//!   was handed the batch; whoever publishes (the relay) keeps the rest in the log. Nothing is dropped
//!   and no memory grows.
//! * **End.** After [`close`](EventBus::close) or [`unsubscribe`](SubscriptionHandle::unsubscribe) has
//!   returned, no handler runs.
//!
//! What a bus cannot do it says in its [capabilities](EventBus::capabilities), and a subscription that
//! asks for it fails with `Unsupported`.
//!
//! What should surround every call of a handler, such as a span, a deadline, or recognising repetitions, is
//! [`middleware`], and attached to the handler: `handler.with(Timeout::after(…))`.
//!
//! # Examples
//! ```
//! use nodestorage::Event;
//! use nodestorage::bus::{EventBusExt, MemoryBus, Subscription};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> nodestorage::Result<()> {
//! let bus = MemoryBus::new();
//! let subscription = bus
//!     .subscribe(Subscription::to("UserCreated"), |event: Event| async move {
//!         println!("{} at version {}", event.document(), event.version());
//!     })
//!     .await?;
//! subscription.unsubscribe().await?;
//! # Ok(()) }
//! ```

#[cfg(any(feature = "redis", feature = "nats"))]
mod broker;
mod dead_letter;
mod filter;
mod handle;
mod handler;
pub mod memory;
pub mod middleware;
#[cfg(feature = "nats")]
pub mod nats;
mod publish_error;
mod redelivery;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(any(feature = "redis", feature = "nats"))]
mod root_certificates;
#[cfg(test)]
mod samples;
mod subscription;
mod work;

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;

use crate::error::Result;
use crate::event::Event;

#[cfg(feature = "redis")]
pub use self::redis::RedisBus;
pub use dead_letter::{DeadLetter, LetterContent};
pub use filter::{EventTypes, Filter};
pub use handle::{SubscriptionControl, SubscriptionHandle, SubscriptionState};
pub use handler::{EventHandler, HandlerOutcome};
pub use memory::MemoryBus;
pub use middleware::{EventHandlerExt, Middleware, Next};
#[cfg(feature = "nats")]
pub use nats::NatsBus;
pub use publish_error::PublishError;
pub use redelivery::RedeliveryPolicy;
#[cfg(any(feature = "redis", feature = "nats"))]
pub use root_certificates::RootCertificates;
pub use subscription::{StartFrom, Subscription};

/// What a bus can and cannot do. A conformance case that needs a missing ability is reported as not
/// applicable, never as passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BusCapabilities {
    /// Subscriptions may share events in a [group](Subscription::with_group).
    pub groups: bool,
    /// A subscription with one worker handles all its events in the order they were published, not
    /// only those about the same document.
    pub total_order: bool,
    /// Confirmed events survive the end of this process.
    pub durable: bool,
    /// Subscribers in other processes receive the events.
    pub across_processes: bool,
    /// A group keeps receiving while it has no member, for the next member to handle.
    pub durable_groups: bool,
    /// A subscription may start with events published before it: [`StartFrom::Beginning`].
    pub from_beginning: bool,
    /// An event id published twice within some window reaches a group once.
    pub deduplicates: bool,
    /// The largest event in its form on the wire, in bytes; `None` without a bound. A larger one is
    /// poison.
    pub max_event_bytes: Option<usize>,
}

impl Default for BusCapabilities {
    /// Groups, and nothing else.
    fn default() -> Self {
        Self {
            groups: true,
            total_order: false,
            durable: false,
            across_processes: false,
            durable_groups: false,
            from_beginning: false,
            deduplicates: false,
            max_event_bytes: None,
        }
    }
}

/// Carries events from publishers to subscribers. See the [module](self) for what every bus promises.
#[async_trait]
pub trait EventBus: Debug + Send + Sync + 'static {
    /// What this bus can do.
    fn capabilities(&self) -> BusCapabilities;

    /// Publishes events in order and returns when all of them are confirmed: stored by the broker, or
    /// handed to every subscription in memory. A bus without subscribers confirms as well.
    ///
    /// Dropping the future leaves each event of the batch either published or not, a prefix of the batch
    /// per subscription; publishing the batch again is right, since consumers and buses recognise
    /// event ids. A partitioned bus partitions by [`Event::partition_key`].
    ///
    /// # Errors
    /// [`PublishError`] says how many leading events are confirmed, and whether the next one can never be
    /// published (poison) or the bus cannot take it now.
    async fn publish(&self, events: &[Event]) -> Result<(), PublishError>;

    /// Adds a subscription with a shared handler. [`EventBusExt::subscribe`] takes closures.
    ///
    /// Events published by calls that begin after this one has returned are delivered. If the future is
    /// dropped there is either no subscription or one that nobody holds, which ends with the bus.
    ///
    /// # Errors
    /// `Unsupported` for what the bus cannot do; `InvalidConfig` for options that make no sense and for
    /// a group whose members asked for another filter, start or retry policy; `Closed` after
    /// [`close`](Self::close).
    async fn attach(
        &self,
        subscription: Subscription,
        handler: Arc<dyn EventHandler>,
    ) -> Result<SubscriptionHandle>;

    /// Stops intake, lets the handlers finish what was delivered to this process, acknowledges it and
    /// closes. Idempotent. Dropping the future leaves the bus closed for new events and still draining;
    /// call again to wait.
    ///
    /// # Errors
    /// `Timeout` if handlers did not finish within the bus's drain deadline. They are stopped at their
    /// next `await` then, and what they did not finish is unacknowledged: a durable bus delivers it
    /// again, one in memory has lost it, and the error says how much.
    async fn close(&self) -> Result<()>;
}

/// Subscribing with handlers by value: closures, or types that implement [`EventHandler`].
pub trait EventBusExt: EventBus {
    /// Adds a subscription. The subscription goes on if the handle is dropped; it ends with
    /// [`unsubscribe`](SubscriptionHandle::unsubscribe) or with the bus.
    ///
    /// # Errors
    /// As [`EventBus::attach`].
    fn subscribe<H: EventHandler>(
        &self,
        subscription: Subscription,
        handler: H,
    ) -> impl Future<Output = Result<SubscriptionHandle>> + Send {
        self.attach(subscription, Arc::new(handler))
    }
}

impl<B: EventBus + ?Sized> EventBusExt for B {}
