use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::error::{Error, ErrorKind, Result};
use crate::history::LogSubscriptionHandle;

/// What a runner is doing.
///
/// # Examples
/// ```
/// # use nodestorage::saga::{SagaRunner, SagaRunnerState};
/// # async fn example(runner: SagaRunner) {
/// let mut states = runner.state_changes();
/// while states.changed().await.is_ok() {
///     if let SagaRunnerState::Retrying(error) = &*states.borrow() {
///         println!("sagas wait: {error}");
///     }
/// }
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum SagaRunnerState {
    /// It has not asked for its lease yet, or looks for what is to be done.
    Starting,
    /// Another runner has the sagas; it waits for its turn.
    WaitingForLease,
    /// It carries sagas out.
    Running,
    /// The store failed; it is asked again until it does not.
    Retrying(Arc<Error>),
    /// It does nothing more: it was shut down (`Closed`), or something failed that trying again does not mend.
    Stopped(Arc<Error>),
}

/// What the task of a runner tells its handle.
pub(super) struct Signals {
    pub(super) state: watch::Sender<SagaRunnerState>,
    pub(super) shutdown: CancellationToken,
}

impl Signals {
    pub(super) fn new() -> Self {
        Self {
            state: watch::Sender::new(SagaRunnerState::Starting),
            shutdown: CancellationToken::new(),
        }
    }

    pub(super) fn set(&self, state: SagaRunnerState) {
        self.state.send_replace(state);
    }

    pub(super) fn running(&self) {
        self.state.send_if_modified(|state| {
            let changes = !matches!(state, SagaRunnerState::Running);
            if changes {
                *state = SagaRunnerState::Running;
            }
            changes
        });
    }

    pub(super) fn retrying(&self, lease: &str, error: Error) {
        tracing::warn!(lease, %error, "saga runner tries again");
        self.set(SagaRunnerState::Retrying(Arc::new(error)));
    }
}

/// A running runner of sagas, made by [`Sagas::run`](super::Sagas::run). Dropping it ends it as
/// [`shutdown`](Self::shutdown) does, without waiting for the end.
///
/// # Examples
/// ```
/// # use nodestorage::Result;
/// # use nodestorage::saga::{SagaOptions, Sagas};
/// # async fn example(transfers: Sagas<String>) -> Result<()> {
/// let runner = transfers.run(SagaOptions::new())?;
/// runner.started().await?;
/// // …
/// runner.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[must_use = "a runner ends when its handle is dropped"]
pub struct SagaRunner {
    name: String,
    signals: Arc<Signals>,
    task: TaskTracker,
    /// Starts and signals by events.
    events: Option<LogSubscriptionHandle>,
    _shutdown: DropGuard,
}

impl SagaRunner {
    pub(super) fn new(
        name: String,
        signals: Arc<Signals>,
        task: TaskTracker,
        events: Option<LogSubscriptionHandle>,
    ) -> Self {
        let shutdown = signals.shutdown.clone().drop_guard();
        Self {
            name,
            signals,
            task,
            events,
            _shutdown: shutdown,
        }
    }

    /// The saga's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is doing now.
    #[must_use]
    pub fn state(&self) -> SagaRunnerState {
        self.signals.state.borrow().clone()
    }

    /// Follows what it is doing.
    #[must_use]
    pub fn state_changes(&self) -> watch::Receiver<SagaRunnerState> {
        self.signals.state.subscribe()
    }

    /// The subscription that starts sagas and hands signals to them by events, if the definition says so.
    #[must_use]
    pub fn events(&self) -> Option<&LogSubscriptionHandle> {
        self.events.as_ref()
    }

    /// Waits until it has its turn.
    ///
    /// # Errors
    /// The error that it stopped with.
    pub async fn started(&self) -> Result<()> {
        let mut states = self.signals.state.subscribe();
        let state = states
            .wait_for(|state| {
                matches!(
                    state,
                    SagaRunnerState::Running | SagaRunnerState::Stopped(_)
                )
            })
            .await;
        match state.as_deref() {
            Ok(SagaRunnerState::Stopped(error)) => {
                let what = format!("runner of saga {} has stopped: {error}", self.name);
                Err(Error::new(error.kind(), what).with_source(Arc::clone(error)))
            }
            Ok(_) => Ok(()),
            Err(_) => Err(Error::new(ErrorKind::Closed, "runner has ended")),
        }
    }

    /// Begins nothing more, waits for steps in work within
    /// [`drain_timeout`](super::SagaOptions::drain_timeout), drops what is left of them, and lets the next
    /// process in. What was not completed runs again there. If the future is dropped the runner ends all the
    /// same.
    pub async fn shutdown(&self) {
        self.signals.shutdown.cancel();
        if let Some(events) = &self.events {
            events.shutdown().await;
        }
        self.task.wait().await;
    }
}

impl fmt::Debug for SagaRunner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SagaRunner")
            .field("name", &self.name)
            .field("state", &*self.signals.state.borrow())
            .finish_non_exhaustive()
    }
}
