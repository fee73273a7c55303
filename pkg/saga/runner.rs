//! The task of a runner: lines up for the lease, and carries sagas out while holding it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bson::Bson;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::claims::Claims;
use super::drive::{Driver, Left, until};
use super::handle::Shared;
use super::incoming;
use super::journal::StoredJournal;
use super::options::SagaOptions;
use super::runner_handle::{SagaRunner, SagaRunnerState, Signals};
use super::transition::later;
use super::validity::Validity;
use crate::document::{DocumentId, DocumentKey};
use crate::error::{Error, ErrorKind, Result};
use crate::history::follow::{Backoff, Follower};
use crate::history::lease::{HeldLease, LeaseTerms};
use crate::storage::backend::{Backend, TailFrom, TailItem};
use crate::storage::{Order, Query};

/// How many sagas one look may find beyond those in work: what is in line is kept in memory, and looking
/// again costs as much as is due.
const LOOK: usize = 1_024;

/// What runs in the tasks.
type Tasks = JoinSet<Result<Left>>;

/// Begins the runner's task.
pub(super) fn start(shared: &Arc<Shared>, options: SagaOptions) -> Result<SagaRunner> {
    shared.storage.check_open()?;
    options.validate()?;
    let runtime = tokio::runtime::Handle::try_current().map_err(|e| {
        let what = "a saga runner needs a tokio runtime, and there is none here";
        Error::new(ErrorKind::InvalidConfig, what).with_source(e)
    })?;
    let events = incoming::subscribe(shared, &options)?;
    let signals = Arc::new(Signals::new());
    let runner = Runner {
        terms: LeaseTerms {
            name: shared.lease(),
            owner: Uuid::now_v7().to_string(),
            ttl: options.lease_ttl,
            // There is no place in the log to store.
            checkpoint_entries: usize::MAX,
            checkpoint_interval: options.lease_ttl,
        },
        backend: Arc::clone(shared.storage.backend()),
        shared: Arc::clone(shared),
        options,
        signals: Arc::clone(&signals),
    };
    let task = TaskTracker::new();
    task.spawn_on(runner.run(), &runtime);
    task.close();
    let name = shared.definition.name.to_string();
    Ok(SagaRunner::new(name, signals, task, events))
}

struct Runner {
    shared: Arc<Shared>,
    backend: Arc<dyn Backend>,
    terms: LeaseTerms,
    options: SagaOptions,
    signals: Arc<Signals>,
}

/// Says so if the task ends in another way than by itself: a runtime that shuts down.
struct Ending(Arc<Signals>);

impl Drop for Ending {
    fn drop(&mut self) {
        let is_stopped = matches!(*self.0.state.borrow(), SagaRunnerState::Stopped(_));
        if !is_stopped {
            let error = Error::new(ErrorKind::Closed, "saga runner was broken off");
            self.0.set(SagaRunnerState::Stopped(Arc::new(error)));
        }
    }
}

/// What a runner that has the lease woke up for.
enum Wake {
    Shutdown,
    Ended(Result<(tokio::task::Id, Result<Left>), JoinError>),
    Changed,
    Log(Result<TailItem>),
    Due,
    Upkeep,
}

impl Runner {
    async fn run(self) {
        let _ending = Ending(Arc::clone(&self.signals));
        let error = loop {
            let mut lease = match self.wait_for_lease().await {
                Ok(lease) => lease,
                Err(error) => break error,
            };
            // Dropped at the end of the block with every task in it.
            let mut tasks = Tasks::new();
            let led = self.lead(&mut lease, &mut tasks).await;
            tasks.shutdown().await;
            match led {
                Ok(()) => {
                    lease.release().await;
                    break shut_down();
                }
                // Another runner is at it, or may be: whatever was in work here is its business now.
                Err(error) if error.kind() == ErrorKind::InUse => {
                    tracing::warn!(lease = %self.terms.name, %error, "saga runner lost its lease");
                }
                Err(error) => {
                    lease.release().await;
                    break error;
                }
            }
        };
        if error.kind() != ErrorKind::Closed {
            tracing::error!(lease = %self.terms.name, %error, "saga runner stopped");
        }
        self.signals.set(SagaRunnerState::Stopped(Arc::new(error)));
    }

