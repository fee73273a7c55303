use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::leader::{Interrupt, Leader};
use super::run::Inner;
use crate::error::{Error, ErrorKind, Result};

/// Keeping the lease, and the checkpoint with it, whatever else a leader does.
impl Leader<'_> {
    /// Works on something while keeping the lease. When shutting down, gives the work up after a while;
    /// when the lease is lost, at once.
    pub(super) async fn guarded<F: Future>(&mut self, work: F) -> Result<F::Output, Interrupt> {
        enum Step<T> {
            Done(T),
            Upkeep,
            Shutdown,
            GiveUp,
        }
        let mut work = std::pin::pin!(work);
        loop {
            let shutdown = &self.inner.shutdown;
            let give_up_at = self.give_up_at;
            let upkeep = self.next_upkeep();
            // The upkeep comes before the work: after a pause of the whole process it finds out whether
            // the lease is still ours.
            let step = tokio::select! {
                biased;
                () = shutdown.cancelled(), if give_up_at.is_none() => Step::Shutdown,
                () = at(give_up_at) => Step::GiveUp,
                () = sleep_until(upkeep) => Step::Upkeep,
                done = &mut work => Step::Done(done),
            };
            match step {
                Step::Done(done) => return Ok(done),
                Step::Upkeep => self.upkeep().await?,
                Step::GiveUp => return Err(Interrupt::Shutdown),
                Step::Shutdown => {
                    self.give_up_at();
                }
            }
        }
    }

    /// Waits, keeping the lease; shutting down ends it at once.
    pub(super) async fn pause(&mut self, delay: Duration) -> Result<(), Interrupt> {
        let shutdown = &self.inner.shutdown;
        let pause = async {
            tokio::select! {
                () = sleep(delay) => Ok(()),
                () = shutdown.cancelled() => Err(Interrupt::Shutdown),
            }
        };
        self.guarded(pause).await?
    }

    fn give_up_at(&mut self) -> Instant {
        let timeout = self.inner.options.drain_timeout;
        *self
            .give_up_at
            .get_or_insert_with(|| Instant::now() + timeout)
    }

    pub(super) fn next_upkeep(&self) -> Instant {
        match self.unsaved_since {
            Some(since) => self
                .renew_at
                .min(since + self.inner.options.checkpoint_interval),
            None => self.renew_at,
        }
    }

    /// Stores the checkpoint, which prolongs the lease, if either is due.
    pub(super) async fn upkeep(&mut self) -> Result<(), Interrupt> {
        self.measure_if_due().await;
        let due = Instant::now() >= self.next_upkeep()
            || self.unsaved >= self.inner.options.checkpoint_entries.max(1);
        if due { self.renew().await } else { Ok(()) }
    }

    async fn renew(&mut self) -> Result<(), Interrupt> {
        let ttl = self.inner.options.lease_ttl;
        let asked_at = Instant::now();
        let error = match timeout(ttl / 3, self.save()).await {
            Ok(Ok(())) => {
                self.valid_until = asked_at + ttl;
                self.renew_at = asked_at + ttl / 3;
                self.unsaved = 0;
                self.unsaved_since = None;
                return Ok(());
            }
            Ok(Err(error)) if error.kind() == ErrorKind::InUse => return Err(Interrupt::LeaseLost),
            Ok(Err(error)) if !error.is_retryable() => return Err(Interrupt::Fatal(error)),
            Ok(Err(error)) => error,
            Err(_) => Error::new(ErrorKind::Timeout, "the store did not renew the lease"),
        };
        let now = Instant::now();
        tracing::warn!(relay = %self.inner.options.name, %error, "relay cannot renew its lease");
        if now >= self.valid_until {
            // From here on another relay may publish.
            return Err(Interrupt::LeaseLost);
        }
        let again = now + (ttl / 10).max(Duration::from_millis(1));
        self.renew_at = again.min(self.valid_until);
        self.unsaved_since = self.unsaved_since.map(|_| again);
        Ok(())
    }

    async fn save(&self) -> Result<()> {
        let Inner {
            backend, options, ..
        } = self.inner;
        if let Some(cursor) = &self.confirmed {
            return backend
                .save_checkpoint(&self.fence, cursor, options.lease_ttl)
                .await;
        }
        let lease = backend.acquire_lease(&self.inner.lease_request()).await?;
        if lease.fence == self.fence {
            Ok(())
        } else {
            // It had ended and was granted anew: someone may have published in between.
            Err(Error::new(ErrorKind::InUse, "lease was taken over"))
        }
    }

    /// Stores the checkpoint and gives the lease up, so that the next relay need not wait.
    pub(super) async fn step_down(&mut self, interrupt: &Interrupt) {
        if matches!(interrupt, Interrupt::LeaseLost) {
            return;
        }
        let backend = &self.inner.backend;
        let ending = async {
            if self.confirmed.is_some() {
                self.save().await?;
            }
            backend.release_lease(&self.fence).await
        };
        // If it fails the next relay waits for the lease to end, and repeats a little.
        if let Err(error) = timeout(self.inner.options.lease_ttl, ending)
            .await
            .unwrap_or_else(|_| Err(Error::new(ErrorKind::Timeout, "the store did not answer")))
        {
            tracing::warn!(relay = %self.inner.options.name, %error, "relay ends without a checkpoint");
        }
    }
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
