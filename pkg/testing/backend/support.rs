use std::sync::Arc;
use std::time::{Duration, Instant};

use bson::{DateTime, RawDocumentBuf, rawdoc};
use uuid::Uuid;

use crate::document::{DocumentKey, Version};
use crate::event::Metadata;
use crate::storage::CollectionSpec;
use crate::storage::backend::{
    Backend, CommitFailure, CommitReceipt, Condition, DocumentWrite, EntryKind, Loaded, LogEntry,
    Position, Record, Unit,
};
use crate::testing::TestStore;

/// The backend with the collection `things` open.
pub(super) async fn opened(store: &dyn TestStore) -> Arc<dyn Backend> {
    let backend = store.backend().await.unwrap();
    backend
        .open_collection(&CollectionSpec::new("things"))
        .await
        .unwrap();
    backend
}

pub(super) fn key(id: i32) -> DocumentKey {
    DocumentKey::new("things", id)
}

/// The document of an id at a version.
pub(super) fn thing(id: i32, version: i64) -> RawDocumentBuf {
    rawdoc! { "_id": id, "n": version * 10, "version": version }
}

pub(super) fn at(version: u64) -> Condition {
    Condition::Version(Version::new(version))
}

pub(super) fn entry(key: &DocumentKey, version: u64, kind: EntryKind) -> LogEntry {
    LogEntry {
        key: key.clone(),
        version: Version::new(version),
        position: Position::START,
        at: DateTime::from_millis(1_700_000_000_000),
        commit: Uuid::now_v7(),
        kind,
        patch: None,
        after: None,
        events: Vec::new(),
        aggregate_type: "Thing".to_owned(),
        version_field: "version".into(),
        metadata: Metadata::default(),
    }
}

/// A unit that creates a thing with its log entry.
pub(super) fn creation(id: i32) -> Unit {
    let mut created = entry(&key(id), 1, EntryKind::Created);
    created.after = Some(thing(id, 1));
    Unit {
        writes: vec![DocumentWrite {
            key: key(id),
            condition: Condition::Absent,
            document: Some(thing(id, 1)),
        }],
        entries: vec![created],
        ..Unit::default()
    }
}

/// A unit that writes a thing over version `from`, and logs it whole.
pub(super) fn change(id: i32, from: u64) -> Unit {
    let after = thing(id, from as i64 + 1);
    let mut changed = entry(&key(id), from + 1, EntryKind::Adopted);
    changed.after = Some(after.clone());
    Unit {
        writes: vec![DocumentWrite {
            key: key(id),
            condition: at(from),
            document: Some(after),
        }],
        entries: vec![changed],
        ..Unit::default()
    }
}

pub(super) fn record(kind: &str, key: &str, value: i32) -> Record {
    Record {
        kind: kind.to_owned(),
        key: key.to_owned(),
        value: rawdoc! { "value": value },
    }
}

pub(super) async fn commit(
    backend: &dyn Backend,
    units: &[Unit],
) -> Result<CommitReceipt, CommitFailure> {
    backend
        .commit(units, Instant::now() + Duration::from_secs(30))
        .await
}

pub(super) async fn load(backend: &dyn Backend, id: i32) -> Loaded {
    backend.load(&[key(id)]).await.unwrap().remove(0)
}

/// The version of a thing's document and of its newest log entry; 0 where there is none.
pub(super) async fn versions(backend: &dyn Backend, id: i32) -> (i64, u64) {
    let loaded = load(backend, id).await;
    let document = loaded
        .document
        .map_or(0, |document| document.get_i64("version").unwrap());
    (document, loaded.head.map_or(0, |head| head.version.get()))
}

#[track_caller]
pub(super) fn assert_conflict(result: Result<CommitReceipt, CommitFailure>, what: &str) {
    assert!(
        matches!(result, Err(CommitFailure::Conflict { .. })),
        "{what}: {result:?}"
    );
}
