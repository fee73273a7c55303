//! The task of a subscription.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::{sleep, timeout};

use super::handle::{LogSubscriptionState, Signals};
use super::handler::EntryHandler;
use super::options::LogSubscription;
use crate::error::{BoxError, Error, ErrorKind, Result};
use crate::history::follow::{Backoff, Follower};
use crate::history::lease::{HeldLease, LeaseTerms};
use crate::storage::backend::{Backend, Cursor, LogEntry, TailFrom, TailItem};

/// What one subscription works with.
pub(super) struct Runner<H> {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) terms: LeaseTerms,
    pub(super) options: LogSubscription,
    pub(super) signals: Arc<Signals>,
    pub(super) handler: H,
}

/// Says so if the task ends in another way than by itself: a runtime that shuts down.
struct Ending(Arc<Signals>);

impl Drop for Ending {
    fn drop(&mut self) {
        let is_stopped = matches!(*self.0.state.borrow(), LogSubscriptionState::Stopped(_));
        if !is_stopped {
            let error = Error::new(ErrorKind::Closed, "subscription was broken off");
            self.0.set(LogSubscriptionState::Stopped(Arc::new(error)));
        }
    }
}

impl<H: EntryHandler> Runner<H> {
    /// Lines up for the lease and handles the log while holding it, until it is shut down.
    pub(super) async fn run(self) {
        let _ending = Ending(Arc::clone(&self.signals));
        let error = loop {
            let mut lease = match self.wait_for_lease().await {
                Ok(lease) => lease,
                Err(error) => break error,
            };
            let error = match self.follow(&mut lease).await {
                Ok(()) => shut_down(),
                // Another owner is at it, or may be: whatever was in work here is its business now.
                Err(error) if error.kind() == ErrorKind::InUse => {
                    tracing::warn!(lease = %self.terms.name, %error, "subscription lost its lease");
                    continue;
                }
                Err(error) => error,
            };
            lease.release().await;
            break error;
        };
        if error.kind() != ErrorKind::Closed {
            tracing::error!(lease = %self.terms.name, %error, "subscription stopped");
        }
        let error = Arc::new(error);
        self.signals.set(LogSubscriptionState::Stopped(error));
    }

    async fn wait_for_lease(&self) -> Result<HeldLease> {
        // Ten looks per lease let a takeover begin soon after its end.
        let poll =
            (self.options.lease_ttl / 10).clamp(Duration::from_millis(10), Duration::from_secs(1));
        let mut backoff = Backoff::default();
        let mut attempts = 0;
        loop {
            let acquiring = HeldLease::acquire(&self.backend, &self.terms);
            let Some(granted) = self.unless_shut_down(acquiring).await else {
                return Err(shut_down());
            };
            let pause = match granted {
                Ok(lease) => return Ok(lease),
                Err(error) if error.kind() == ErrorKind::InUse => {
                    attempts = 0;
                    self.signals.set(LogSubscriptionState::WaitingForLease);
                    poll
                }
                Err(error) if error.is_retryable() => {
                    self.retrying(error, &mut attempts);
                    backoff.next_delay()
                }
                Err(error) => return Err(error),
            };
            if self.unless_shut_down(sleep(pause)).await.is_none() {
                return Err(shut_down());
            }
        }
    }

