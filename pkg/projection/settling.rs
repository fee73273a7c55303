//! Putting a build into use that has caught up.
//!
//! What is in use goes on until then, and readers have seen how far it has come. So it is sealed first: nobody runs
//! it any more, which its lease proves; then the new build folds what was committed until then; and only then
//! readers are told. Nobody who reads goes back in time.

use std::sync::Arc;

use uuid::Uuid;

use super::build::Build;
use super::definition::Projection;
use super::leading::{Leading, Patience, Stop};
use crate::error::{ErrorKind, Result};
use crate::history::lease::{HeldLease, LeaseTerms};
use crate::storage::backend::Position;

/// The build in use, standing still.
pub(super) struct Sealing {
    /// Held until the swap, so that nobody runs it.
    lease: HeldLease,
    /// A position not before anything that it has.
    goal: Position,
}

impl<P: Projection> Leading<'_, P> {
    /// Goes one step on the way into use, if it is time.
    pub(super) async fn settle(&mut self) -> Result<(), Stop> {
        if self.is_live() {
            if self.catch_up.was_done() && self.folded.is_none() {
                self.at_work();
                self.hide_progress();
            }
            return Ok(());
        }
        if !self.catch_up.is_done() {
            return Ok(());
        }
        if !self.parked.is_empty() {
            self.unseal().await?;
            self.blocked("the build is complete but for documents that are parked");
            return Ok(());
        }
        let Some(sealing) = &mut self.sealing else {
            return self.seal().await;
        };
        if sealing.lease.upkeep().await.is_err() {
            // Somebody else may run it: from the beginning.
            self.sealing = None;
            return Ok(());
        }
        let reached = self.runner.shared.handled.position(self.runner.build);
        if reached < Some(sealing.goal) {
            return Ok(());
        }
        self.swap().await
    }

    /// Whether it is on the way, and looks again soon.
    pub(super) fn is_settling(&self) -> bool {
        self.is_sealed && !self.is_live()
    }

    async fn seal(&mut self) -> Result<(), Stop> {
        let (shared, build) = (Arc::clone(&self.runner.shared), self.runner.build);
        let ledger = shared.ledger.clone();
        let builds = self
            .persist(|| ledger.change(|builds| Ok(builds.with_seal(build, true))))
            .await?;
        let live = builds.live.filter(|_| builds.building == Some(build));
        shared.note(builds);
        shared.wake.notify_one();
        let Some(live) = live else {
            // Newer code has come in between; the one who looks after the builds ends this one.
            return Ok(());
        };
        self.is_sealed = true;
        let terms = self.terms_of(live);
        let acquiring = HeldLease::acquire(&shared.backend, &terms);
        let lease = match self.keep(acquiring, Patience::None).await? {
            Ok(lease) => lease,
            // Its owner has not heard of it yet.
            Err(error) if error.kind() == ErrorKind::InUse => return Ok(()),
            Err(error) if error.is_retryable() => return self.pause_after(error).await,
            Err(error) => return Err(Stop::Failed(error)),
        };
        let backend = Arc::clone(&shared.backend);
        let goal = self.persist(|| backend.position()).await?;
        self.sealing = Some(Sealing { lease, goal });
        Ok(())
    }

    async fn unseal(&mut self) -> Result<(), Stop> {
        // A former owner may have left it so.
        if !self.is_sealed && !self.runner.shared.builds.borrow().sealed {
            return Ok(());
        }
        let (shared, build) = (Arc::clone(&self.runner.shared), self.runner.build);
        let ledger = shared.ledger.clone();
        let builds = self
            .persist(|| ledger.change(|builds| Ok(builds.with_seal(build, false))))
            .await?;
        self.is_sealed = false;
        if let Some(sealing) = self.sealing.take() {
            sealing.lease.release().await;
        }
        shared.note(builds);
        shared.wake.notify_one();
        Ok(())
    }

    async fn swap(&mut self) -> Result<(), Stop> {
        let (shared, build) = (Arc::clone(&self.runner.shared), self.runner.build);
        let ledger = shared.ledger.clone();
        let builds = self
            .persist(|| ledger.change(|builds| Ok(builds.swapped(build))))
            .await?;
        if builds.live == Some(build) {
            // Before anybody is told: whoever waits for the swap sees no progress of it any more.
            self.hide_progress();
            tracing::info!(projection = %shared.name, %build, "views are in use");
        }
        shared.note(builds);
        shared.wake.notify_one();
        if let Some(sealing) = self.sealing.take() {
            sealing.lease.release().await;
        }
        self.is_sealed = false;
        self.at_work();
        Ok(())
    }

    fn terms_of(&self, build: Build) -> LeaseTerms {
        let shared = &self.runner.shared;
        LeaseTerms {
            name: shared.lease_name(build),
            owner: Uuid::now_v7().to_string(),
            ttl: shared.options.lease_ttl,
            checkpoint_entries: usize::MAX,
            checkpoint_interval: shared.options.checkpoint_interval,
        }
    }

    fn hide_progress(&self) {
        let build = self.runner.build;
        self.runner.shared.progress.send_if_modified(|progress| {
            let is_this = progress.is_some_and(|progress| progress.build == build);
            if is_this {
                *progress = None;
            }
            is_this
        });
    }
}
