//! The log in batches, read and decoded ahead in a task of its own.

use std::sync::Arc;

use futures_util::FutureExt;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::error::Result;
use crate::history::follow::{Backoff, Follower};
use crate::storage::backend::{Backend, Cursor, LogEntry, TailFrom, TailItem};

/// Entries in a batch: with fewer, handing them over would cost more than reading them.
const BATCH: usize = 512;

/// Bytes in a batch, beyond the first entry.
const BATCH_BYTES: usize = 4 << 20;

/// Batches that wait: one is made while one waits and one is folded.
const AHEAD: usize = 1;

/// Consecutive entries, at least one unless `idle`, and the place after them.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) entries: Vec<LogEntry>,
    pub(super) cursor: Cursor,
    /// There was nothing more when it was read.
    pub(super) idle: bool,
}

impl Batch {
    /// Whether it could have held more.
    pub(super) fn is_full(&self) -> bool {
        !self.idle && self.entries.len() >= BATCH
    }
}

/// Reads ahead until it is dropped. An error that is retryable is handed over and the reading goes on after
/// a pause; any other is the last item.
#[derive(Debug)]
pub(super) struct Reader {
    batches: mpsc::Receiver<Result<Batch>>,
    _task: AbortOnDropHandle<()>,
}

impl Reader {
    pub(super) fn start(backend: Arc<dyn Backend>, from: TailFrom) -> Self {
        let (sender, batches) = mpsc::channel(AHEAD);
        let task = tokio::spawn(read(Follower::new(backend, from), sender));
        Self {
            batches,
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// The next batch; `None` after an error that was the last. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Result<Batch>> {
        self.batches.recv().await
    }

    /// Whether a batch is waiting.
    pub(super) fn has_more(&self) -> bool {
        !self.batches.is_empty()
    }
}

async fn read(mut follower: Follower, batches: mpsc::Sender<Result<Batch>>) {
    let mut backoff = Backoff::default();
    loop {
        let (batch, error) = match follower.next().await {
            Ok(first) => gather(&mut follower, first),
            Err(error) => (None, Some(error)),
        };
        if let Some(batch) = batch {
            backoff.reset();
            if batches.send(Ok(batch)).await.is_err() {
                return;
            }
        }
        if let Some(error) = error {
            let is_final = !error.is_retryable();
            if batches.send(Err(error)).await.is_err() || is_final {
                return;
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }
}

/// An item with what is at hand behind it.
fn gather(
    follower: &mut Follower,
    first: TailItem,
) -> (Option<Batch>, Option<crate::error::Error>) {
    let mut entries = Vec::new();
    let mut bytes = 0;
    let mut item = first;
    loop {
        let cursor = match item {
            TailItem::Idle { cursor } => {
                let batch = Batch {
                    entries,
                    cursor,
                    idle: true,
                };
                return (Some(batch), None);
            }
            TailItem::Entry { entry, cursor } => {
                bytes += entry.approximate_bytes();
                entries.push(*entry);
                cursor
            }
        };
        let batch = |entries| Batch {
            entries,
            cursor,
            idle: false,
        };
        if entries.len() >= BATCH || bytes >= BATCH_BYTES {
            return (Some(batch(entries)), None);
        }
        match follower.next().now_or_never() {
            Some(Ok(next)) => item = next,
            Some(Err(error)) => return (Some(batch(entries)), Some(error)),
            None => return (Some(batch(entries)), None),
        }
    }
}
