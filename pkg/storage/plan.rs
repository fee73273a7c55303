//! From a decided change to what is committed: log entries with their events, and the document write.

use std::sync::Arc;

use bson::{DateTime, RawDocumentBuf};
use uuid::Uuid;

use super::Inner;
use super::backend::{EntryKind, LogEntry, LoggedData, LoggedEvent, Position, RecordWrite};
use super::base::Base;
use super::codec::Codec;
use super::context::{Collected, LogForm};
use crate::document::{Diff, DocumentKey, MergePatch, Version};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{ChangeKind, ChangeView, EventId, Metadata, NewData, NewEvent};

/// Every how many versions the log keeps the whole document, which bounds the patches that reading a
/// past state applies.
pub(crate) const SNAPSHOT_EVERY: u64 = 100;

/// A change of one document, ready to be committed.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) kind: ChangeKind,
    pub(super) diff: Diff,
    /// The new document with its version; `None` if there is none.
    pub(super) after: Option<Arc<RawDocumentBuf>>,
    /// Whether the document is written or deleted.
    pub(super) writes: bool,
    /// The adoption, if the log has to catch up first, and the change.
    pub(super) entries: Vec<LogEntry>,
    /// What is written beside them.
    pub(super) records: Vec<RecordWrite>,
}

/// What all entries of one commit have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stamp {
    commit: Uuid,
    at: DateTime,
}

impl Stamp {
    pub(super) fn new(storage: &Inner) -> Self {
        Self {
            commit: Uuid::now_v7(),
            at: storage.clock.now(),
        }
    }

    /// An entry of the commit that holds nothing yet.
    pub(super) fn entry(
        self,
        key: &DocumentKey,
        version: Version,
        kind: EntryKind,
        aggregate_type: String,
        version_field: &str,
    ) -> LogEntry {
        LogEntry {
            key: key.clone(),
            version,
            position: Position::START,
            at: self.at,
            commit: self.commit,
            kind,
            patch: None,
            after: None,
            events: Vec::new(),
            aggregate_type,
            version_field: version_field.into(),
            metadata: Metadata::default(),
        }
    }
}

/// What a closure decided about one document.
pub(super) struct Decision {
    /// The new document with the version field still to be set; `None` deletes.
    pub(super) after: Option<RawDocumentBuf>,
    /// Whether `after` differs from what is stored.
    pub(super) changed: bool,
    pub(super) collected: Collected,
}

impl Planned {
    /// Works out entries, events and the write for a decision; `None` if there is nothing to write.
    pub(super) fn new(
        storage: &Inner,
        codec: Codec<'_>,
        base: &Base,
        decision: Decision,
        stamp: Stamp,
    ) -> Result<Option<Self>> {
        let Decision {
            after,
            changed,
            collected,
        } = decision;
        let Collected {
            events: emitted,
            metadata,
            records,
            form,
        } = collected;
        if !changed && emitted.is_empty() {
            return Ok(None);
        }
        let key = codec.key;
        let after = match after {
            Some(after) => {
                let after = codec.at_version(after, base.next)?;
                check_size(
                    key,
                    "document",
                    after.as_bytes().len(),
                    storage.max_document(),
                )?;
                Some(Arc::new(after))
            }
            None => None,
        };
        let kind = match (&base.document, &after) {
            (None, Some(_)) => ChangeKind::Created,
            (Some(_), None) => ChangeKind::Deleted,
            _ => ChangeKind::Updated,
        };
        let diff = Diff::between(base.document.clone(), after.clone(), &codec.own_fields())
            .map_err(|e| e.context(key))?;
        let mapper = storage.mapper(key.collection());
        let mut events = Vec::new();
        if changed && form.mapped {
            let view = ChangeView::new(key, base.next, kind, &diff, &metadata);
            events = mapper.map(&view).map_err(|e| e.into_error(key))?;
        }
        events.extend(emitted);

        let blank = |version: Version, kind: EntryKind| {
            let LogForm { aggregate_type, .. } = &form;
            let aggregate = match aggregate_type {
                Some(name) => name.to_string(),
                None => mapper.aggregate_type(key.collection()),
            };
            stamp.entry(key, version, kind, aggregate, codec.version_field)
        };
        let adopted = base.adopt.map(|version| LogEntry {
            after: base.document.as_deref().cloned(),
            ..blank(version, EntryKind::Adopted)
        });
        let entry_kind = match kind {
            ChangeKind::Created => EntryKind::Created,
            ChangeKind::Deleted => EntryKind::Deleted,
            // Events emitted where there is no document, before or after.
            _ if after.is_none() => EntryKind::Appended,
            _ => EntryKind::Updated,
        };
        let mut entry = LogEntry {
            events: logged(storage.backend().store_id(), key, base.next, events, &diff)?,
            metadata,
            ..blank(base.next, entry_kind)
        };
        match (kind, &after) {
            (ChangeKind::Created, Some(after)) => entry.after = Some(after.as_ref().clone()),
            (ChangeKind::Updated, Some(_)) => entry.patch = Some(diff.patch().clone()),
            _ => {}
        }
        let max_entry = storage.max_entry();
        let size = check_entry(&entry, max_entry)?;
        if let Some(adopted) = &adopted {
            check_entry(adopted, max_entry)?;
        }
        if let (ChangeKind::Updated, Some(after)) = (kind, &after)
            && base.next.get().is_multiple_of(form.snapshot_every)
            && size + after.as_bytes().len() <= max_entry
        {
            // A snapshot that does not fit is left out: reading goes back to the one before.
            entry.after = Some(after.as_ref().clone());
        }
        Ok(Some(Self {
            kind,
            diff,
            writes: after.is_some() || base.document.is_some(),
            after,
            entries: adopted.into_iter().chain([entry]).collect(),
            records,
        }))
    }
}

