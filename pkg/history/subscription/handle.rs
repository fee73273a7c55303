use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::error::{Error, ErrorKind, Result};
use crate::storage::backend::Position;

/// What a subscription to the log is doing.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum LogSubscriptionState {
    /// It has not found its place in the log yet.
    Starting,
    /// Another process, or another subscription of this one, has the name; it waits for its turn.
    WaitingForLease,
    /// It follows the log.
    Following,
    /// The handler or the store failed; it is tried again until it does not.
    Retrying {
        /// The last failure.
        error: Arc<Error>,
        /// How often it failed in a row.
        attempts: u32,
    },
    /// It handles nothing more: it was shut down (`Closed`), or something failed that trying again does
    /// not mend.
    Stopped(Arc<Error>),
}

impl LogSubscriptionState {
    /// What it stumbles over, if anything.
    #[must_use]
    pub fn error(&self) -> Option<&Error> {
        match self {
            Self::Retrying { error, .. } | Self::Stopped(error) => Some(error),
            Self::Starting | Self::WaitingForLease | Self::Following => None,
        }
    }
}

/// What the task of a subscription tells its handle.
pub(super) struct Signals {
    pub(super) state: watch::Sender<LogSubscriptionState>,
    pub(super) position: watch::Sender<Position>,
    pub(super) shutdown: CancellationToken,
}

impl Signals {
    pub(super) fn new() -> Self {
        Self {
            state: watch::Sender::new(LogSubscriptionState::Starting),
            position: watch::Sender::new(Position::START),
            shutdown: CancellationToken::new(),
        }
    }

    pub(super) fn set(&self, state: LogSubscriptionState) {
        self.state.send_replace(state);
    }

    pub(super) fn following(&self) {
        self.state.send_if_modified(|state| {
            let changes = !matches!(state, LogSubscriptionState::Following);
            if changes {
                *state = LogSubscriptionState::Following;
            }
            changes
        });
    }
}

/// A running subscription to the log. Dropping it ends the subscription as
/// [`shutdown`](Self::shutdown) does, without waiting for the end.
#[must_use = "a subscription ends when its handle is dropped"]
pub struct LogSubscriptionHandle {
    name: String,
    signals: Arc<Signals>,
    task: TaskTracker,
    _shutdown: DropGuard,
}

impl LogSubscriptionHandle {
    pub(super) fn new(name: String, signals: Arc<Signals>, task: TaskTracker) -> Self {
        let shutdown = signals.shutdown.clone().drop_guard();
        Self {
            name,
            signals,
            task,
            _shutdown: shutdown,
        }
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is doing now.
    #[must_use]
    pub fn state(&self) -> LogSubscriptionState {
        self.signals.state.borrow().clone()
    }

    /// Follows what it is doing.
    #[must_use]
    pub fn state_changes(&self) -> watch::Receiver<LogSubscriptionState> {
        self.signals.state.subscribe()
    }

    /// Waits until it has its turn and its place in the log: from then on nothing that is committed
    /// escapes it, also one that begins "now".
    ///
    /// # Errors
    /// The error that it stopped with.
    pub async fn started(&self) -> Result<()> {
        let mut states = self.signals.state.subscribe();
        let state = states
            .wait_for(|state| {
                matches!(
                    state,
                    LogSubscriptionState::Following | LogSubscriptionState::Stopped(_)
                )
            })
            .await;
        match state.as_deref() {
            Ok(LogSubscriptionState::Stopped(error)) => Err(stopped(&self.name, error)),
            Ok(_) => Ok(()),
            Err(_) => Err(Error::new(ErrorKind::Closed, "subscription has ended")),
        }
    }

    /// The position up to which everything was handled, as far as this process did it.
    #[must_use]
    pub fn position(&self) -> Position {
        *self.signals.position.borrow()
    }

    /// Waits until everything up to a position was handled by this process.
    ///
    /// # Errors
    /// The error that it stopped with.
    pub async fn handled(&self, up_to: Position) -> Result<()> {
        let mut positions = self.signals.position.subscribe();
        let mut states = self.signals.state.subscribe();
        tokio::select! {
            biased;
            reached = positions.wait_for(|position| *position >= up_to) => {
                reached.map(|_| ()).map_err(|_| {
                    Error::new(ErrorKind::Closed, "subscription has ended")
                })
            }
            state = states.wait_for(|state| matches!(state, LogSubscriptionState::Stopped(_))) => {
                Err(match state.as_deref() {
                    Ok(LogSubscriptionState::Stopped(error)) => stopped(&self.name, error),
                    _ => Error::new(ErrorKind::Closed, "subscription has ended"),
                })
            }
        }
    }

    /// Takes in nothing more, waits for the handler within
    /// [`drain_timeout`](super::LogSubscription::drain_timeout), stores the checkpoint, lets the next
    /// process in, and ends. What was not handled to its end comes again. If the future is dropped the
    /// subscription ends all the same.
    pub async fn shutdown(&self) {
        self.signals.shutdown.cancel();
        self.task.wait().await;
    }
}

fn stopped(name: &str, error: &Arc<Error>) -> Error {
    Error::new(
        error.kind(),
        format!("subscription {name} has stopped: {error}"),
    )
    .with_source(Arc::clone(error))
}

impl fmt::Debug for LogSubscriptionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogSubscriptionHandle")
            .field("name", &self.name)
            .field("state", &*self.signals.state.borrow())
            .finish_non_exhaustive()
    }
}