    /// Handles entry after entry; returns when shut down, and with `InUse` when the lease is lost.
    async fn follow(&self, lease: &mut HeldLease) -> Result<()> {
        let start = match lease.checkpoint() {
            Some(checkpoint) => TailFrom::After(checkpoint.clone()),
            None => self.options.start.clone(),
        };
        let mut follower = Follower::new(Arc::clone(&self.backend), start);
        let mut backoff = Backoff::default();
        let mut attempts = 0;
        loop {
            let next = self.unless_shut_down(follower.next());
            let Some(item) = lease.keep_during(next).await? else {
                return Ok(());
            };
            match item {
                Ok(item) => {
                    attempts = 0;
                    backoff.reset();
                    let (entry, cursor) = match item {
                        TailItem::Entry { entry, cursor } => (Some(entry), cursor),
                        TailItem::Idle { cursor } => (None, cursor),
                    };
                    if let Some(entry) = &entry
                        && !self.handle(entry, lease).await?
                    {
                        return Ok(());
                    }
                    self.passed(lease, cursor, entry.is_some()).await?;
                }
                // Until there is a first place in the log nobody has been told that it was found, so
                // that "now" may be a later one.
                Err(error) if error.is_retryable() => {
                    self.retrying(error, &mut attempts);
                    let pause = self.unless_shut_down(sleep(backoff.next_delay()));
                    if lease.keep_during(pause).await?.is_none() {
                        return Ok(());
                    }
                }
                Err(error) => return Err(error.context("following the log")),
            }
        }
    }

    async fn passed(&self, lease: &mut HeldLease, cursor: Cursor, is_entry: bool) -> Result<()> {
        let position = cursor.position;
        lease.passed(cursor, usize::from(is_entry));
        if lease.has_stored_place() {
            lease.upkeep().await?;
        } else {
            // The place where it began must outlive a crash: a second "now" would leave a gap.
            lease.store().await?;
        }
        self.signals.position.send_if_modified(|reached| {
            let moves = position > *reached;
            *reached = position.max(*reached);
            moves
        });
        if lease.has_stored_place() {
            self.signals.following();
        }
        Ok(())
    }

    /// Handles an entry, however often it takes; false when shut down before it went well.
    async fn handle(&self, entry: &LogEntry, lease: &mut HeldLease) -> Result<bool> {
        let mut done = 0;
        let mut attempts = 0;
        let mut backoff = Backoff::new(self.options.retry_base, self.options.retry_max);
        loop {
            let before = done;
            let handling = AssertUnwindSafe(self.handler.handle(entry, &mut done)).catch_unwind();
            let Some(handled) = lease.keep_during(self.within_drain(handling)).await? else {
                return Ok(false);
            };
            let error = match handled {
                Ok(Ok(())) => return Ok(true),
                Ok(Err(error)) => error,
                Err(panic) => format!("handler panicked: {}", text_of(panic.as_ref())).into(),
            };
            if done > before {
                attempts = 0;
                backoff.reset();
            }
            let error = self.handler_error(entry, error, attempts + 1);
            self.retrying(error, &mut attempts);
            let pause = self.unless_shut_down(sleep(backoff.next_delay()));
            if lease.keep_during(pause).await?.is_none() {
                return Ok(false);
            }
        }
    }

    fn handler_error(&self, entry: &LogEntry, source: BoxError, attempts: u32) -> Error {
        let what = format!(
            "{}: handling version {} of {}",
            self.terms.name, entry.version, entry.key
        );
        Error::new(ErrorKind::RetriesExhausted { attempts }, what).with_source(source)
    }

    fn retrying(&self, error: Error, attempts: &mut u32) {
        *attempts = attempts.saturating_add(1);
        tracing::warn!(lease = %self.terms.name, %error, attempts = *attempts, "subscription tries again");
        self.signals.set(LogSubscriptionState::Retrying {
            error: Arc::new(error),
            attempts: *attempts,
        });
    }

    /// Waits for something; `None` when shut down meanwhile.
    async fn unless_shut_down<F: Future>(&self, work: F) -> Option<F::Output> {
        tokio::select! {
            biased;
            () = self.signals.shutdown.cancelled() => None,
            done = work => Some(done),
        }
    }

    /// As [`unless_shut_down`](Self::unless_shut_down), with some time left for the work.
    async fn within_drain<F: Future>(&self, work: F) -> Option<F::Output> {
        let mut work = pin!(work);
        match self.unless_shut_down(&mut work).await {
            Some(done) => Some(done),
            None => timeout(self.options.drain_timeout, work).await.ok(),
        }
    }
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

fn shut_down() -> Error {
    Error::new(ErrorKind::Closed, "subscription was shut down")
}
