//! The backend that needs no server: one file, or memory.
//!
//! # Layout
//! The file is a redb database with these tables; every value but the format number carries a checksum
//! over itself and its key.
//!
//! ```text
//! documents    collection, 0, id              → head of the log chain, document bytes
//! log          position                       → place in the document's chain, entry bytes
//! indexes      index number, values, id       → length of the id
//! records      kind, 0, key                   → record
//! leases       name                           → owner, fence, expiry, checkpoint
//! collections  name                           → version field, indexes
//! meta         "format" "store" "state" "indexes"
//! ```
//!
//! # Writing and reading
//! One thread writes; what waits for it shares its next transaction and `fsync`. Readers see the newest
//! durable state and never wait for the writer.

mod apply;
mod catalog;
mod chain;
mod check;
mod commit;
mod failure;
mod index;
mod keys;
mod leases;
mod open;
mod options;
mod paths;
mod query;
mod read;
mod row;
mod seal;
mod store;
mod tables;
mod tail;
#[cfg(test)]
mod tests;
mod transaction;
mod varint;
mod work;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bson::RawDocumentBuf;
use futures_core::stream::BoxStream;
use uuid::Uuid;

use self::store::Store;
use self::work::{Done, Work};
use self::writer::Writer;
use super::backend::{
    Backend, Backlog, Capabilities, CommitFailure, CommitReceipt, Cursor, Fence, Lease,
    LeaseRequest, Loaded, LogEntry, LogRange, Position, Record, TailFrom, TailItem, Unit,
};
use super::query::{CollectionSpec, Query};
use crate::document::DocumentKey;
use crate::error::{Error, ErrorKind, Result};

pub use options::EmbeddedOptions;

/// Documents that are read on the caller's own thread: one takes 2 µs from the cache, going to a thread
/// that may block and back takes 11 µs, and a miss costs one read of the file.
const INLINE_KEYS: usize = 16;

/// A store in one file or in memory, inside this process.
///
/// **Atomicity.** A commit is durable as a whole when it returns, or leaves nothing. Calls that wait at
/// the same time share one write to the disk; each still succeeds or fails on its own.
///
/// **Cancellation.** A call that was dropped before it was queued did nothing; after that it is carried
/// out.
///
/// **Sharing.** One process at a time; a second one, or opening a file twice, gets `InUse`. Dropping the
/// backend closes it.
#[derive(Debug)]
pub struct EmbeddedBackend {
    store: Arc<Store>,
    writer: Writer,
}

impl EmbeddedBackend {
    /// Opens the store in a file, or creates it. The folder must exist.
    ///
    /// Reads the file, so on an executor call it from `spawn_blocking` if the file may be large.
    ///
    /// # Errors
    /// `InUse` while the file is open elsewhere; `InvalidConfig` for a folder, a path in a folder that
    /// does not exist, or another program's database; `Corrupt` for a file that is no store or is
    /// damaged; `Unsupported` for the format of another release; `StorageFull`.
    pub fn open(path: impl AsRef<Path>, options: EmbeddedOptions) -> Result<Self> {
        Self::start(open::open_file(path.as_ref(), &options)?)
    }

    /// Makes a store in memory, gone when it is dropped.
    ///
    /// # Errors
    /// `Unavailable` when the writer thread does not start.
    pub fn in_memory() -> Result<Self> {
        Self::in_memory_with(EmbeddedOptions::default())
    }

    /// Makes a store in memory with options.
    ///
    /// # Errors
    /// As [`in_memory`](Self::in_memory).
    pub fn in_memory_with(options: EmbeddedOptions) -> Result<Self> {
        Self::start(open::open_memory(&options)?)
    }

    fn start(store: Store) -> Result<Self> {
        let store = Arc::new(store);
        let writer = Writer::start(Arc::clone(&store))?;
        Ok(Self { store, writer })
    }

    async fn ask(&self, work: Work) -> Result<Done> {
        self.writer
            .ask(work)
            .await
            .map_err(CommitFailure::into_error)
    }

    /// Reads on a thread that may wait for the disk.
    async fn read<T: Send + 'static>(
        &self,
        see: impl FnOnce(&Store) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let store = Arc::clone(&self.store);
        tokio::task::spawn_blocking(move || see(&store))
            .await
            .unwrap_or_else(|_| Err(failure::closed()))
    }
}

impl Drop for EmbeddedBackend {
    fn drop(&mut self) {
        self.writer.close();
        self.store.close();
    }
}