    async fn wait_for_lease(&self) -> Result<HeldLease> {
        // Ten looks per lease let a takeover begin soon after its end.
        let poll =
            (self.options.lease_ttl / 10).clamp(Duration::from_millis(10), Duration::from_secs(1));
        let mut backoff = Backoff::default();
        loop {
            let acquiring = async {
                self.shared.open().await?;
                HeldLease::acquire(&self.backend, &self.terms).await
            };
            let Some(granted) = self.unless_shut_down(acquiring).await else {
                return Err(shut_down());
            };
            let pause = match granted {
                Ok(lease) => return Ok(lease),
                Err(error) if error.kind() == ErrorKind::InUse => {
                    self.signals.set(SagaRunnerState::WaitingForLease);
                    poll
                }
                Err(error) if error.is_retryable() => {
                    self.signals.retrying(&self.terms.name, error);
                    backoff.next_delay()
                }
                Err(error) => return Err(error),
            };
            if self.unless_shut_down(sleep(pause)).await.is_none() {
                return Err(shut_down());
            }
        }
    }

    /// Carries sagas out; returns when shut down, and with `InUse` when the lease is lost.
    async fn lead(&self, lease: &mut HeldLease, tasks: &mut Tasks) -> Result<()> {
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
                match lease.keep_during(self.look(&mut claims)).await? {
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
            validity.prolong(lease.valid_until());
            while let Some(id) = claims.next(self.options.concurrency) {
                let (driver, saga) = (Arc::clone(&driver), Arc::clone(&id));
                let task = tasks.spawn(async move { driver.drive(&saga).await });
                claims.begun(task.id(), id);
            }
            let wake = self.wake(&mut follower, tasks, &claims, look_at);
            match lease.keep_during(wake).await? {
                Wake::Shutdown => return self.drain(lease, &validity, tasks).await,
                Wake::Ended(ended) => self.ended(&mut claims, ended)?,
                Wake::Changed | Wake::Due => claims.look = true,
                Wake::Log(Ok(item)) => {
                    // Only now it is certain where "now" was.
                    claims.look |= !std::mem::replace(&mut is_placed, true);
                    if let TailItem::Entry { entry, .. } = item
                        && let Some(id) = self.own(&entry.key)
                    {
                        claims.changed(id);
                    }
                }
                Wake::Upkeep => {}
                Wake::Log(Err(error)) if error.is_retryable() => {
                    self.signals.retrying(&self.terms.name, error);
                    look_at = Instant::now() + backoff.next_delay();
                    lease.keep_during(self.pause(look_at)).await?;
                }
                Wake::Log(Err(error)) => return Err(error.context("following the log")),
            }
            validity.prolong(lease.valid_until());
        }
    }

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
        // The tasks learn of renewals only between the calls of this.
        let upkeep = sleep(self.options.lease_ttl / 6);
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
            }, if !claims.look => match due.flatten() {
                Some(left) if left > CLOCK => Wake::Upkeep,
                _ => Wake::Due,
            },
            () = sleep_until(look_at), if !claims.look => Wake::Due,
            item = follower.next() => Wake::Log(item),
            () = upkeep => Wake::Upkeep,
        }
    }

    async fn pause(&self, end: Instant) {
        let _ = self.unless_shut_down(sleep_until(end)).await;
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
            Ok(Left::LeaseLost) => {
                let what = format!("lease {} ended", self.terms.name);
                return Err(Error::new(ErrorKind::InUse, what));
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
        while !tasks.is_empty() && Instant::now() < end {
            let tick = (self.options.lease_ttl / 6).min(end - Instant::now());
            let joined = timeout(tick, tasks.join_next());
            // On time-out the tasks are told of the renewal.
            let _ = lease.keep_during(joined).await?;
            validity.prolong(lease.valid_until());
        }
        Ok(())
    }

    /// Waits for something; `None` when shut down meanwhile.
    async fn unless_shut_down<F: Future>(&self, work: F) -> Option<F::Output> {
        tokio::select! {
            biased;
            () = self.signals.shutdown.cancelled() => None,
            done = work => Some(done),
        }
    }
}

fn shut_down() -> Error {
    Error::new(ErrorKind::Closed, "saga runner was shut down")
}
