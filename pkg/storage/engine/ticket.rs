//! What one call hands to the engine, and what it gets back.

use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::super::backend::{Condition, LogEntry, Position, RecordWrite};
use super::super::base::Base;
use super::Tick;
use crate::document::DocumentKey;
use crate::error::Error;

/// A decided change, ready to be committed.
pub(crate) struct Proposal {
    /// The documents it was decided on, each once.
    pub(crate) parts: Vec<Part>,
    /// The log entries, per document in version order.
    pub(crate) entries: Vec<LogEntry>,
    /// Documents that were only read and must still be as they were.
    pub(crate) checks: Vec<(DocumentKey, Condition)>,
    /// Records that are written with them.
    pub(crate) records: Vec<RecordWrite>,
    /// When the caller stops waiting.
    pub(crate) deadline: Instant,
}

/// One document of a proposal.
pub(crate) struct Part {
    pub(crate) key: DocumentKey,
    /// The lane's generation on which it was decided; `None` if it was decided on a state that was read
    /// beside the lane.
    pub(crate) generation: Option<u64>,
    /// When the read or commit began that showed the state it was decided on as committed.
    pub(crate) seen: Option<Tick>,
    /// The state it was decided on.
    pub(crate) before: Base,
    /// The state it makes.
    pub(crate) after: Base,
    /// Whether the document is written.
    pub(crate) writes: bool,
}

/// What became of a proposal.
#[derive(Debug)]
pub(crate) enum Answer {
    /// It is committed; the entries come back.
    Committed {
        position: Position,
        entries: Vec<LogEntry>,
    },
    /// Nothing was written: decide again. `own` says that the state it was decided on has gone, rather
    /// than the result of another update that it was built on.
    Again { own: bool, source: Error },
    /// Nothing was written, and this proposal cannot be, or the database did not answer.
    Failed(Error),
    /// It may or may not have been written.
    Unknown(Error),
}

/// A proposal in the queue.
pub(super) struct Ticket {
    pub(super) id: u64,
    pub(super) parts: Vec<Part>,
    pub(super) entries: Vec<LogEntry>,
    pub(super) checks: Vec<(DocumentKey, Condition)>,
    pub(super) records: Vec<RecordWrite>,
    pub(super) deadline: Instant,
    /// How much memory and command it takes, in bytes.
    pub(super) bytes: usize,
    /// The number of batches that had been put together when it came.
    pub(super) queued_at: u64,
    pub(super) since: Instant,
    pub(super) answer: oneshot::Sender<Answer>,
    /// Its share of the memory for what is queued.
    pub(super) _memory: Option<OwnedSemaphorePermit>,
}

impl Proposal {
    /// About how many bytes it takes, in memory and in a command.
    pub(super) fn bytes(&self) -> usize {
        let documents = self.parts.iter().map(|part| {
            let document = part.after.document.as_ref().filter(|_| part.writes);
            256 + document.map_or(0, |document| document.as_bytes().len())
        });
        let entries = self.entries.iter().map(LogEntry::estimated_bytes);
        let records = self.records.iter().map(RecordWrite::bytes);
        documents.chain(entries).chain(records).sum()
    }
}

impl Ticket {
    /// How many updates it counts for in a batch.
    pub(super) fn updates(&self) -> usize {
        self.entries.len().max(1)
    }

    /// Whether it can share one write of its document with the updates before and after it.
    pub(super) fn joins(&self) -> bool {
        self.parts.len() == 1 && self.checks.is_empty()
    }
}

/// An answer on its way: given once no lock is held.
pub(super) type Answers = Vec<(oneshot::Sender<Answer>, Answer)>;

pub(super) fn give(answers: Answers) {
    for (to, answer) in answers {
        // A caller that is gone changes nothing: what is committed is committed.
        let _ = to.send(answer);
    }
}
