//! Following the log.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bson::raw::cstr;
use bson::{RawDocumentBuf, Timestamp};
use futures_core::stream::BoxStream;
use futures_util::stream;
use tokio::sync::watch;
use tokio::time::timeout;

use super::failure::closed;
use super::read::decode;
use super::store::Store;
use super::tables::Log;
use crate::error::Result;
use crate::storage::backend::{Cursor, LogEntry, Position, TailFrom, TailItem};

/// Entries read at once: enough to make the cost of a snapshot disappear, and few enough that a slow
/// reader holds little.
const PAGE: usize = 256;

/// Bytes of entries read at once, beyond the first.
const PAGE_BYTES: usize = 1 << 20;

/// How often a reader is told that nothing happens.
const IDLE: Duration = Duration::from_millis(500);

struct Tail {
    store: Arc<Store>,
    tip: watch::Receiver<u64>,
    /// Everything up to here was handed out or lies in `page`.
    reached: u64,
    page: VecDeque<LogEntry>,
    /// Whether the reader knows that it has caught up.
    told: bool,
}

/// Follows the log from a place on.
pub(super) fn tail(store: Arc<Store>, from: TailFrom) -> BoxStream<'static, Result<TailItem>> {
    let mut tip = store.tip.subscribe();
    let end = *tip.borrow_and_update();
    let reached = match from {
        TailFrom::Beginning => 0,
        TailFrom::Now => end,
        // Beyond the end lies nothing of this log; what comes next has to be seen.
        TailFrom::After(cursor) => position_of(&cursor).min(end),
    };
    let tail = Tail {
        store,
        tip,
        reached,
        page: VecDeque::new(),
        told: false,
    };
    Box::pin(stream::unfold(Some(tail), |tail| async move {
        let mut tail = tail?;
        match tail.next().await {
            Ok(item) => Some((Ok(item), Some(tail))),
            Err(error) => Some((Err(error), None)),
        }
    }))
}

impl Tail {
    async fn next(&mut self) -> Result<TailItem> {
        loop {
            if let Some(entry) = self.page.pop_front() {
                let cursor = cursor_at(entry.position);
                return Ok(TailItem::Entry {
                    entry: Box::new(entry),
                    cursor,
                });
            }
            // Marked as seen before reading: a commit in between wakes the next wait.
            self.tip.borrow_and_update();
            self.page = self.read().await?;
            if let Some(newest) = self.page.back() {
                self.reached = newest.position.to_u64();
                self.told = false;
                continue;
            }
            if self.told {
                match timeout(IDLE, self.tip.changed()).await {
                    Ok(Ok(())) => continue,
                    Ok(Err(_)) => return Err(closed()),
                    Err(_) => {}
                }
            }
            self.told = true;
            return Ok(TailItem::Idle {
                cursor: cursor_at(Position::from_u64(self.reached)),
            });
        }
    }

    async fn read(&self) -> Result<VecDeque<LogEntry>> {
        let store = Arc::clone(&self.store);
        let after = self.reached;
        // A page may come from the disk and take a while to decode.
        let page = tokio::task::spawn_blocking(move || {
            store.read(|transaction| {
                let mut page = VecDeque::new();
                let mut bytes = 0;
                Log::open(transaction)?.follow(after, |position, raw| {
                    page.push_back(decode(raw, position)?);
                    bytes += raw.len();
                    Ok(page.len() < PAGE && bytes < PAGE_BYTES)
                })?;
                Ok(page)
            })
        });
        page.await.map_err(|_| closed())?
    }
}

fn cursor_at(position: Position) -> Cursor {
    let mut token = RawDocumentBuf::new();
    token.append(cstr!("position"), Timestamp::from(position));
    Cursor { position, token }
}

/// The token says it exactly; one of another make leaves the position, which is never too late.
fn position_of(cursor: &Cursor) -> u64 {
    cursor
        .token
        .get_timestamp("position")
        .map_or(cursor.position, Position::from)
        .to_u64()
}