/// Turns new events into logged ones: their ids derive from store, document, version and index.
pub(super) fn logged(
    store: Uuid,
    key: &DocumentKey,
    version: Version,
    events: Vec<NewEvent>,
    diff: &Diff,
) -> Result<Vec<LoggedEvent>> {
    let mut logged = Vec::with_capacity(events.len());
    for (event, index) in events.into_iter().zip(0_u32..) {
        let data = match event.data {
            NewData::Json(value) => LoggedData::Json(value),
            NewData::Change => LoggedData::Change {
                merge_patch: kept_merge_patch(diff).map_err(|e| e.context(key))?,
            },
        };
        logged.push(LoggedEvent {
            id: EventId::derive(store, key, version, index),
            event_type: event.event_type.to_string(),
            schema: event.schema,
            data,
        });
    }
    Ok(logged)
}

/// The merge patch, where the log entry alone does not determine it: a patch that edits an array does
/// not hold the array's other elements, which RFC 7396 asks for.
fn kept_merge_patch(diff: &Diff) -> Result<Option<serde_json::Value>> {
    let whole = diff.before_document().is_none() || diff.after_document().is_none();
    if whole || diff.patch().determines_merge_patch() {
        return Ok(None);
    }
    let merge = diff.merge_patch()?;
    let told = MergePatch::from_patch(diff.patch())?;
    let is_told = told.is_some_and(|told| told.value() == merge.value());
    Ok((!is_told).then(|| merge.into_value()))
}

/// Below this an estimate is enough: no backend has so low a limit.
const SURELY_SMALL_BYTES: usize = 1 << 20;

/// Refuses an entry that the backend cannot hold; returns about how many bytes it has.
pub(super) fn check_entry(entry: &LogEntry, max_entry: usize) -> Result<usize> {
    let size = entry_size(entry)?;
    check_size(&entry.key, "log entry", size, max_entry)?;
    Ok(size)
}

fn entry_size(entry: &LogEntry) -> Result<usize> {
    let estimate = entry.estimated_bytes();
    if estimate < SURELY_SMALL_BYTES {
        return Ok(estimate);
    }
    Ok(entry.to_raw()?.as_bytes().len())
}

fn check_size(key: &DocumentKey, what: &str, bytes: usize, max: usize) -> Result<()> {
    if bytes <= max {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::TooLarge,
        format!("{what} of {key} has {bytes} bytes, at most {max} are possible"),
    ))
}
