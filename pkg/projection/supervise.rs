//! Which builds run: those of this code's version that are in use or being made.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::build::Build;
use super::definition::Projection;
use super::ledger::Builds;
use super::run::{Runner, shut_down};
use super::shared::{LOOK_EVERY, Shared};
use super::state::ProjectionState;
use crate::error::{Error, ErrorKind, Result};
use crate::history::follow::Backoff;
use crate::history::lease::{HeldLease, LeaseTerms};

pub(super) struct Supervisor<P> {
    pub(super) shared: Arc<Shared>,
    pub(super) projection: Arc<P>,
    /// What runs, and how to stop it.
    running: BTreeMap<Build, CancellationToken>,
    tasks: JoinSet<Build>,
    /// Since when builds are known to be of no use.
    retired: BTreeMap<Build, Instant>,
}

/// Says so if the task ends in another way than by itself.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        let is_stopped = matches!(*self.0.state.borrow(), ProjectionState::Stopped(_));
        if !is_stopped {
            let error = Arc::new(shut_down());
            self.0.state.send_replace(ProjectionState::Stopped(error));
        }
    }
}

impl<P: Projection> Supervisor<P> {
    pub(super) fn new(shared: Arc<Shared>, projection: Arc<P>) -> Self {
        Self {
            shared,
            projection,
            running: BTreeMap::new(),
            tasks: JoinSet::new(),
            retired: BTreeMap::new(),
        }
    }

    /// Runs until the projection is shut down.
    pub(super) async fn run(mut self) {
        let _ending = Ending(Arc::clone(&self.shared));
        let mut backoff = Backoff::default();
        let mut attempts = 0;
        while !self.shared.shutdown.is_cancelled() {
            let pause = match self.look().await {
                Ok(()) => {
                    backoff.reset();
                    attempts = 0;
                    LOOK_EVERY
                }
                Err(error) if error.is_retryable() => {
                    attempts += 1;
                    tracing::warn!(projection = %self.shared.name, %error, attempts, "builds cannot be read");
                    if self.running.is_empty() {
                        let error = Arc::new(error);
                        let state = ProjectionState::Retrying { error, attempts };
                        self.shared.state.send_replace(state);
                    }
                    backoff.next_delay()
                }
                Err(error) => {
                    tracing::error!(projection = %self.shared.name, %error, "projection stopped");
                    let state = ProjectionState::Stopped(Arc::new(error));
                    self.shared.state.send_replace(state);
                    break;
                }
            };
            tokio::select! {
                () = self.shared.shutdown.cancelled() => {}
                () = self.shared.wake.notified() => {}
                () = sleep(pause) => {}
            }
        }
        for stop in self.running.values() {
            stop.cancel();
        }
        while self.tasks.join_next().await.is_some() {}
    }

    /// Reads which builds there are, and sees to it that the right ones run.
    async fn look(&mut self) -> Result<()> {
        while self.tasks.try_join_next().is_some() {}
        let version = self.shared.version;
        let reading = self
            .shared
            .ledger
            .change(|builds| Ok(builds.started(version)));
        let builds = tokio::select! {
            biased;
            () = self.shared.shutdown.cancelled() => return Ok(()),
            builds = reading => builds?,
        };
        let builds = self.without_orphaned_seal(builds).await?;
        self.shared.note(builds.clone());
        let wanted: Vec<Build> = builds.of_version(version).collect();
        self.running.retain(|build, stop| {
            let is_wanted = wanted.contains(build);
            if !is_wanted {
                stop.cancel();
            }
            is_wanted
        });
        for build in wanted {
            self.running.entry(build).or_insert_with(|| {
                let stop = self.shared.shutdown.child_token();
                let runner = Runner::new(
                    Arc::clone(&self.shared),
                    Arc::clone(&self.projection),
                    build,
                    stop.clone(),
                );
                self.tasks.spawn(async move {
                    runner.run().await;
                    build
                });
                stop
            });
        }
        if let Some(newer) = builds.live.filter(|live| live.version() > version) {
            self.shared
                .state
                .send_replace(ProjectionState::Superseded(newer));
            return Ok(());
        }
        self.clear(&builds).await
    }

    /// Goes on with a build that stands still for one that nobody makes any more: its code died just before it
    /// would have taken over.
    async fn without_orphaned_seal(&self, builds: Builds) -> Result<Builds> {
        let version = self.shared.version;
        let is_ours = builds.live.is_some_and(|live| live.version() == version);
        let Some(building) = builds.building.filter(|_| builds.sealed && is_ours) else {
            return Ok(builds);
        };
        if building.version() == version {
            return Ok(builds);
        }
        let lease = self.shared.lease_name(building);
        if self.shared.backend.is_leased(&lease).await? {
            return Ok(builds);
        }
        let ledger = &self.shared.ledger;
        ledger
            .change(|builds| Ok(builds.with_seal(building, false)))
            .await
    }

    /// Removes builds that nobody uses any more: what readers were told a moment ago may still be read.
    async fn clear(&mut self, builds: &Builds) -> Result<()> {
        self.retired
            .retain(|build, _| builds.retired.contains(build));
        for build in builds.retired.iter().copied() {
            let since = *self.retired.entry(build).or_insert_with(Instant::now);
            if since.elapsed() < self.shared.options.lease_ttl.max(3 * LOOK_EVERY) {
                continue;
            }
            // So long that no other look waits for it; what remains is removed at the next.
            let most = Duration::from_secs(30);
            let clearing = timeout(most, self.clear_one(build));
            let cleared = tokio::select! {
                biased;
                () = self.shared.shutdown.cancelled() => return Ok(()),
                cleared = clearing => cleared,
            };
            match cleared {
                // Another process clears it, or still runs it.
                Ok(Err(error)) if error.kind() == ErrorKind::InUse => {}
                Ok(Err(error)) => {
                    tracing::debug!(projection = %self.shared.name, %build, %error, "a build stays");
                }
                Ok(Ok(())) | Err(_) => {}
            }
        }
        Ok(())
    }

    async fn clear_one(&self, build: Build) -> Result<()> {
        let terms = LeaseTerms {
            name: self.shared.lease_name(build),
            owner: Uuid::now_v7().to_string(),
            ttl: self.shared.options.lease_ttl,
            checkpoint_entries: 1,
            checkpoint_interval: self.shared.options.checkpoint_interval,
        };
        let mut lease = HeldLease::acquire(&self.shared.backend, &terms).await?;
        let clearing = async {
            self.shared.target.open(build).await?;
            self.shared.target.clear(build).await?;
            self.shared.letters(build).clear().await
        };
        let cleared = lease.keep_during(clearing).await;
        if let Ok(Ok(())) = cleared {
            let ledger = &self.shared.ledger;
            let builds = ledger
                .change(|builds| {
                    let is_there = builds.retired.contains(&build);
                    Ok(is_there.then(|| builds.without_retired(build)))
                })
                .await;
            match builds {
                Ok(builds) => self.shared.note(builds),
                Err(error) => return Err::<(), Error>(error),
            }
        }
        lease.release().await;
        cleared?
    }
}
