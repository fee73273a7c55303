//! The reference reader of a document's log.

use bson::{RawBsonRef, RawDocument, RawDocumentBuf, raw::CStr};

use super::support::read_log;
use crate::document::{DocumentKey, Version};
use crate::event::EventId;
use crate::storage::backend::{Backend, EntryKind, LogEntry};

/// A log that was found to be in order.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::exhaustive_structs)]
pub struct CheckedLog {
    /// All entries, oldest first.
    pub entries: Vec<LogEntry>,
    /// The document after each entry; `None` where there was none.
    pub states: Vec<Option<RawDocumentBuf>>,
}

impl CheckedLog {
    /// The versions, oldest first.
    #[must_use]
    pub fn versions(&self) -> Vec<u64> {
        self.entries
            .iter()
            .map(|entry| entry.version.get())
            .collect()
    }

    /// The kinds, oldest first.
    #[must_use]
    pub fn kinds(&self) -> Vec<EntryKind> {
        self.entries.iter().map(|entry| entry.kind).collect()
    }
}

/// Checks all that the log of a document promises, against the document as it is stored now.
///
/// - Versions rise by exactly one from 1, except that an adopted entry may pass over versions which
///   other programs used.
/// - Positions rise with the versions.
/// - Kinds make sense: nothing is created twice, changed or deleted while absent; adopted entries have
///   no events, patches stand on updates only, whole documents where a reader needs them.
/// - Replaying the entries gives the stored document byte for byte, and on the way every whole document
///   that the log holds.
/// - Event ids are those that derive from store, document, version and index.
///
/// # Panics
/// When any of it does not hold.
pub async fn check_log(backend: &dyn Backend, key: &DocumentKey) -> CheckedLog {
    let entries = read_log(backend, key).await;
    let mut states = Vec::with_capacity(entries.len());
    let mut state: Option<RawDocumentBuf> = None;
    let mut last: Option<&LogEntry> = None;
    for entry in &entries {
        let at = format!("{key} at version {}", entry.version);
        let before = last.map_or(Version::NONE, |last| last.version);
        if entry.kind == EntryKind::Adopted {
            assert!(
                entry.version > before,
                "{at}: versions rise, after {before}"
            );
        } else {
            assert_eq!(
                entry.version,
                before.next(),
                "{at}: versions are contiguous"
            );
        }
        let position = last.map_or(0, |last| last.position.to_u64());
        assert!(entry.position.to_u64() > position, "{at}: positions rise");
        assert_eq!(entry.key, *key, "{at}: its key");
        state = replay(state, entry, &at);
        for (event, index) in entry.events.iter().zip(0_u32..) {
            let id = EventId::derive(backend.store_id(), key, entry.version, index);
            assert_eq!(event.id, id, "{at}: id of event {index}");
        }
        let rendered = entry.to_events().expect("events render");
        assert_eq!(rendered.len(), entry.events.len(), "{at}: rendered events");
        states.push(state.clone());
        last = Some(entry);
    }
    let loaded = backend.load(std::slice::from_ref(key)).await;
    let loaded = loaded.expect("the document loads").remove(0);
    let head = loaded.head.map(|head| (head.version, head.kind));
    assert_eq!(
        head,
        last.map(|last| (last.version, last.kind)),
        "{key}: newest entry against the head that loading returns"
    );
    assert!(
        loaded.document == state,
        "{key}: the replayed log against the stored document\nreplayed {state:?}\n  stored {:?}",
        loaded.document
    );
    CheckedLog { entries, states }
}

fn replay(state: Option<RawDocumentBuf>, entry: &LogEntry, at: &str) -> Option<RawDocumentBuf> {
    if entry.kind != EntryKind::Updated {
        assert!(entry.patch.is_none(), "{at}: a patch on {}", entry.kind);
    }
    match entry.kind {
        EntryKind::Created => {
            assert!(state.is_none(), "{at}: created over a document");
            let after = entry.after.clone();
            let after = after.unwrap_or_else(|| panic!("{at}: created without a document"));
            assert_versioned(&after, entry, at);
            Some(after)
        }
        EntryKind::Updated => {
            let patch = entry.patch.as_ref();
            let patch = patch.unwrap_or_else(|| panic!("{at}: updated without a patch"));
            let before = state.unwrap_or_else(|| panic!("{at}: updated while absent"));
            let patched = patch.apply(&before);
            let patched = patched.unwrap_or_else(|error| panic!("{at}: {error:?}"));
            let after = with_version(&patched, &entry.version_field, entry.version);
            if let Some(snapshot) = &entry.after {
                assert!(
                    *snapshot == after,
                    "{at}: replayed {after:?}, the log holds {snapshot:?}"
                );
            }
            Some(after)
        }
        EntryKind::Deleted => {
            assert!(state.is_some(), "{at}: deleted what was absent");
            assert!(entry.after.is_none(), "{at}: deleted with a document");
            None
        }
        EntryKind::Adopted => {
            assert!(entry.events.is_empty(), "{at}: adopted with events");
            entry.after.clone()
        }
        EntryKind::Appended => {
            assert!(
                state.is_none() && entry.after.is_none(),
                "{at}: events alone where there is a document"
            );
            assert!(
                !entry.events.is_empty(),
                "{at}: neither document nor events"
            );
            None
        }
    }
}

fn assert_versioned(document: &RawDocument, entry: &LogEntry, at: &str) {
    let version = document.get(&*entry.version_field).ok().flatten();
    assert_eq!(
        version,
        Some(RawBsonRef::Int64(entry.version.to_i64())),
        "{at}: the version field"
    );
}

/// The document with its version field set, at the place it has or else at the end.
fn with_version(document: &RawDocument, field: &str, version: Version) -> RawDocumentBuf {
    let mut out = RawDocumentBuf::new();
    let mut append = |key: &str, value: RawBsonRef<'_>| {
        let key: &CStr = key.try_into().expect("keys have no NUL");
        out.append(key, value);
    };
    let number = RawBsonRef::Int64(version.to_i64());
    let mut is_there = false;
    for element in document {
        let (key, value) = element.expect("documents read back");
        let is_version = key.as_str() == field;
        is_there |= is_version;
        append(key.as_str(), if is_version { number } else { value });
    }
    if !is_there {
        append(field, number);
    }
    out
}
