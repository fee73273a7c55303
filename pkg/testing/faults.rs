//! A backend that fails when a case says so.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bson::RawDocumentBuf;
use futures_core::stream::BoxStream;
use futures_util::{StreamExt, stream};
use tokio::sync::watch;
use uuid::Uuid;

use crate::document::DocumentKey;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::backend::{
    Backend, Backlog, Capabilities, CommitFailure, CommitReceipt, Cursor, Fence, Lease,
    LeaseRequest, Loaded, LogEntry, LogRange, Position, Record, TailFrom, TailItem, Unit,
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
    /// Following the log ends with this kind, in place of its next entry.
    Tail(ErrorKind),
    /// Acquiring a lease or storing a checkpoint fails with this kind; nothing is written.
    Lease(ErrorKind),
}

/// The faults to come, shared with the streams that may meet them.
#[derive(Debug, Clone, Default)]
struct Faults(Arc<Mutex<VecDeque<Fault>>>);

impl Faults {
    fn queue(&self) -> std::sync::MutexGuard<'_, VecDeque<Fault>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self, applies: impl Fn(Fault) -> bool) -> Option<Fault> {
        let mut queue = self.queue();
        let is_next = queue.front().is_some_and(|fault| applies(*fault));
        is_next.then(|| queue.pop_front()).flatten()
    }
}

/// Passes calls on to another backend, and fails those that it was told to.
#[derive(Debug)]
pub struct FaultyBackend {
    inner: Arc<dyn Backend>,
    faults: Faults,
    calls: AtomicUsize,
    commits: AtomicUsize,
    /// Whether the answers of commits are held back.
    holds: watch::Sender<bool>,
}

impl FaultyBackend {
    /// A backend without faults so far.
    #[must_use]
    pub fn new(inner: Arc<dyn Backend>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            faults: Faults::default(),
            calls: AtomicUsize::new(0),
            commits: AtomicUsize::new(0),
            holds: watch::Sender::new(false),
        })
    }

    /// Adds faults: each fails the next call of its kind, in this order.
    pub fn fail_with(&self, faults: impl IntoIterator<Item = Fault>) {
        self.faults.queue().extend(faults);
    }

    /// Holds back the answers of commits, which are made all the same; `false` lets them go.
    pub fn hold_answers(&self, hold: bool) {
        self.holds.send_replace(hold);
    }

    async fn committed(
        &self,
        units: &[Unit],
        deadline: Instant,
    ) -> std::result::Result<CommitReceipt, CommitFailure> {
        let answer = self.counted().commit(units, deadline).await;
        // The sender lives as long as this backend.
        let _ = self.holds.subscribe().wait_for(|holds| !holds).await;
        answer
    }

    /// The faults that have not come up yet.
    #[must_use]
    pub fn faults_left(&self) -> usize {
        self.faults.queue().len()
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

    fn leasing(&self) -> Result<&dyn Backend> {
        match self.faults.next(|fault| matches!(fault, Fault::Lease(_))) {
            Some(Fault::Lease(kind)) => Err(injected(kind)),
            _ => Ok(self.counted()),
        }
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
        if let Some(Fault::Load(kind)) = self.faults.next(|fault| matches!(fault, Fault::Load(_))) {
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
        let fault = self
            .faults
            .next(|fault| !matches!(fault, Fault::Load(_) | Fault::Tail(_) | Fault::Lease(_)));
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
            Some(Fault::Load(_) | Fault::Tail(_) | Fault::Lease(_)) | None => {
                self.committed(units, deadline).await
            }
        }
    }

    async fn read_log(&self, range: &LogRange) -> Result<Vec<LogEntry>> {
        self.counted().read_log(range).await
    }

    fn tail(&self, from: TailFrom) -> BoxStream<'static, Result<TailItem>> {
        let tail = self.counted().tail(from);
        let state = Some((tail, self.faults.clone()));
        stream::unfold(state, |state| async move {
            let (mut tail, faults) = state?;
            let item = tail.next().await?;
            let is_entry = matches!(item, Ok(TailItem::Entry { .. }));
            let fault = faults.next(|fault| is_entry && matches!(fault, Fault::Tail(_)));
            match fault {
                Some(Fault::Tail(kind)) => Some((Err(injected(kind)), None)),
                _ => Some((item, Some((tail, faults)))),
            }
        })
        .boxed()
    }

    async fn query(&self, collection: &str, query: &Query) -> Result<Vec<RawDocumentBuf>> {
        self.counted().query(collection, query).await
    }

    async fn count(&self, collection: &str, query: &Query) -> Result<u64> {
        self.counted().count(collection, query).await
    }

    async fn acquire_lease(&self, request: &LeaseRequest) -> Result<Lease> {
        self.leasing()?.acquire_lease(request).await
    }

    async fn save_checkpoint(&self, fence: &Fence, cursor: &Cursor, ttl: Duration) -> Result<()> {
        self.leasing()?.save_checkpoint(fence, cursor, ttl).await
    }

    async fn read_checkpoint(&self, name: &str) -> Result<Option<Cursor>> {
        self.counted().read_checkpoint(name).await
    }

    async fn is_leased(&self, name: &str) -> Result<bool> {
        self.counted().is_leased(name).await
    }

    async fn backlog(&self, after: Position, limit: u64) -> Result<Backlog> {
        self.counted().backlog(after, limit).await
    }

    async fn position(&self) -> Result<Position> {
        self.counted().position().await
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
