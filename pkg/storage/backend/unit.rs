use std::fmt;

use bson::RawDocumentBuf;

use super::entry::LogEntry;
use super::position::Position;
use crate::document::{DocumentKey, Version};
use crate::error::Error;

/// What is committed together or not at all: documents, log entries and records.
#[derive(Debug, Clone, Default)]
pub struct Unit {
    /// The documents to write; each key at most once.
    pub writes: Vec<DocumentWrite>,
    /// The log entries to append, per document in version order. Their positions are given by the
    /// store.
    pub entries: Vec<LogEntry>,
    /// Documents that were only read and must still be as they were, also against writers that commit
    /// at the same time.
    pub checks: Vec<(DocumentKey, Condition)>,
    /// Records to write.
    pub records: Vec<RecordWrite>,
    /// A lease that must still be held.
    pub fence: Option<Fence>,
}

/// The state a stored document must have for a unit to commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// There is no document.
    Absent,
    /// The document has exactly this number in its version field.
    Version(Version),
    /// The document has no version field: no program that knows versions has written it yet.
    Unversioned,
}

/// One document's compare and swap.
#[derive(Debug, Clone)]
pub struct DocumentWrite {
    /// Which document.
    pub key: DocumentKey,
    /// The state to compare with.
    pub condition: Condition,
    /// The complete new document, byte for byte, `_id` first; `None` deletes.
    pub document: Option<RawDocumentBuf>,
}

/// A small document of the system's own, found by kind and key: idempotency keys, dead letters, parked
/// documents.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// What it is, `"dead_letter"` for example.
    pub kind: String,
    /// Unique within the kind, 1 to 1,024 bytes.
    pub key: String,
    /// The content.
    pub value: RawDocumentBuf,
}

/// A change to a [`Record`].
#[derive(Debug, Clone, PartialEq)]
pub enum RecordWrite {
    /// Writes a record that must not exist yet; the unit conflicts if it does.
    Insert(Record),
    /// Writes a record, replacing one of the same key.
    Put(Record),
    /// Deletes a record; without effect if there is none.
    Delete {
        /// The record's kind.
        kind: String,
        /// The record's key.
        key: String,
    },
}

impl RecordWrite {
    /// The record's kind and key.
    #[must_use]
    pub fn id(&self) -> (&str, &str) {
        match self {
            Self::Insert(record) | Self::Put(record) => (&record.kind, &record.key),
            Self::Delete { kind, key } => (kind, key),
        }
    }

    /// About how many bytes it takes.
    pub(crate) fn bytes(&self) -> usize {
        let value = match self {
            Self::Insert(record) | Self::Put(record) => record.value.as_bytes().len(),
            Self::Delete { .. } => 0,
        };
        let (kind, key) = self.id();
        64 + kind.len() + key.len() + value
    }

    /// Whether nothing of this write is left once `later` has been carried out.
    pub(crate) fn is_replaced_by(&self, later: &Self) -> bool {
        !matches!(self, Self::Insert(_)) && self.id() == later.id()
    }
}

/// Proof of holding a lease; compared on every write made under it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Fence {
    /// The lease's name.
    pub name: String,
    /// The owner.
    pub owner: String,
    /// The fence number that the owner got.
    pub number: u64,
}

/// A successful commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitReceipt {
    /// A position not before the commit: whoever has followed the log up to it has seen the commit.
    pub position: Position,
}

/// A commit of what still held of several units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartialCommit {
    /// A position not before the commit, as in [`CommitReceipt`].
    pub position: Position,
    /// The units of which nothing was written, by index, because something was no longer as they expected;
    /// all others are committed.
    pub lost: Vec<usize>,
}

/// A commit that did not succeed.
#[derive(Debug)]
#[non_exhaustive]
pub enum CommitFailure {
    /// Nothing was written: a document, log entry, record or lock was not as the unit expected.
    Conflict {
        /// The units under suspicion, by index; empty when the store did not say.
        suspects: Vec<usize>,
        /// The store's own words.
        source: Error,
    },
    /// Nothing was written: this unit can never be (`Constraint`, `TooLarge`, `Serialization`, `InUse`
    /// for a lost fence). The other units of the call may be committed without it.
    Refused {
        /// The unit, by index.
        unit: usize,
        /// Why.
        error: Error,
    },
    /// Nothing was written, for a reason that concerns no unit in particular (`Unavailable`,
    /// `StorageFull`, `Corrupt`, `Closed`).
    Failed(Error),
    /// The outcome is not known: `CommitUnknown`.
    Unknown(Error),
}

impl CommitFailure {
    /// The error below.
    #[must_use]
    pub fn into_error(self) -> Error {
        match self {
            Self::Conflict { source, .. } => source,
            Self::Refused { error, .. } | Self::Failed(error) | Self::Unknown(error) => error,
        }
    }
}

impl fmt::Display for CommitFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conflict { source, .. } => source.fmt(f),
            Self::Refused { error, .. } | Self::Failed(error) | Self::Unknown(error) => {
                error.fmt(f)
            }
        }
    }
}
