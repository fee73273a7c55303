//! A document's log entries in version order, page by page.

use std::sync::Arc;

use crate::document::{DocumentKey, Version};
use crate::error::Result;
use crate::storage::backend::{Backend, LogEntry, LogRange};

/// The first page, before anything is known about the size of the entries. Sixteen of the largest
/// possible ones are a quarter of a gigabyte, the most that reading ahead may cost.
pub(super) const FIRST_PAGE: usize = 16;

/// More entries in a page no longer save round trips worth having.
const LARGEST_PAGE: usize = 512;

/// What a page should hold: far above a round trip's cost, far below what a process notices.
const PAGE_BYTES: usize = 4 << 20;

/// Reads forward from a version to another, inclusive, in pages of a few megabytes.
#[derive(Debug)]
pub(super) struct LogPages {
    backend: Arc<dyn Backend>,
    key: DocumentKey,
    next: Version,
    to: Version,
    limit: usize,
    ended: bool,
}

impl LogPages {
    pub(super) fn new(
        backend: Arc<dyn Backend>,
        key: DocumentKey,
        from: Version,
        to: Version,
    ) -> Self {
        Self {
            backend,
            key,
            next: from,
            to,
            limit: FIRST_PAGE,
            ended: from > to,
        }
    }

    /// The next page; empty at the end of the range. After an error the same page can be asked for
    /// again.
    pub(super) async fn next_page(&mut self) -> Result<Vec<LogEntry>> {
        if self.ended {
            return Ok(Vec::new());
        }
        let range = LogRange {
            key: self.key.clone(),
            from: self.next,
            to: self.to,
            until: None,
            newest_first: false,
            limit: self.limit,
        };
        let entries = self.backend.read_log(&range).await?;
        if let Some(last) = entries.last() {
            self.next = last.version.next();
        }
        self.ended = entries.len() < self.limit || self.next > self.to;
        let bytes = entries.iter().map(LogEntry::estimated_bytes).sum();
        self.limit = next_limit(self.limit, entries.len(), bytes);
        Ok(entries)
    }
}

/// How many entries or documents to ask for after a page of `entries` with `bytes`, growing no faster
/// than fourfold.
pub(super) fn next_limit(limit: usize, entries: usize, bytes: usize) -> usize {
    if entries == 0 {
        return limit;
    }
    let fitting = PAGE_BYTES / (bytes / entries).max(1);
    fitting.min(limit.saturating_mul(4)).clamp(1, LARGEST_PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_the_size_of_the_entries() {
        assert_eq!(next_limit(16, 16, 16 * 500), 64);
        assert_eq!(next_limit(512, 512, 512 * 500), 512);
        assert_eq!(next_limit(16, 16, 16 * (1 << 20)), 4);
        assert_eq!(next_limit(16, 16, 16 * (16 << 20)), 1);
        assert_eq!(next_limit(1, 1, 500), 4);
    }
}
