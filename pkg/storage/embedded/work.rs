//! What is asked of the writer, and its answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::catalog::Collection;
use super::commit::Prepared;
use crate::storage::backend::{CommitFailure, CommitReceipt, Cursor, Fence, Lease, LeaseRequest};
use crate::storage::query::CollectionSpec;

/// A piece of work for the writer: all of it happens, or nothing.
#[derive(Debug)]
pub(super) enum Work {
    Commit {
        units: Vec<Prepared>,
        deadline: Instant,
    },
    Open(CollectionSpec),
    Acquire(LeaseRequest),
    Save {
        fence: Fence,
        cursor: Cursor,
        ttl: Duration,
    },
    Release(Fence),
}

impl Work {
    /// Whether it must have a transaction of its own: a failing index build undoes what it wrote by
    /// giving up the transaction.
    pub(super) fn is_alone(&self) -> bool {
        matches!(self, Self::Open(_))
    }

    /// How much memory it takes while it waits, in bytes.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Commit { units, .. } => units.iter().map(Prepared::bytes).sum(),
            _ => 0,
        }
    }
}

/// What came of a piece of work.
#[derive(Debug)]
pub(super) enum Done {
    Committed(CommitReceipt),
    Opened(Arc<Collection>),
    Leased(Lease),
    Nothing,
}

/// The answer to a piece of work.
pub(super) type Answer = Result<Done, CommitFailure>;

/// A piece of work in the queue.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) work: Work,
    /// Whoever waits may have gone; the work is done all the same.
    pub(super) answer: oneshot::Sender<Answer>,
    /// Its share of the memory that the queue may take, given back with the job.
    pub(super) _share: OwnedSemaphorePermit,
}
