//! The contract between the storage engine and a store of documents and log entries.
//!
//! A backend is narrow on purpose: it loads, commits units atomically, reads the log, and keeps leases
//! and records. Closures, mapping, retries and adoption are the engine's. Every backend runs the same
//! published conformance suite (feature `testing`).

mod entry;
mod lease;
mod position;
mod render;
mod tail;
mod unit;
mod version_field;

use std::fmt::Debug;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bson::RawDocumentBuf;
use futures_core::stream::BoxStream;
use uuid::Uuid;

use super::query::{CollectionSpec, Query};
use crate::document::{DocumentKey, Version};
use crate::error::{Error, ErrorKind, Result};

pub use entry::{EntryKind, LogEntry, LoggedData, LoggedEvent, PARTITIONS};
#[cfg(feature = "mongodb")]
pub(crate) use entry::{log_id, read_log_id};
pub use lease::{Lease, LeaseRequest};
pub use position::Position;
pub use tail::{Backlog, Cursor, TailFrom, TailItem};
pub use unit::{
    CommitFailure, CommitReceipt, Condition, DocumentWrite, Fence, PartialCommit, Record,
    RecordWrite, Unit,
};
pub use version_field::version_of;

/// What a backend can and cannot do. A conformance case that needs a missing ability is reported as
/// not applicable, never as passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// Several processes may open the same store.
    pub multi_process: bool,
    /// Other programs may write the documents behind the storage's back.
    pub foreign_writers: bool,
    /// What was committed survives the end of the process.
    pub durable: bool,
    /// The largest document, in bytes.
    pub max_document_bytes: usize,
    /// The largest log entry in its stored form, in bytes. An entry that creates a document holds
    /// the whole document and its events.
    pub max_entry_bytes: usize,
}

impl Capabilities {
    /// Everything possible, with these bounds.
    #[must_use]
    pub const fn new(max_document_bytes: usize, max_entry_bytes: usize) -> Self {
        Self {
            multi_process: true,
            foreign_writers: true,
            durable: true,
            max_document_bytes,
            max_entry_bytes,
        }
    }
}

/// A document as loaded, together with the newest log entry of its key.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The stored bytes, `_id` first; `None` when there is no document.
    pub document: Option<RawDocumentBuf>,
    /// The newest log entry; `None` when the key was never logged.
    pub head: Option<LogHead>,
}

/// Version and kind of the newest log entry of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogHead {
    /// The entry's version.
    pub version: Version,
    /// The entry's kind.
    pub kind: EntryKind,
}

/// Which log entries of one document to read.
#[derive(Debug, Clone, PartialEq)]
pub struct LogRange {
    /// The document.
    pub key: DocumentKey,
    /// The lowest version, inclusive.
    pub from: Version,
    /// The highest version, inclusive.
    pub to: Version,
    /// Only entries at or before this position.
    pub until: Option<Position>,
    /// Newest first instead of oldest first.
    pub newest_first: bool,
    /// At most this many.
    pub limit: usize,
}

