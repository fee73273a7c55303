//! The backend for MongoDB replica sets, version 5.0 or later.
//!
//! Document and log entry are written in one transaction with `readConcern: snapshot` and
//! `w: majority`; everything that feeds a decision is read from the primary with
//! `readConcern: majority`. Both are always set explicitly: defaults of the URL or the cluster never
//! apply. The system keeps five collections of its own in the database: `nodestorage.log`,
//! `nodestorage.meta`, `nodestorage.leases`, `nodestorage.records` and `nodestorage.writers`, the list of
//! the processes that write and of their sessions.
//!
//! Bytes are raw BSON from end to end: what was computed is what is stored.

mod blame;
mod buffer;
mod collection;
mod commit;
mod condition;
mod connect;
mod failure;
mod follow;
mod heads;
mod held;
mod install;
mod lease;
mod load;
mod log;
mod moved;
mod options;
mod place;
mod pool;
mod query;
mod record;
mod rest;
mod scan;
mod sessions;
mod statement;
mod step;
mod store;
mod swap;
mod tail;
mod transaction;
mod writers;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bson::RawDocumentBuf;
use futures_core::stream::BoxStream;
use uuid::Uuid;

use self::commit::Others;
use self::store::Store;
use super::backend::{
    Backend, Backlog, Capabilities, CommitFailure, CommitReceipt, Cursor, Fence, Lease,
    LeaseRequest, Loaded, LogEntry, LogRange, PartialCommit, Position, Record, TailFrom, TailItem,
    Unit,
};
use super::query::{CollectionSpec, Query};
use crate::document::DocumentKey;
use crate::error::{Error, ErrorKind, Result};

pub use options::MongoOptions;

/// The largest BSON document that MongoDB stores (`maxBsonObjectSize`).
const MAX_DOCUMENT_BYTES: usize = 16 * 1024 * 1024;

/// The largest log entry. A change stream event may be 16 KiB larger than a stored document (the
/// server's `BSONObjMaxInternalSize`), and reduced to what the tail needs it is an entry, the resume token
/// in hexadecimal and some names: 3 KiB at most with the longest collection name and id. So every entry
/// that can be stored can be followed.
const MAX_ENTRY_BYTES: usize = MAX_DOCUMENT_BYTES;

/// How long closing waits for open transactions to end, and for the driver: its connections are closed
/// within milliseconds.
const SHUTDOWN: Duration = Duration::from_secs(1);

/// Documents and their log in a database of a MongoDB replica set.
pub struct MongoBackend {
    store: Arc<Store>,
    id: Uuid,
    /// Whether the client was made here, and so ends with the backend.
    owns_client: bool,
}

impl MongoBackend {
    /// Connects to the database that the URL names, and prepares it.
    ///
    /// # Errors
    /// `InvalidConfig` for an URL that is malformed or names no database, and for a refused login;
    /// `Unavailable`, naming the hosts, if no primary can be reached in time; `Unsupported` for a
    /// standalone, a mongos, a server before 5.0, and a store in an unknown format. No message holds
    /// credentials.
    pub async fn connect(url: &str, options: MongoOptions) -> Result<Self> {
        let (client, database, hosts) = connect::client(url, &options).await?;
        Self::open(client, &database, &hosts, options, true).await
    }

    /// Uses an existing client. It stays open when the backend is closed.
    ///
    /// # Errors
    /// As for [`connect`](Self::connect).
    pub async fn from_client(client: ::mongodb::Client, database: &str) -> Result<Self> {
        if database.is_empty() || database.contains(['/', '\\', '.', ' ', '"', '$', '\0']) {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                format!("{database:?} is no database name"),
            ));
        }
        Self::open(client, database, "", MongoOptions::default(), false).await
    }

    async fn open(
        client: ::mongodb::Client,
        database: &str,
        hosts: &str,
        options: MongoOptions,
        owns_client: bool,
    ) -> Result<Self> {
        let store = Store::new(client, database, options.query_timeout);
        connect::check_deployment(&store, hosts).await?;
        let id = install::install(&store).await?;
        Ok(Self {
            store: Arc::new(store),
            id,
            owns_client,
        })
    }
}

