//! A lease while it is held: renewed in time, with a checkpoint that is stored now and then.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};

use crate::error::{Error, ErrorKind, Result};
use crate::storage::backend::{Backend, Cursor, Fence, LeaseRequest, Position};

/// What a lease is for, and how often its checkpoint is stored.
#[derive(Debug, Clone)]
pub(crate) struct LeaseTerms {
    pub(crate) name: String,
    /// Unique to the process and purpose.
    pub(crate) owner: String,
    /// How long the lease lives without being renewed; it is renewed at a third of it.
    pub(crate) ttl: Duration,
    /// The checkpoint is stored after this many entries,
    pub(crate) checkpoint_entries: usize,
    /// or this long after the first of them.
    pub(crate) checkpoint_interval: Duration,
}

/// A lease that was granted.
///
/// Every method that talks to the store fails with `InUse` once someone else has the lease, or may have
/// it because it could not be renewed in time; the holder then stops what it does and asks anew.
#[derive(Debug)]
pub(crate) struct HeldLease {
    backend: Arc<dyn Backend>,
    terms: LeaseTerms,
    fence: Fence,
    /// Up to here nobody else can have been granted the lease.
    valid_until: Instant,
    renew_at: Instant,
    /// The place up to which everything is done.
    done: Option<Cursor>,
    /// Whether the store has some place under the name.
    has_stored_place: bool,
    /// The position of that place.
    stored: Position,
    /// Entries since the stored checkpoint, and since when.
    unsaved: usize,
    unsaved_since: Option<Instant>,
}

impl HeldLease {
    /// Asks for the lease once.
    ///
    /// # Errors
    /// `InUse` while another owner holds it, and those of the store.
    pub(crate) async fn acquire(backend: &Arc<dyn Backend>, terms: &LeaseTerms) -> Result<Self> {
        // Taken before asking: the store counts from a later moment.
        let asked_at = Instant::now();
        let lease = backend.acquire_lease(&request(terms)).await?;
        Ok(Self {
            backend: Arc::clone(backend),
            terms: terms.clone(),
            fence: lease.fence,
            valid_until: asked_at + terms.ttl,
            renew_at: asked_at + terms.ttl / 3,
            has_stored_place: lease.checkpoint.is_some(),
            stored: position_of(lease.checkpoint.as_ref()),
            done: lease.checkpoint,
            unsaved: 0,
            unsaved_since: None,
        })
    }

    /// Proof of holding it.
    pub(crate) fn fence(&self) -> &Fence {
        &self.fence
    }

    /// Up to here nobody else can have been granted the lease.
    pub(crate) fn valid_until(&self) -> Instant {
        self.valid_until
    }

    /// The checkpoint, as it was found or as it will be stored.
    pub(crate) fn checkpoint(&self) -> Option<&Cursor> {
        self.done.as_ref()
    }

    /// Whether the store knows a place to continue from, so that the next owner leaves nothing out.
    pub(crate) fn has_stored_place(&self) -> bool {
        self.has_stored_place
    }

    /// The position of the checkpoint as the store has it: a crash repeats what comes after it.
    pub(crate) fn stored_position(&self) -> Position {
        self.stored
    }

    /// Everything up to this place is done; `entries` were, since the last call.
    pub(crate) fn passed(&mut self, cursor: Cursor, entries: usize) {
        self.done = Some(cursor);
        if entries > 0 {
            self.unsaved += entries;
            self.unsaved_since.get_or_insert_with(Instant::now);
        }
    }

    /// Works on something while keeping the lease. Drops the work where it is if the lease is lost.
    pub(crate) async fn keep_during<F: Future>(&mut self, work: F) -> Result<F::Output> {
        let mut work = pin!(work);
        loop {
            // The upkeep comes before the work: after a pause of the whole process it finds out
            // whether the lease is still ours.
            tokio::select! {
                biased;
                () = sleep_until(self.next_upkeep()) => self.store().await?,
                done = &mut work => return Ok(done),
            }
        }
    }

    /// Stores the checkpoint if it is due.
    pub(crate) async fn upkeep(&mut self) -> Result<()> {
        let due = self.unsaved >= self.terms.checkpoint_entries.max(1)
            || Instant::now() >= self.next_upkeep();
        if due { self.store().await } else { Ok(()) }
    }

    fn next_upkeep(&self) -> Instant {
        match self.unsaved_since {
            Some(since) => self.renew_at.min(since + self.terms.checkpoint_interval),
            None => self.renew_at,
        }
    }

    /// Stores the checkpoint, which prolongs the lease. Outages are passed over until the lease may
    /// have ended.
    pub(crate) async fn store(&mut self) -> Result<()> {
        let asked_at = Instant::now();
        let ttl = self.terms.ttl;
        let error = match timeout(ttl / 3, self.try_store()).await {
            Ok(Ok(())) => {
                self.valid_until = asked_at + ttl;
                self.renew_at = asked_at + ttl / 3;
                self.unsaved = 0;
                self.unsaved_since = None;
                self.has_stored_place = self.done.is_some();
                self.stored = position_of(self.done.as_ref());
                return Ok(());
            }
            Ok(Err(error)) if error.kind() == ErrorKind::InUse || !error.is_retryable() => {
                return Err(error);
            }
            Ok(Err(error)) => error,
            Err(_) => Error::new(ErrorKind::Timeout, "the store did not answer"),
        };
        tracing::warn!(lease = %self.terms.name, %error, "lease cannot be renewed");
        let now = Instant::now();
        if now >= self.valid_until {
            let what = format!("lease {} ended: {error}", self.terms.name);
            return Err(Error::new(ErrorKind::InUse, what).with_source(error));
        }
        // A tenth leaves several more attempts before the lease ends.
        let again = now + (ttl / 10).max(Duration::from_millis(1));
        self.renew_at = again.min(self.valid_until);
        self.unsaved = 0;
        self.unsaved_since = self.unsaved_since.map(|_| again);
        Ok(())
    }

    async fn try_store(&self) -> Result<()> {
        let Some(cursor) = &self.done else {
            let lease = self.backend.acquire_lease(&request(&self.terms)).await?;
            if lease.fence == self.fence {
                return Ok(());
            }
            // It had ended and was granted anew: someone else may have had it in between.
            let what = format!("lease {} was taken over", self.terms.name);
            return Err(Error::new(ErrorKind::InUse, what));
        };
        self.backend
            .save_checkpoint(&self.fence, cursor, self.terms.ttl)
            .await
    }

    /// Stores the checkpoint and gives the lease up, so that the next owner need not wait.
    pub(crate) async fn release(self) {
        let ending = async {
            if self.done.is_some() {
                self.try_store().await?;
            }
            self.backend.release_lease(&self.fence).await
        };
        let ended = timeout(self.terms.ttl, ending)
            .await
            .unwrap_or_else(|_| Err(Error::new(ErrorKind::Timeout, "the store did not answer")));
        // The next owner then waits for the lease to end, and repeats a little.
        if let Err(error) = ended {
            tracing::warn!(lease = %self.terms.name, %error, "lease ends without a checkpoint");
        }
    }
}

fn position_of(checkpoint: Option<&Cursor>) -> Position {
    checkpoint.map_or(Position::START, |cursor| cursor.position)
}

fn request(terms: &LeaseTerms) -> LeaseRequest {
    LeaseRequest {
        name: terms.name.clone(),
        owner: terms.owner.clone(),
        ttl: terms.ttl,
    }
}

#[cfg(all(test, feature = "embedded", feature = "testing"))]
mod tests;