/// A store of documents, their log, leases and records.
///
/// All methods may be called concurrently. Dropping a returned future must leave the store consistent;
/// the engine polls `commit` to its end in a task of its own.
///
/// # Errors
/// Every method may fail with `Unavailable` (retryable), `Timeout`, `Corrupt`, `Closed`, and with
/// `Unsupported` for what the deployment cannot do.
#[async_trait]
pub trait Backend: Debug + Send + Sync + 'static {
    /// What this backend can do.
    fn capabilities(&self) -> Capabilities;

    /// The UUID that was drawn when the store was first opened; event ids derive from it.
    fn store_id(&self) -> Uuid;

    /// Creates the collection if it is missing, creates the missing ones of its indexes and verifies
    /// the rest. Called once per collection and process before its first use; idempotent.
    ///
    /// # Errors
    /// `Unsupported` for a collection that cannot be served (view, capped, time-series, collation);
    /// `InvalidConfig` for an index of the same name with other keys or options; `Constraint` when a
    /// unique index does not fit the data.
    async fn open_collection(&self, spec: &CollectionSpec) -> Result<()>;

    /// Loads documents and log heads, in the order of `keys`, from majority-committed state no older
    /// than the call.
    ///
    /// A head is never older than its document: if document version `v` was committed together with a
    /// log entry, the returned head is at `v` or above.
    async fn load(&self, keys: &[DocumentKey]) -> Result<Vec<Loaded>>;

    /// Commits all units in one atomic, durable step, or none of them. No two units of one call touch
    /// the same document. Not abandoned at `deadline` when the outcome is unknown without first trying
    /// to learn it.
    async fn commit(
        &self,
        units: &[Unit],
        deadline: Instant,
    ) -> std::result::Result<CommitReceipt, CommitFailure>;

    /// Commits in one atomic, durable step those units of which everything is as they expect, and names
    /// the others; each unit by itself is written as a whole or not at all. A backend may refuse to single
    /// them out and fail with `Conflict`, with nothing written, as [`commit`](Self::commit) does; that is
    /// what happens unless it implements this. Otherwise as `commit`.
    async fn commit_what_holds(
        &self,
        units: &[Unit],
        deadline: Instant,
    ) -> std::result::Result<PartialCommit, CommitFailure> {
        let CommitReceipt { position } = self.commit(units, deadline).await?;
        let lost = Vec::new();
        Ok(PartialCommit { position, lost })
    }

    /// Reads log entries of one document in version order.
    async fn read_log(&self, range: &LogRange) -> Result<Vec<LogEntry>>;

    /// Follows the whole log in commit order, per document in version order, without a gap; entries
    /// may repeat after a restart from a cursor. Ends only with an error. Holds no more than a page in
    /// memory, and reads on only as it is polled.
    fn tail(&self, from: TailFrom) -> BoxStream<'static, Result<TailItem>>;

    /// Answers a query with stored documents. The caller has checked that an index serves it or that a
    /// scan is allowed, and has opened the collection.
    async fn query(&self, collection: &str, query: &Query) -> Result<Vec<RawDocumentBuf>>;

    /// Counts the documents that match a query's filters, whatever its order, limit and page. The caller has
    /// checked the query as for [`query`](Self::query).
    ///
    /// # Errors
    /// `Unsupported`, unless the backend implements it.
    async fn count(&self, collection: &str, query: &Query) -> Result<u64> {
        let _ = query;
        Err(Error::new(
            ErrorKind::Unsupported,
            format!("this backend does not count the documents of {collection}"),
        ))
    }

    /// Acquires or renews the lease called `request.name`, on the store's clock. A takeover raises the
    /// fence by one.
    ///
    /// # Errors
    /// `InUse` while another owner's lease is alive.
    async fn acquire_lease(&self, request: &LeaseRequest) -> Result<Lease>;

    /// Stores a checkpoint under a lease and prolongs it by `ttl`.
    ///
    /// # Errors
    /// `InUse` if the lease has another owner or fence by now; nothing is stored then.
    async fn save_checkpoint(&self, fence: &Fence, cursor: &Cursor, ttl: Duration) -> Result<()>;

    /// The checkpoint stored under a lease's name, whoever holds the lease; how a process waits for what
    /// a relay in another one publishes.
    ///
    /// # Errors
    /// `Unsupported`, unless the backend implements it.
    async fn read_checkpoint(&self, name: &str) -> Result<Option<Cursor>> {
        Err(Error::new(
            ErrorKind::Unsupported,
            format!("this backend does not show the checkpoint {name}"),
        ))
    }

    /// Whether somebody holds this lease now, on the store's clock; how a process without a relay finds
    /// out whether there is one.
    ///
    /// # Errors
    /// `Unsupported`, unless the backend implements it.
    async fn is_leased(&self, name: &str) -> Result<bool> {
        Err(Error::new(
            ErrorKind::Unsupported,
            format!("this backend does not show whether the lease {name} is held"),
        ))
    }

    /// How many entries of the log lie above a position, counted up to `limit`, and how old they are; for
    /// people and gauges, so entries that are being committed may be left out.
    ///
    /// # Errors
    /// `Unsupported`, unless the backend implements it.
    async fn backlog(&self, after: Position, limit: u64) -> Result<Backlog> {
        let _ = (after, limit);
        Err(Error::new(
            ErrorKind::Unsupported,
            "this backend does not count what its log holds",
        ))
    }

    /// A position not before anything that was committed before the call: whoever has followed the log up
    /// to it has seen all of that.
    ///
    /// # Errors
    /// `Unsupported`, unless the backend implements it.
    async fn position(&self) -> Result<Position> {
        Err(Error::new(
            ErrorKind::Unsupported,
            "this backend does not tell where its log ends",
        ))
    }

    /// Gives up a lease, so that the next owner need not wait for its end. Its checkpoint stays.
    /// Without effect if the lease has another owner or fence by now.
    async fn release_lease(&self, fence: &Fence) -> Result<()>;

    /// Reads records of a kind in key order: those with keys above `after`, at most `limit`.
    async fn read_records(
        &self,
        kind: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Record>>;

    /// Reads one record.
    async fn read_record(&self, kind: &str, key: &str) -> Result<Option<Record>>;

    /// Releases files and connections. Later calls fail with `Closed`.
    async fn close(&self);
}
