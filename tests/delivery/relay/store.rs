use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bson::RawDocumentBuf;
use futures_core::stream::BoxStream;
use futures_util::StreamExt;
use tokio::sync::watch;
use uuid::Uuid;

use nodestorage::document::DocumentKey;
use nodestorage::error::{Error, ErrorKind, Result};
use nodestorage::storage::backend::*;
use nodestorage::storage::{CollectionSpec, Query};

/// How a process reaches its store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    Up,
    /// Every call fails: to others the process is as good as dead.
    Cut,
    /// Every call waits: the process is paused.
    Held,
}

/// One process's view of a shared store.
#[derive(Debug)]
pub(super) struct Linked {
    store: Arc<dyn Backend>,
    link: watch::Sender<Link>,
}

impl Linked {
    pub(super) fn new(store: &Arc<dyn Backend>) -> Arc<Self> {
        Arc::new(Self {
            store: Arc::clone(store),
            link: watch::Sender::new(Link::Up),
        })
    }

    pub(super) fn set(&self, link: Link) {
        self.link.send_replace(link);
    }

    async fn reach(&self) -> Result<&Arc<dyn Backend>> {
        let mut link = self.link.subscribe();
        let state = *link.wait_for(|link| *link != Link::Held).await.unwrap();
        match state {
            Link::Cut => Err(cut()),
            Link::Up | Link::Held => Ok(&self.store),
        }
    }
}

fn cut() -> Error {
    Error::new(ErrorKind::Unavailable, "cut off")
}

#[async_trait]
impl Backend for Linked {
    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    fn store_id(&self) -> Uuid {
        self.store.store_id()
    }

    async fn open_collection(&self, spec: &CollectionSpec) -> Result<()> {
        self.reach().await?.open_collection(spec).await
    }

    async fn load(&self, keys: &[DocumentKey]) -> Result<Vec<Loaded>> {
        self.reach().await?.load(keys).await
    }

    async fn commit(
        &self,
        units: &[Unit],
        deadline: Instant,
    ) -> std::result::Result<CommitReceipt, CommitFailure> {
        let store = self.reach().await.map_err(CommitFailure::Failed)?;
        store.commit(units, deadline).await
    }

    async fn read_log(&self, range: &LogRange) -> Result<Vec<LogEntry>> {
        self.reach().await?.read_log(range).await
    }

    fn tail(&self, from: TailFrom) -> BoxStream<'static, Result<TailItem>> {
        let mut link = self.link.subscribe();
        self.store
            .tail(from)
            .then(move |item| {
                let state = *link.borrow_and_update();
                async move { if state == Link::Cut { Err(cut()) } else { item } }
            })
            .boxed()
    }

    async fn query(&self, collection: &str, query: &Query) -> Result<Vec<RawDocumentBuf>> {
        self.reach().await?.query(collection, query).await
    }

    async fn acquire_lease(&self, request: &LeaseRequest) -> Result<Lease> {
        self.reach().await?.acquire_lease(request).await
    }

    async fn save_checkpoint(&self, fence: &Fence, cursor: &Cursor, ttl: Duration) -> Result<()> {
        self.reach()
            .await?
            .save_checkpoint(fence, cursor, ttl)
            .await
    }

    async fn read_checkpoint(&self, name: &str) -> Result<Option<Cursor>> {
        self.reach().await?.read_checkpoint(name).await
    }

    async fn is_leased(&self, name: &str) -> Result<bool> {
        self.reach().await?.is_leased(name).await
    }

    async fn backlog(&self, after: Position, limit: u64) -> Result<Backlog> {
        self.reach().await?.backlog(after, limit).await
    }

    async fn release_lease(&self, fence: &Fence) -> Result<()> {
        self.reach().await?.release_lease(fence).await
    }

    async fn read_records(
        &self,
        kind: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Record>> {
        self.reach().await?.read_records(kind, after, limit).await
    }

    async fn read_record(&self, kind: &str, key: &str) -> Result<Option<Record>> {
        self.reach().await?.read_record(kind, key).await
    }

    async fn close(&self) {
        self.store.close().await;
    }
}
