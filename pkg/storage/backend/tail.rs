use bson::{DateTime, RawDocumentBuf};

use super::entry::LogEntry;
use super::position::Position;

/// Where to begin following the log.
#[derive(Debug, Clone, PartialEq)]
pub enum TailFrom {
    /// With the first entry there is.
    Beginning,
    /// With the first entry committed after the call.
    Now,
    /// After a cursor. If the store has lost what the cursor stands on, entries repeat rather than
    /// being left out.
    After(Cursor),
}

/// A place in the log to continue from, in the backend's own terms.
#[derive(Debug, Clone, PartialEq)]
pub struct Cursor {
    /// Everything that was committed at or before this position has been passed; entries above it may
    /// have been passed as well.
    pub position: Position,
    /// What the backend needs to continue exactly here; stored as it is.
    pub token: RawDocumentBuf,
}

/// What of the log lies behind a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Backlog {
    /// How many entries, counted up to the limit that was asked for.
    pub entries: u64,
    /// When the first of them was committed, by the committing client's clock; `None` without entries.
    pub oldest: Option<DateTime>,
}

impl Backlog {
    /// So many entries, the first of them this old.
    #[must_use]
    pub fn new(entries: u64, oldest: Option<DateTime>) -> Self {
        Self { entries, oldest }
    }
}

/// One step of following the log.
#[derive(Debug, Clone, PartialEq)]
pub enum TailItem {
    /// A committed entry, and the place after it.
    Entry {
        /// The entry.
        entry: Box<LogEntry>,
        /// The place after the entry.
        cursor: Cursor,
    },
    /// There is nothing more at the moment. Comes once after catching up and then now and then, so
    /// that checkpoints move while nothing happens.
    Idle {
        /// The place reached.
        cursor: Cursor,
    },
}
