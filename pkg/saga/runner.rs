//! The task of a runner, which lines up for the lease.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::drive::Left;
use super::incoming;
use super::options::SagaOptions;
use super::runner_handle::{SagaRunner, SagaRunnerState, Signals};
use super::shared::Shared;
use crate::error::{Error, ErrorKind, Result};
use crate::history::follow::Backoff;
use crate::history::lease::{HeldLease, LeaseTerms};
use crate::storage::backend::Backend;

/// What runs in the tasks.
pub(super) type Tasks = JoinSet<Result<Left>>;

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

pub(super) struct Runner {
    pub(super) shared: Arc<Shared>,
    pub(super) backend: Arc<dyn Backend>,
    pub(super) terms: LeaseTerms,
    pub(super) options: SagaOptions,
    pub(super) signals: Arc<Signals>,
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

    /// Waits for something; `None` when shut down meanwhile.
    pub(super) async fn unless_shut_down<F: Future>(&self, work: F) -> Option<F::Output> {
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
