//! A backend that fails when a case says so.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bson::RawDocumentBuf;
use futures_core::stream::BoxStream;
use uuid::Uuid;

use crate::document::DocumentKey;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::backend::{
    Backend, Capabilities, CommitFailure, CommitReceipt, Cursor, Fence, Lease, LeaseRequest,
    Loaded, LogEntry, LogRange, Record, TailFrom, TailItem, Unit,
};
use crate::storage::{CollectionSpec, Query};

/// What goes wrong with one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Loading fails with this kind.
    Load(ErrorKind),
    /// The commit conflicts; nothing is written.
    Conflict,
    /// The commit is refused with this kind; nothing is written.
    Refused(ErrorKind),
    /// The commit fails with this kind; nothing is written.
    Failed(ErrorKind),
    /// Nothing is written, and the store does not know.
    UnknownUnwritten,
    /// Everything is written, and the store does not know.
    UnknownWritten,
}

/// Passes calls on to another backend, and fails those that it was told to.
#[derive(Debug)]
pub struct FaultyBackend {
    inner: Arc<dyn Backend>,
    faults: Mutex<VecDeque<Fault>>,
    calls: AtomicUsize,
    commits: AtomicUsize,
}

impl FaultyBackend {
    /// A backend without faults so far.
    #[must_use]
    pub fn new(inner: Arc<dyn Backend>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            faults: Mutex::default(),
            calls: AtomicUsize::new(0),
            commits: AtomicUsize::new(0),
        })
    }

    /// Adds faults: each fails the next call of its kind, in this order.
    pub fn fail_with(&self, faults: impl IntoIterator<Item = Fault>) {
        self.queue().extend(faults);
    }

    /// The faults that have not come up yet.
    #[must_use]
    pub fn faults_left(&self) -> usize {
        self.queue().len()
    }

    /// How many calls could have reached the store: all but the questions that need none.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// How many of the calls were commits.
    #[must_use]
    pub fn commits(&self) -> usize {
        self.commits.load(Ordering::SeqCst)
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, VecDeque<Fault>> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self, applies: impl Fn(Fault) -> bool) -> Option<Fault> {
        let mut queue = self.queue();
        let is_next = queue.front().is_some_and(|fault| applies(*fault));
        is_next.then(|| queue.pop_front()).flatten()
    }

    fn counted(&self) -> &dyn Backend {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.inner.as_ref()
    }
}

fn injected(kind: ErrorKind) -> Error {
    Error::new(kind, "injected by the case")
}

#[async_trait]
impl Backend for FaultyBackend {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn store_id(&self) -> Uuid {
        self.inner.store_id()
    }

    async fn open_collection(&self, spec: &CollectionSpec) -> Result<()> {
        self.counted().open_collection(spec).await
    }

    async fn load(&self, keys: &[DocumentKey]) -> Result<Vec<Loaded>> {
        if let Some(Fault::Load(kind)) = self.next(|fault| matches!(fault, Fault::Load(_))) {
            return Err(injected(kind));
        }
        self.counted().load(keys).await
    }

    async fn commit(
        &self,
        units: &[Unit],
        deadline: Instant,
    ) -> std::result::Result<CommitReceipt, CommitFailure> {
        self.commits.fetch_add(1, Ordering::SeqCst);
        let fault = self.next(|fault| !matches!(fault, Fault::Load(_)));
        match fault {
            Some(Fault::Conflict) => Err(CommitFailure::Conflict {
                suspects: Vec::new(),
                source: injected(ErrorKind::VersionConflict),
            }),
            Some(Fault::Refused(kind)) => Err(CommitFailure::Refused {
                unit: 0,
                error: injected(kind),
            }),
            Some(Fault::Failed(kind)) => Err(CommitFailure::Failed(injected(kind))),
            Some(Fault::UnknownUnwritten) => {
                Err(CommitFailure::Unknown(injected(ErrorKind::CommitUnknown)))
            }
            Some(Fault::UnknownWritten) => {
                self.counted().commit(units, deadline).await?;
                Err(CommitFailure::Unknown(injected(ErrorKind::CommitUnknown)))
            }
            Some(Fault::Load(_)) | None => self.counted().commit(units, deadline).await,
        }
    }

    async fn read_log(&self, range: &LogRange) -> Result<Vec<LogEntry>> {
        self.counted().read_log(range).await
    }

    fn tail(&self, from: TailFrom) -> BoxStream<'static, Result<TailItem>> {
        self.counted().tail(from)
    }

    async fn query(&self, collection: &str, query: &Query) -> Result<Vec<RawDocumentBuf>> {
        self.counted().query(collection, query).await
    }

    async fn acquire_lease(&self, request: &LeaseRequest) -> Result<Lease> {
        self.counted().acquire_lease(request).await
    }

    async fn save_checkpoint(&self, fence: &Fence, cursor: &Cursor, ttl: Duration) -> Result<()> {
        self.counted().save_checkpoint(fence, cursor, ttl).await
    }

    async fn release_lease(&self, fence: &Fence) -> Result<()> {
        self.counted().release_lease(fence).await
    }

    async fn read_records(
        &self,
        kind: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Record>> {
        self.counted().read_records(kind, after, limit).await
    }

    async fn read_record(&self, kind: &str, key: &str) -> Result<Option<Record>> {
        self.counted().read_record(kind, key).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
