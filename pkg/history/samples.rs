//! Log entries for tests.

use bson::{DateTime, RawDocumentBuf};
use uuid::Uuid;

use crate::document::{DocumentKey, Patch, Version};
use crate::event::Metadata;
use crate::storage::backend::{EntryKind, LogEntry, Position};

pub(super) fn entry(version: u64, kind: EntryKind) -> LogEntry {
    LogEntry {
        key: DocumentKey::new("users", 1),
        version: Version::new(version),
        position: Position::START,
        at: DateTime::from_millis(0),
        commit: Uuid::nil(),
        kind,
        patch: None,
        after: None,
        events: Vec::new(),
        aggregate_type: "User".into(),
        version_field: "version".into(),
        metadata: Metadata::default(),
    }
}

pub(super) fn whole(version: u64, kind: EntryKind, after: RawDocumentBuf) -> LogEntry {
    LogEntry {
        after: Some(after),
        ..entry(version, kind)
    }
}

pub(super) fn patch(version: u64, before: RawDocumentBuf, after: RawDocumentBuf) -> LogEntry {
    let patch = Patch::between(&before, &after, &["_id", "version"]).unwrap();
    LogEntry {
        patch: Some(patch),
        ..entry(version, EntryKind::Updated)
    }
}
