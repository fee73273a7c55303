//! A backend that counts the log entries it reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bson::RawDocumentBuf;
use futures_util::stream::BoxStream;
use nodestorage::storage::Query;
use nodestorage::storage::backend::{
    Backend, Backlog, Capabilities, CommitFailure, CommitReceipt, Cursor, Fence, Lease,
    LeaseRequest, Loaded, LogEntry, LogRange, Position, Record, TailFrom, TailItem, Unit,
};
use nodestorage::{CollectionSpec, DocumentKey, Result};
use uuid::Uuid;

/// Passes everything on.
#[derive(Debug)]
pub(crate) struct Counting {
    inner: Arc<dyn Backend>,
    entries: AtomicUsize,
}

impl Counting {
    pub(crate) fn new(inner: &Arc<dyn Backend>) -> Arc<Self> {
        Arc::new(Self {
            inner: Arc::clone(inner),
            entries: AtomicUsize::new(0),
        })
    }

    /// How many entries were read since this was last asked.
    pub(crate) fn take(&self) -> usize {
        self.entries.swap(0, Ordering::Relaxed)
    }
}

#[async_trait]
impl Backend for Counting {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn store_id(&self) -> Uuid {
        self.inner.store_id()
    }

    async fn open_collection(&self, spec: &CollectionSpec) -> Result<()> {
        self.inner.open_collection(spec).await
    }

    async fn load(&self, keys: &[DocumentKey]) -> Result<Vec<Loaded>> {
        self.inner.load(keys).await
    }

    async fn commit(
        &self,
        units: &[Unit],
        deadline: Instant,
    ) -> std::result::Result<CommitReceipt, CommitFailure> {
        self.inner.commit(units, deadline).await
    }

    async fn read_log(&self, range: &LogRange) -> Result<Vec<LogEntry>> {
        let entries = self.inner.read_log(range).await?;
        self.entries.fetch_add(entries.len(), Ordering::Relaxed);
        Ok(entries)
    }

    fn tail(&self, from: TailFrom) -> BoxStream<'static, Result<TailItem>> {
        self.inner.tail(from)
    }

    async fn query(&self, collection: &str, query: &Query) -> Result<Vec<RawDocumentBuf>> {
        self.inner.query(collection, query).await
    }

    async fn acquire_lease(&self, request: &LeaseRequest) -> Result<Lease> {
        self.inner.acquire_lease(request).await
    }

    async fn save_checkpoint(&self, fence: &Fence, cursor: &Cursor, ttl: Duration) -> Result<()> {
        self.inner.save_checkpoint(fence, cursor, ttl).await
    }

    async fn backlog(&self, after: Position, limit: u64) -> Result<Backlog> {
        self.inner.backlog(after, limit).await
    }

    async fn release_lease(&self, fence: &Fence) -> Result<()> {
        self.inner.release_lease(fence).await
    }

    async fn read_records(
        &self,
        kind: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Record>> {
        self.inner.read_records(kind, after, limit).await
    }

    async fn read_record(&self, kind: &str, key: &str) -> Result<Option<Record>> {
        self.inner.read_record(kind, key).await
    }

    /// Without effect: whoever opened the backend closes it.
    async fn close(&self) {}
}