impl fmt::Debug for MongoBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MongoBackend")
            .field("store", &self.store)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Backend for MongoBackend {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new(MAX_DOCUMENT_BYTES, MAX_ENTRY_BYTES)
    }

    fn store_id(&self) -> Uuid {
        self.id
    }

    async fn open_collection(&self, spec: &CollectionSpec) -> Result<()> {
        self.store.check_open()?;
        collection::open(&self.store, spec).await
    }

    async fn load(&self, keys: &[DocumentKey]) -> Result<Vec<Loaded>> {
        self.store.check_open()?;
        load::load(&self.store, keys).await
    }

    async fn commit(
        &self,
        units: &[Unit],
        deadline: Instant,
    ) -> std::result::Result<CommitReceipt, CommitFailure> {
        let committed = commit::commit(&self.store, units, Others::Wait, deadline).await?;
        let position = committed.position;
        Ok(CommitReceipt { position })
    }

    async fn commit_what_holds(
        &self,
        units: &[Unit],
        deadline: Instant,
    ) -> std::result::Result<PartialCommit, CommitFailure> {
        commit::commit(&self.store, units, Others::GoOn, deadline).await
    }

    async fn read_log(&self, range: &LogRange) -> Result<Vec<LogEntry>> {
        self.store.check_open()?;
        log::read(&self.store, range).await
    }

    fn tail(&self, from: TailFrom) -> BoxStream<'static, Result<TailItem>> {
        tail::tail(Arc::clone(&self.store), from)
    }

    async fn query(&self, collection: &str, query: &Query) -> Result<Vec<RawDocumentBuf>> {
        self.store.check_open()?;
        query::run(&self.store, collection, query).await
    }

    async fn count(&self, collection: &str, query: &Query) -> Result<u64> {
        self.store.check_open()?;
        query::count(&self.store, collection, query).await
    }

    async fn acquire_lease(&self, request: &LeaseRequest) -> Result<Lease> {
        self.store.check_open()?;
        lease::acquire(&self.store, request).await
    }

    async fn save_checkpoint(&self, fence: &Fence, cursor: &Cursor, ttl: Duration) -> Result<()> {
        self.store.check_open()?;
        lease::save_checkpoint(&self.store, fence, cursor, ttl).await
    }

    async fn read_checkpoint(&self, name: &str) -> Result<Option<Cursor>> {
        self.store.check_open()?;
        lease::checkpoint(&self.store, name).await
    }

    async fn is_leased(&self, name: &str) -> Result<bool> {
        self.store.check_open()?;
        lease::is_held(&self.store, name).await
    }

    async fn backlog(&self, after: Position, limit: u64) -> Result<Backlog> {
        self.store.check_open()?;
        log::backlog(&self.store, after, limit).await
    }

    async fn position(&self) -> Result<Position> {
        self.store.check_open()?;
        let position = follow::now(&self.store).await;
        position.map_err(|failure| failure.into_error("asking for the present"))
    }

    async fn release_lease(&self, fence: &Fence) -> Result<()> {
        self.store.check_open()?;
        lease::release(&self.store, fence).await
    }

    async fn read_records(
        &self,
        kind: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Record>> {
        self.store.check_open()?;
        record::read_many(&self.store, kind, after, limit).await
    }

    async fn read_record(&self, kind: &str, key: &str) -> Result<Option<Record>> {
        self.store.check_open()?;
        record::read_one(&self.store, kind, key).await
    }

    async fn close(&self) {
        self.store.closed.cancel();
        let _ = tokio::time::timeout(SHUTDOWN, self.store.sessions.close()).await;
        if self.owns_client {
            // The driver waits for futures of its own that somebody may hold and never poll again, a tail
            // in a `select!` for example. It goes on alone then.
            let client = self.store.client.clone();
            let shutdown = tokio::spawn(async move { client.shutdown().immediate(true).await });
            let _ = tokio::time::timeout(SHUTDOWN, shutdown).await;
        }
    }
}
