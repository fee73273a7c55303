//! One commit call: made ready by the caller, checked and carried out by the writer.

use bson::RawDocument;

use super::keys;
use crate::document::{DocumentKey, Version};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::backend::{
    CommitFailure, Condition, DocumentWrite, EntryKind, Fence, LogEntry, RecordWrite, Unit,
};

/// The largest document: the server's limit, so that a store can move to MongoDB.
pub(super) const MAX_DOCUMENT_BYTES: usize = 16 << 20;

/// The largest log entry: the largest document whole, a patch of its size, and as much for events.
pub(super) const MAX_ENTRY_BYTES: usize = 3 * MAX_DOCUMENT_BYTES;

/// A unit in the form that the writer needs, so that it spends no time on encoding.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) writes: Vec<Write>,
    pub(super) entries: Vec<Entry>,
    pub(super) checks: Vec<Check>,
    pub(super) records: Vec<RecordWrite>,
    pub(super) fence: Option<Fence>,
}

#[derive(Debug)]
pub(super) struct Write {
    pub(super) check: Check,
    pub(super) document: Option<Vec<u8>>,
}

#[derive(Debug)]
pub(super) struct Check {
    pub(super) key: DocumentKey,
    pub(super) row: Vec<u8>,
    pub(super) condition: Condition,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: DocumentKey,
    pub(super) row: Vec<u8>,
    pub(super) version: Version,
    pub(super) kind: EntryKind,
    /// The stored form; the eight bytes of the position are filled in when it is given.
    pub(super) raw: Vec<u8>,
    pub(super) position_at: usize,
}

/// Makes units ready, refusing what is too large or has no stored form.
pub(super) fn prepare(units: &[Unit]) -> std::result::Result<Vec<Prepared>, CommitFailure> {
    let prepare = |(unit, source)| prepare_unit(source).map_err(|error| refused(unit, error));
    units.iter().enumerate().map(prepare).collect()
}

fn prepare_unit(unit: &Unit) -> Result<Prepared> {
    Ok(Prepared {
        writes: unit.writes.iter().map(Write::new).collect::<Result<_>>()?,
        entries: unit.entries.iter().map(Entry::new).collect::<Result<_>>()?,
        checks: unit
            .checks
            .iter()
            .map(|(key, condition)| Check::new(key, *condition))
            .collect(),
        records: unit.records.clone(),
        fence: unit.fence.clone(),
    })
}

pub(super) fn refused(unit: usize, error: Error) -> CommitFailure {
    CommitFailure::Refused { unit, error }
}

impl Prepared {
    /// How much memory it takes while it waits, in bytes.
    pub(super) fn bytes(&self) -> usize {
        // 256 more for each: keys and the rest.
        let documents = self.writes.iter().map(|write| write.document.as_ref());
        let documents = documents.map(|document| 256 + document.map_or(0, Vec::len));
        let entries = self.entries.iter().map(|entry| 256 + entry.raw.len());
        let records = self.records.iter().map(|record| match record {
            RecordWrite::Insert(record) | RecordWrite::Put(record) => {
                256 + record.value.as_bytes().len()
            }
            RecordWrite::Delete { .. } => 256,
        });
        documents.chain(entries).chain(records).sum()
    }
}

impl Write {
    fn new(write: &DocumentWrite) -> Result<Self> {
        let document = write.document.as_ref().map(|document| document.as_bytes());
        if let Some(bytes) = document {
            check_size(bytes.len(), MAX_DOCUMENT_BYTES, &write.key, "document")?;
        }
        Ok(Self {
            check: Check::new(&write.key, write.condition),
            document: document.map(<[u8]>::to_vec),
        })
    }
}

impl Check {
    fn new(key: &DocumentKey, condition: Condition) -> Self {
        Self {
            key: key.clone(),
            row: keys::document_key(key),
            condition,
        }
    }
}

impl Entry {
    fn new(entry: &LogEntry) -> Result<Self> {
        let raw = entry.to_raw()?;
        check_size(
            raw.as_bytes().len(),
            MAX_ENTRY_BYTES,
            &entry.key,
            "log entry",
        )?;
        let position_at = position_in(&raw).ok_or_else(|| {
            Error::new(
                ErrorKind::Serialization,
                format!("log entry of {} has no place for its position", entry.key),
            )
        })?;
        Ok(Self {
            key: entry.key.clone(),
            row: keys::document_key(&entry.key),
            version: entry.version,
            kind: entry.kind,
            raw: raw.into_bytes(),
            position_at,
        })
    }
}

/// Where the value of the position begins: it is the second field, after `_id`, and always a timestamp,
/// whose bytes are those of the position as a little-endian number.
fn position_in(raw: &RawDocument) -> Option<usize> {
    const NAME: &[u8] = b"\x11position\0";
    let id = raw.get_document("_id").ok()?.as_bytes().len();
    // The document's length, the type byte and name of `_id`, its value.
    let at = 4 + 1 + b"_id\0".len() + id;
    let value_at = at + NAME.len();
    (raw.as_bytes().get(at..value_at)? == NAME).then_some(value_at)
}

fn check_size(bytes: usize, most: usize, key: &DocumentKey, what: &str) -> Result<()> {
    if bytes <= most {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::TooLarge,
        format!("{what} of {key} has {bytes} bytes, at most {most} are possible"),
    ))
}
