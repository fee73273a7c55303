//! The task of one build: it lines up for the lease, and leads while it holds it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::build::Build;
use super::definition::Projection;
use super::leading::{Leading, Stop};
use super::shared::{Request, Shared};
use super::state::ProjectionState;
use crate::error::{Error, ErrorKind, Result};
use crate::history::follow::Backoff;
use crate::history::lease::{HeldLease, LeaseTerms};

/// Requests that wait; more callers wait for room.
const REQUESTS: usize = 16;

pub(super) struct Runner<P> {
    pub(super) shared: Arc<Shared>,
    pub(super) projection: Arc<P>,
    pub(super) build: Build,
    pub(super) stop: CancellationToken,
    terms: LeaseTerms,
}

/// Says so if the task ends in another way than by itself: a runtime that shuts down.
struct Seated {
    shared: Arc<Shared>,
    build: Build,
    ended: bool,
}

impl Drop for Seated {
    fn drop(&mut self) {
        self.shared.handled.leave(self.build);
        if !self.ended {
            let error = Error::new(ErrorKind::Closed, "projection was broken off");
            let state = ProjectionState::Stopped(Arc::new(error));
            self.shared.set(self.build, state);
        }
    }
}

impl<P: Projection> Runner<P> {
    pub(super) fn new(
        shared: Arc<Shared>,
        projection: Arc<P>,
        build: Build,
        stop: CancellationToken,
    ) -> Self {
        let terms = LeaseTerms {
            name: shared.lease_name(build),
            owner: Uuid::now_v7().to_string(),
            ttl: shared.options.lease_ttl,
            // Counted in stored views, not in entries: the interval alone decides.
            checkpoint_entries: usize::MAX,
            checkpoint_interval: shared.options.checkpoint_interval,
        };
        Self {
            shared,
            projection,
            build,
            stop,
            terms,
        }
    }

    /// Runs until it is told to stop, or something fails that trying again does not mend.
    pub(super) async fn run(self) {
        let (requests, mut received) = mpsc::channel(REQUESTS);
        self.shared.sit_down(self.build, requests);
        let mut seated = Seated {
            shared: Arc::clone(&self.shared),
            build: self.build,
            ended: false,
        };
        let error = loop {
            let mut lease = match self.wait_for_lease(&mut received).await {
                Ok(lease) => lease,
                Err(error) => break error,
            };
            let stopped = Leading::new(&self, &mut lease, &mut received).run().await;
            self.shared.handled.leave(self.build);
            let error = match stopped {
                // Another owner is at it, or may be: whatever was in work here is its business now.
                Stop::Lost(error) => {
                    tracing::warn!(lease = %self.terms.name, %error, "projection lost its lease");
                    continue;
                }
                Stop::Asked | Stop::Over => shut_down(),
                Stop::Failed(error) => error,
            };
            lease.release().await;
            break error;
        };
        seated.ended = true;
        if error.kind() == ErrorKind::Closed {
            self.shared.leave(self.build);
            return;
        }
        tracing::error!(lease = %self.terms.name, %error, "projection stopped");
        let error = Arc::new(error);
        self.shared.set(self.build, ProjectionState::Stopped(error));
    }

    async fn wait_for_lease(&self, requests: &mut mpsc::Receiver<Request>) -> Result<HeldLease> {
        // Ten looks per lease let a takeover begin soon after its end.
        let poll = (self.terms.ttl / 10).clamp(Duration::from_millis(10), Duration::from_secs(1));
        let mut backoff = Backoff::default();
        let mut attempts = 0;
        loop {
            let acquired = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(shut_down()),
                acquired = HeldLease::acquire(&self.shared.backend, &self.terms) => acquired,
            };
            let pause = match acquired {
                Ok(lease) => return Ok(lease),
                Err(error) if error.kind() == ErrorKind::InUse => {
                    attempts = 0;
                    let state = ProjectionState::WaitingForLease;
                    self.shared.set(self.build, state);
                    poll
                }
                Err(error) if error.is_retryable() => {
                    attempts += 1;
                    self.retrying(error, attempts);
                    backoff.next_delay()
                }
                Err(error) => return Err(error),
            };
            let waiting = sleep(pause);
            tokio::pin!(waiting);
            loop {
                tokio::select! {
                    biased;
                    () = self.stop.cancelled() => return Err(shut_down()),
                    () = &mut waiting => break,
                    Some(request) = requests.recv() => {
                        let what = "the projection runs elsewhere; ask it there";
                        let _ = request.answer.send(Err(Error::new(ErrorKind::InUse, what)));
                    }
                }
            }
        }
    }

    pub(super) fn retrying(&self, error: Error, attempts: u32) {
        tracing::warn!(lease = %self.terms.name, %error, attempts, "projection tries again");
        let error = Arc::new(error);
        let state = ProjectionState::Retrying { error, attempts };
        self.shared.set(self.build, state);
    }
}

pub(super) fn shut_down() -> Error {
    Error::new(ErrorKind::Closed, "projection was shut down")
}
