use std::sync::Arc;

use super::build::Build;
use crate::error::Error;

/// What a projection is doing.
///
/// # Examples
/// ```
/// # use nodestorage::projection::{Projection, ProjectionHandle, ProjectionState};
/// # fn example<P: Projection>(orders: &ProjectionHandle<P>) {
/// match orders.state() {
///     ProjectionState::Building(build) => println!("builds {build}"),
///     state => println!("{:?}", state.error()),
/// }
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ProjectionState {
    /// It has not found its place yet.
    Starting,
    /// It runs elsewhere, in this process or another; this one waits for its turn.
    WaitingForLease,
    /// It builds views that are not in use yet; [`progress`](super::ProjectionHandle::progress) says how
    /// far it is.
    Building(Build),
    /// It follows the log.
    Following,
    /// The store, or the target of the views, does not answer; it is tried again until it does, and
    /// nothing is lost meanwhile.
    Retrying {
        /// The last failure.
        error: Arc<Error>,
        /// How often it failed in a row.
        attempts: u32,
    },
    /// Too many documents are parked, or a build is complete but for what is parked; it goes on when some
    /// were replayed or discarded.
    Blocked(Arc<Error>),
    /// Newer code has replaced the views of this version. Its reader gets the newer views.
    Superseded(Build),
    /// It handles nothing more: it was shut down (`Closed`), or something failed that trying again does
    /// not mend.
    Stopped(Arc<Error>),
}

impl ProjectionState {
    /// What it stumbles over, if anything.
    #[must_use]
    pub fn error(&self) -> Option<&Error> {
        match self {
            Self::Retrying { error, .. } | Self::Blocked(error) | Self::Stopped(error) => {
                Some(error)
            }
            Self::Starting
            | Self::WaitingForLease
            | Self::Building(_)
            | Self::Following
            | Self::Superseded(_) => None,
        }
    }
}