#[async_trait]
impl Backend for EmbeddedBackend {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities =
            Capabilities::new(commit::MAX_DOCUMENT_BYTES, commit::MAX_ENTRY_BYTES);
        capabilities.multi_process = false;
        capabilities.foreign_writers = false;
        capabilities.durable = self.store.durable;
        capabilities
    }

    fn store_id(&self) -> Uuid {
        self.store.id
    }

    async fn open_collection(&self, spec: &CollectionSpec) -> Result<()> {
        self.ask(Work::Open(spec.clone())).await.map(drop)
    }

    async fn load(&self, keys: &[DocumentKey]) -> Result<Vec<Loaded>> {
        if keys.len() <= INLINE_KEYS {
            return self.store.read(|transaction| read::load(transaction, keys));
        }
        let keys = keys.to_vec();
        self.read(move |store| store.read(|transaction| read::load(transaction, &keys)))
            .await
    }

    async fn commit(
        &self,
        units: &[Unit],
        deadline: Instant,
    ) -> std::result::Result<CommitReceipt, CommitFailure> {
        let units = commit::prepare(units)?;
        match self.writer.ask(Work::Commit { units, deadline }).await? {
            Done::Committed(receipt) => Ok(receipt),
            other => Err(CommitFailure::Unknown(unexpected(&other))),
        }
    }

    async fn read_log(&self, range: &LogRange) -> Result<Vec<LogEntry>> {
        let range = range.clone();
        self.read(move |store| store.read(|transaction| read::read_log(transaction, &range)))
            .await
    }

    fn tail(&self, from: TailFrom) -> BoxStream<'static, Result<TailItem>> {
        tail::tail(Arc::clone(&self.store), from)
    }

    async fn query(&self, collection: &str, query: &Query) -> Result<Vec<RawDocumentBuf>> {
        let Some(collection) = self.store.collection(collection) else {
            return Err(not_opened(collection));
        };
        let query = query.clone();
        self.read(move |store| {
            store.read(|transaction| query::answer(transaction, &collection, &query))
        })
        .await
    }

    async fn count(&self, collection: &str, query: &Query) -> Result<u64> {
        let Some(collection) = self.store.collection(collection) else {
            return Err(not_opened(collection));
        };
        let query = query.filters_only();
        self.read(move |store| {
            store.read(|transaction| query::count(transaction, &collection, &query))
        })
        .await
    }

    async fn acquire_lease(&self, request: &LeaseRequest) -> Result<Lease> {
        match self.ask(Work::Acquire(request.clone())).await? {
            Done::Leased(lease) => Ok(lease),
            other => Err(unexpected(&other)),
        }
    }

    async fn save_checkpoint(&self, fence: &Fence, cursor: &Cursor, ttl: Duration) -> Result<()> {
        let work = Work::Save {
            fence: fence.clone(),
            cursor: cursor.clone(),
            ttl,
        };
        self.ask(work).await.map(drop)
    }

    async fn read_checkpoint(&self, name: &str) -> Result<Option<Cursor>> {
        self.store
            .read(|transaction| leases::checkpoint(transaction, name))
    }

    async fn is_leased(&self, name: &str) -> Result<bool> {
        let now = self.store.clock.now();
        self.store
            .read(|transaction| leases::is_held(transaction, name, now))
    }

    async fn backlog(&self, after: Position, limit: u64) -> Result<Backlog> {
        let after = after.to_u64();
        self.read(move |store| store.read(|transaction| read::backlog(transaction, after, limit)))
            .await
    }

    async fn position(&self) -> Result<Position> {
        self.store.hold().database()?;
        Ok(Position::from_u64(*self.store.tip.borrow()))
    }

    async fn release_lease(&self, fence: &Fence) -> Result<()> {
        self.ask(Work::Release(fence.clone())).await.map(drop)
    }

    async fn read_records(
        &self,
        kind: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Record>> {
        let (kind, after) = (kind.to_owned(), after.map(str::to_owned));
        self.read(move |store| {
            store.read(|transaction| read::records(transaction, &kind, after.as_deref(), limit))
        })
        .await
    }

    async fn read_record(&self, kind: &str, key: &str) -> Result<Option<Record>> {
        self.store
            .read(|transaction| read::record(transaction, kind, key))
    }

    async fn close(&self) {
        let store = Arc::clone(&self.store);
        let writer = self.writer.clone();
        let closing = tokio::task::spawn_blocking(move || {
            writer.close();
            store.close();
        });
        // Fails only if the runtime is going down; dropping the backend closes it then.
        let _ = closing.await;
    }
}

fn not_opened(collection: &str) -> Error {
    Error::new(
        ErrorKind::InvalidConfig,
        format!("collection {collection} was not opened"),
    )
}

fn unexpected(done: &Done) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        format!("the writer answered another question: {done:?}"),
    )
}
