//! What a runner does while it has the lease.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bson::Bson;
use tokio::task::JoinError;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::claims::Claims;
use super::drive::{Driver, Left, until};
use super::journal::StoredJournal;
use super::runner::{Runner, Tasks};
use super::transition::later;
use super::validity::Validity;
use crate::document::{DocumentId, DocumentKey};
use crate::error::{Error, ErrorKind, Result};
use crate::history::follow::{Backoff, Follower};
use crate::history::lease::HeldLease;
use crate::storage::backend::{TailFrom, TailItem};
use crate::storage::{Order, Query};

/// How many sagas one look may find beyond those in work: what is in line is kept in memory, and looking
/// again costs as much as is due.
const LOOK: usize = 1_024;

/// What a runner that has the lease woke up for.
enum Wake {
    Shutdown,
    Ended(Result<(tokio::task::Id, Result<Left>), JoinError>),
    Changed,
    Log(Result<TailItem>),
    Due,
}

impl Runner {
    /// Carries sagas out; returns when shut down, and with `InUse` when the lease is lost.
    pub(super) async fn lead(&self, lease: &mut HeldLease, tasks: &mut Tasks) -> Result<()> {
        let validity = Validity::new(self.signals.shutdown.clone());
        validity.prolong(lease.valid_until());
        let driver = Arc::new(Driver {
            definition: Arc::clone(&self.shared.definition),
            journal: StoredJournal {
                storage: self.shared.storage.clone(),
                definition: Arc::clone(&self.shared.definition),
                fence: i64::try_from(lease.fence().number).unwrap_or(i64::MAX),
            },
            clock: Arc::clone(self.shared.storage.clock()),
            validity: validity.clone(),
            script: None,
        });
        // Before the first look, so that nothing falls between the two.
        let mut follower = Follower::new(Arc::clone(&self.backend), TailFrom::Now);
        let mut claims = Claims::default();
        claims.look = true;
        let mut backoff = Backoff::default();
        let mut look_at = Instant::now();
        let mut is_placed = false;
        loop {
            if Instant::now() >= look_at {
                claims.look = true;
            }
            if claims.wants_look() {
                let look = self.look(&mut claims);
                match self.keep(lease, &validity, look).await? {
                    Ok(()) => {
                        backoff.reset();
                        look_at = Instant::now() + self.options.look_interval;
                        self.signals.running();
                    }
                    Err(error) if error.is_retryable() => {
                        self.signals.retrying(&self.terms.name, error);
                        look_at = Instant::now() + backoff.next_delay();
                        claims.look = false;
                    }
                    Err(error) => return Err(error),
                }
            }
            while let Some(id) = claims.next(self.options.concurrency) {
                let (driver, saga) = (Arc::clone(&driver), Arc::clone(&id));
                let task = tasks.spawn(async move { driver.drive(&saga).await });
                claims.begun(task.id(), id);
            }
            let wake = self.wake(&mut follower, tasks, &claims, look_at);
            match self.keep(lease, &validity, wake).await? {
                Wake::Shutdown => return self.drain(lease, &validity, tasks).await,
                Wake::Ended(ended) => self.ended(&mut claims, &validity, ended)?,
                Wake::Changed => claims.look = true,
                Wake::Due => claims.look |= claims.is_due(self.shared.storage.clock().now()),
                Wake::Log(Ok(item)) => {
                    // Only now it is certain where "now" was.
                    claims.look |= !std::mem::replace(&mut is_placed, true);
                    if let TailItem::Entry { entry, .. } = item
                        && let Some(id) = self.own(&entry.key)
                    {
                        claims.changed(id);
                    }
                }
                Wake::Log(Err(error)) if error.is_retryable() => {
                    self.signals.retrying(&self.terms.name, error);
                    look_at = Instant::now() + backoff.next_delay();
                    let pause = self.unless_shut_down(sleep_until(look_at));
                    self.keep(lease, &validity, pause).await?;
                }
                Wake::Log(Err(error)) => return Err(error.context("following the log")),
            }
        }
    }

    /// Works on something while keeping the lease, and tells the sagas in work of its renewals.
    async fn keep<F: Future>(
        &self,
        lease: &mut HeldLease,
        validity: &Validity,
        work: F,
    ) -> Result<F::Output> {
        let mut work = pin!(work);
        loop {
            // The lease is renewed at a third of its time; so often it is looked at whether it was.
            let part = timeout(self.options.lease_ttl / 6, &mut work);
            let done = lease.keep_during(part).await?;
            validity.prolong(lease.valid_until());
            if let Ok(done) = done {
                return Ok(done);
            }
        }
    }

