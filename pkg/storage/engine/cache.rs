//! Committed states of documents that were read or written lately.

use moka::sync::Cache as Moka;

use super::super::base::Base;
use super::{CommitOptions, Tick};
use crate::document::DocumentKey;

/// What an entry takes beside its document: key, state, and the cache's own books.
const ENTRY_BYTES: usize = 400;

/// Bounded by bytes and time. What it holds may be behind: every commit compares the version.
#[derive(Default)]
pub(super) struct Cache(Option<Moka<DocumentKey, (Base, Tick)>>);

impl Cache {
    pub(super) fn new(options: &CommitOptions) -> Self {
        if options.cache_bytes == 0 {
            return Self(None);
        }
        let cache = Moka::builder()
            .max_capacity(options.cache_bytes as u64)
            .weigher(|_, (base, _): &(Base, Tick)| {
                let document = base.document.as_ref();
                let bytes = document.map_or(0, |document| document.as_bytes().len());
                u32::try_from(bytes + ENTRY_BYTES).unwrap_or(u32::MAX)
            })
            .time_to_idle(options.cache_time_to_live)
            .build();
        Self(Some(cache))
    }

    pub(super) fn get(&self, key: &DocumentKey) -> Option<(Base, Tick)> {
        self.0.as_ref()?.get(key)
    }

    pub(super) fn put(&self, key: DocumentKey, base: Base, seen: Tick) {
        if let Some(cache) = &self.0 {
            cache.insert(key, (base, seen));
        }
    }

    pub(super) fn forget(&self, key: &DocumentKey) {
        if let Some(cache) = &self.0 {
            cache.invalidate(key);
        }
    }
}
