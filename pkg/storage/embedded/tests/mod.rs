//! What the backend promises, shown on files and in memory.

mod commits;
mod crashing;
mod damage;
mod disk;
mod following;
mod indexing;
mod leasing;
mod logs;
mod opening;
mod querying;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use bson::{DateTime, RawDocumentBuf, rawdoc};
use uuid::Uuid;

use super::{EmbeddedBackend, EmbeddedOptions};
use crate::clock::Clock;
use crate::document::{DocumentKey, Version};
use crate::event::Metadata;
use crate::storage::backend::{
    Backend, CommitFailure, CommitReceipt, Condition, DocumentWrite, EntryKind, LogEntry, LogRange,
    Position, Unit,
};
use crate::storage::query::CollectionSpec;

/// A clock that stands where it is put.
#[derive(Debug, Default)]
pub(super) struct HandClock(AtomicI64);

impl HandClock {
    pub(super) fn at(millis: i64) -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(millis)))
    }

    pub(super) fn set(&self, millis: i64) {
        self.0.store(millis, Ordering::SeqCst);
    }
}

impl Clock for HandClock {
    fn now(&self) -> DateTime {
        DateTime::from_millis(self.0.load(Ordering::SeqCst))
    }
}

pub(super) fn key(id: &str) -> DocumentKey {
    DocumentKey::new("users", id)
}

pub(super) fn document(id: &str, version: u64) -> RawDocumentBuf {
    rawdoc! { "_id": id, "version": version as i64, "text": "x".repeat(50) }
}

pub(super) fn entry(key: &DocumentKey, version: u64, kind: EntryKind) -> LogEntry {
    LogEntry {
        key: key.clone(),
        version: Version::new(version),
        position: Position::START,
        at: DateTime::from_millis(1_700_000_000_000),
        commit: Uuid::from_u128(7),
        kind,
        patch: None,
        after: None,
        events: Vec::new(),
        aggregate_type: "User".to_owned(),
        version_field: "version".into(),
        metadata: Metadata::new(),
    }
}

/// The unit that takes a document from the version before to `version`.
pub(super) fn step(id: &str, version: u64) -> Unit {
    let key = key(id);
    let (condition, kind) = match version {
        1 => (Condition::Absent, EntryKind::Created),
        _ => (
            Condition::Version(Version::new(version - 1)),
            EntryKind::Updated,
        ),
    };
    Unit {
        entries: vec![entry(&key, version, kind)],
        writes: vec![DocumentWrite {
            key,
            condition,
            document: Some(document(id, version)),
        }],
        ..Unit::default()
    }
}

pub(super) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

pub(super) async fn commit(
    backend: &EmbeddedBackend,
    units: &[Unit],
) -> Result<CommitReceipt, CommitFailure> {
    backend.commit(units, soon()).await
}

pub(super) async fn version(backend: &EmbeddedBackend, id: &str) -> Option<i64> {
    let loaded = backend.load(&[key(id)]).await.unwrap().remove(0);
    loaded
        .document
        .map(|document| document.get_i64("version").unwrap())
}

pub(super) fn all_of(key: DocumentKey) -> LogRange {
    LogRange {
        key,
        from: Version::NONE,
        to: Version::MAX,
        until: None,
        newest_first: false,
        limit: usize::MAX,
    }
}

pub(super) async fn log_of(backend: &EmbeddedBackend, id: &str) -> Vec<u64> {
    let entries = backend.read_log(&all_of(key(id))).await.unwrap();
    entries.iter().map(|entry| entry.version.get()).collect()
}

pub(super) async fn opened() -> EmbeddedBackend {
    let backend = EmbeddedBackend::in_memory().unwrap();
    backend
        .open_collection(&CollectionSpec::new("users"))
        .await
        .unwrap();
    backend
}

pub(super) async fn opened_file(path: &std::path::Path) -> EmbeddedBackend {
    let backend = EmbeddedBackend::open(path, EmbeddedOptions::default()).unwrap();
    backend
        .open_collection(&CollectionSpec::new("users"))
        .await
        .unwrap();
    backend
}

/// Polls until `done` says so.
pub(super) async fn eventually<F: Future<Output = bool>>(mut done: impl FnMut() -> F) {
    let deadline = soon();
    while !done().await {
        assert!(Instant::now() < deadline, "did not happen in time");
        tokio::task::yield_now().await;
    }
}
