use std::sync::Arc;

use crate::error::Error;

/// What a relay is doing.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum RelayState {
    /// It has not asked for its lease yet.
    Starting,
    /// It holds the lease, follows the log and publishes.
    Following,
    /// Another relay holds the lease.
    WaitingForLease,
    /// A bus or the store does not answer; it is tried again until it does.
    Retrying(Arc<Error>),
    /// It publishes nothing more: it was shut down (`Closed`), too many documents are parked
    /// (`DeadLettered`; it goes on when some were released or discarded), or something failed that
    /// trying again does not mend.
    Stopped(Arc<Error>),
}

impl RelayState {
    /// What it stumbles over, if anything.
    #[must_use]
    pub fn error(&self) -> Option<&Error> {
        match self {
            Self::Retrying(error) | Self::Stopped(error) => Some(error),
            Self::Starting | Self::Following | Self::WaitingForLease => None,
        }
    }
}