    /// Waits for the next thing to do.
    async fn wake(
        &self,
        follower: &mut Follower,
        tasks: &mut Tasks,
        claims: &Claims,
        look_at: Instant,
    ) -> Wake {
        /// The wall clock may jump, so it is asked now and then.
        const CLOCK: Duration = Duration::from_secs(1);
        let now = self.shared.storage.clock().now();
        let due = claims.next_due.map(|due| until(now, due));
        tokio::select! {
            biased;
            () = self.signals.shutdown.cancelled() => Wake::Shutdown,
            Some(ended) = tasks.join_next_with_id() => Wake::Ended(ended),
            () = self.shared.poke.notified() => Wake::Changed,
            () = async {
                match due {
                    None => std::future::pending().await,
                    Some(None) => {}
                    Some(Some(left)) => sleep(left.min(CLOCK)).await,
                }
            }, if !claims.look => Wake::Due,
            () = sleep_until(look_at), if !claims.look => Wake::Due,
            item = follower.next() => Wake::Log(item),
        }
    }

    /// Looks through the stored sagas for those that are due.
    async fn look(&self, claims: &mut Claims) -> Result<()> {
        let definition = &self.shared.definition;
        let now = self.shared.storage.clock().now();
        let horizon = later(now, self.options.look_interval * 2);
        let limit = LOOK + claims.passed_over();
        let query = Query::new()
            .equal("saga", &*definition.name)
            .range("due", ..=Bson::DateTime(horizon))
            .sort("due", Order::Ascending)
            .limit(u64::try_from(limit).unwrap_or(u64::MAX));
        let found = self.backend.query(&definition.collection, &query).await?;
        // What more there is, is looked for when this has been worked off.
        claims.look = found.len() >= limit;
        let found = found.iter().filter_map(|document| {
            let id = document.get_str("id").ok()?;
            let due = document.get_datetime("due").ok()?;
            Some((id.to_owned(), due))
        });
        claims.found(found.collect::<Vec<_>>(), now);
        Ok(())
    }

    /// The saga that a document is, if it is one of these.
    fn own<'a>(&self, key: &'a DocumentKey) -> Option<&'a str> {
        let definition = &self.shared.definition;
        match key.id() {
            DocumentId::String(id) if key.collection() == &*definition.collection => {
                id.strip_prefix(&*definition.name)?.strip_prefix('/')
            }
            _ => None,
        }
    }

    /// A task has ended.
    fn ended(
        &self,
        claims: &mut Claims,
        validity: &Validity,
        ended: Result<(tokio::task::Id, Result<Left>), JoinError>,
    ) -> Result<()> {
        let (task, left) = match ended {
            Ok((task, left)) => (task, left),
            // Steps' panics are caught, so this is one of ours.
            Err(broken) => {
                let what = "the task of a saga broke off";
                let error = Error::new(ErrorKind::Corrupt, what);
                (broken.id(), Err(error.with_source(broken)))
            }
        };
        let Some(id) = claims.ended(task) else {
            return Ok(());
        };
        match left {
            Ok(Left::Ended) => {
                // Nobody waits here if it cannot be sent.
                let _ = self.shared.ended.send(id);
            }
            Ok(Left::Resting(due)) => {
                if due.is_none() {
                    // It may be stuck, of which those who wait are told too.
                    let _ = self.shared.ended.send(id);
                } else if let Some(due) = due {
                    claims.due(due);
                }
                // A signal may have come while it still counted as being in work.
                claims.look = true;
            }
            Ok(Left::Stopped) => {}
            Ok(Left::LeaseLost) if validity.has_ended() => {
                let what = format!("lease {} ended", self.terms.name);
                return Err(Error::new(ErrorKind::InUse, what));
            }
            // It has been renewed meanwhile.
            Ok(Left::LeaseLost) => claims.look = true,
            Ok(Left::Overtaken) => {
                // The renewal will tell, unless the leases were set back behind the sagas.
                let saga = &self.shared.definition.name;
                tracing::error!(%saga, %id, "a later runner has written the saga");
                claims.park(id);
            }
            Err(error) if error.kind() == ErrorKind::Closed => return Err(error),
            Err(error) => {
                let saga = &self.shared.definition.name;
                tracing::error!(%saga, %id, %error, "saga is left alone for a while");
                claims.park(id);
            }
        }
        Ok(())
    }

    /// Lets the steps in work come to their end, for a while.
    async fn drain(
        &self,
        lease: &mut HeldLease,
        validity: &Validity,
        tasks: &mut Tasks,
    ) -> Result<()> {
        let end = Instant::now() + self.options.drain_timeout;
        while !tasks.is_empty() {
            let joined = timeout_at(end, tasks.join_next());
            if self.keep(lease, validity, joined).await?.is_err() {
                break;
            }
        }
        Ok(())
    }
}
