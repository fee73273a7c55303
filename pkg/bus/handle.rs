use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use super::DeadLetter;
use crate::error::Result;
use crate::event::EventId;

/// How a subscription is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubscriptionState {
    /// It handles events.
    Running,
    /// It handles nothing until someone makes room in its dead letters; `reason` says so in words.
    /// Events wait, and publishing waits or fails with `Unavailable` once the queue is full.
    Stalled {
        /// Why.
        reason: Arc<str>,
    },
    /// It accepts no more events and finishes those it has.
    Draining,
    /// It has ended.
    Closed,
}

/// A bus's own side of a [`SubscriptionHandle`]; for bus implementations.
#[async_trait]
pub trait SubscriptionControl: Debug + Send + Sync + 'static {
    /// The group, or a unique name for a broadcast.
    fn name(&self) -> &str;
    /// Follows the state.
    fn state(&self) -> watch::Receiver<SubscriptionState>;
    /// See [`SubscriptionHandle::unsubscribe`].
    async fn unsubscribe(&self) -> Result<()>;
    /// See [`SubscriptionHandle::abort`].
    fn abort(&self);
    /// See [`SubscriptionHandle::dead_letters`].
    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>>;
    /// See [`SubscriptionHandle::redrive`].
    async fn redrive(&self, events: &[EventId]) -> Result<usize>;
    /// See [`SubscriptionHandle::discard`].
    async fn discard(&self, events: &[EventId]) -> Result<usize>;
}

/// A running subscription. Dropping the handle leaves it running until the bus closes.
#[derive(Debug, Clone)]
pub struct SubscriptionHandle(Arc<dyn SubscriptionControl>);

impl SubscriptionHandle {
    /// Wraps a bus's own control of a subscription; for bus implementations.
    #[must_use]
    pub fn new(control: Arc<dyn SubscriptionControl>) -> Self {
        Self(control)
    }

    /// The group, or a unique name for a broadcast.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.name()
    }

    /// How the subscription is doing now.
    #[must_use]
    pub fn state(&self) -> SubscriptionState {
        self.0.state().borrow().clone()
    }

    /// Follows how the subscription is doing.
    #[must_use]
    pub fn state_changes(&self) -> watch::Receiver<SubscriptionState> {
        self.0.state()
    }

    /// Stops intake, finishes what is in work and ends; after it has returned no handler of this
    /// subscription runs. The last member of a group, and a broadcast, first handles everything that
    /// waits; other members leave it to the rest of the group. Idempotent. If the future is dropped the
    /// subscription goes on draining; call again to wait.
    ///
    /// # Errors
    /// `Timeout` when the drain deadline of the bus passed, `DeadLettered` when the subscription had
    /// stalled. Events that were not handled stay with a group for its next member; those of a
    /// broadcast are given up, and the message says how many.
    pub async fn unsubscribe(&self) -> Result<()> {
        self.0.unsubscribe().await
    }

    /// Ends the subscription at once, as if its process had died: handlers are dropped at the `await`
    /// they are in, and events they had not finished go to another member of the group, now or when
    /// one joins. A broadcast gives its events up.
    pub fn abort(&self) {
        self.0.abort();
    }

    /// The dead letters of the group or broadcast, oldest first, at most `limit`.
    ///
    /// # Errors
    /// `Unavailable` if a broker holds them and cannot be reached.
    pub async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>> {
        self.0.dead_letters(limit).await
    }

    /// Has dead letters handled again, with all their attempts; says how many of `events` were found.
    /// They come after whatever of their documents is waiting, so out of order.
    ///
    /// # Errors
    /// `Closed` if the subscription has ended.
    pub async fn redrive(&self, events: &[EventId]) -> Result<usize> {
        self.0.redrive(events).await
    }

    /// Gives dead letters up for good; says how many of `events` were found.
    ///
    /// # Errors
    /// `Unavailable` if a broker holds them and cannot be reached.
    pub async fn discard(&self, events: &[EventId]) -> Result<usize> {
        self.0.discard(events).await
    }
}
