//! The connection that all operations share: commands in raw BSON, with explicit concerns.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use ::mongodb::{Client, ClientSession, Database};
use bson::raw::cstr;
use bson::{RawBsonRef, RawDocument, RawDocumentBuf, Timestamp, rawdoc};
use futures_util::StreamExt;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::failure::Failure;
use super::sessions::Sessions;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::backend::Position;

pub(super) const LOG: &str = "nodestorage.log";
pub(super) const META: &str = "nodestorage.meta";
pub(super) const LEASES: &str = "nodestorage.leases";
pub(super) const RECORDS: &str = "nodestorage.records";
pub(super) const WRITERS: &str = "nodestorage.writers";

/// How long a write outside a transaction may wait for its majority, in milliseconds, before it fails
/// as unavailable: a primary cut off from the others steps down after ten seconds (the default
/// `electionTimeoutMillis`), so waiting longer on it is of no use.
const WRITE_TIMEOUT_MS: i32 = 10_000;

/// A write that takes longer may be waiting for a process that is dead.
const BLOCKED: Duration = Duration::from_secs(1);

pub(super) struct Store {
    pub(super) client: Client,
    pub(super) database: Database,
    pub(super) query_timeout: Duration,
    pub(super) closed: CancellationToken,
    pub(super) sessions: Arc<Sessions>,
    /// Collection → version field, for the collections that were opened.
    version_fields: RwLock<HashMap<String, Arc<str>>>,
    /// Loads wait until the majority has got here. Raised by failed commits: what they lost against
    /// may be on the primary and not yet on its majority, and a load that missed it would lose again.
    floor: AtomicU64,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the client: its options hold the credentials.
        f.debug_struct("Store")
            .field("database", &self.database.name())
            .finish_non_exhaustive()
    }
}

impl Store {
    pub(super) fn new(client: Client, database: &str, query_timeout: Duration) -> Self {
        let database = client.database(database);
        let closed = CancellationToken::new();
        let sessions = Sessions::new(client.clone(), database.clone(), closed.clone());
        Self {
            database,
            client,
            query_timeout,
            closed,
            sessions: Arc::new(sessions),
            version_fields: RwLock::default(),
            floor: AtomicU64::new(0),
        }
    }

    /// Refuses work on a closed backend.
    pub(super) fn check_open(&self) -> Result<()> {
        if self.closed.is_cancelled() {
            return Err(Error::new(ErrorKind::Closed, "the store was closed"));
        }
        Ok(())
    }

    pub(super) fn remember(&self, collection: &str, version_field: &str) {
        self.version_fields
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(collection.to_owned(), version_field.into());
    }

    /// The version field of a collection; the default one if it was never opened.
    pub(super) fn version_field(&self, collection: &str) -> Arc<str> {
        self.version_fields
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(collection)
            .map_or_else(|| Arc::from("version"), Arc::clone)
    }

    pub(super) fn raise_floor(&self, seen: Option<Timestamp>) {
        if let Some(seen) = seen {
            self.floor
                .fetch_max(Position::from(seen).to_u64(), Ordering::AcqRel);
        }
    }

    /// The read concern of reads that feed decisions.
    pub(super) fn read_concern(&self) -> RawDocumentBuf {
        let mut concern = rawdoc! { "level": "majority" };
        let floor = Position::from_u64(self.floor.load(Ordering::Acquire));
        if floor > Position::START {
            concern.append(cstr!("afterClusterTime"), Timestamp::from(floor));
        }
        concern
    }

    /// Runs a command that may be repeated without harm.
    pub(super) async fn run(&self, command: RawDocumentBuf) -> Result<RawDocumentBuf, Failure> {
        match run_on(&self.database, command.clone(), None).await {
            Err(failure) if failure.is_worth_repeating() => {
                run_on(&self.database, command, None).await
            }
            outcome => outcome,
        }
    }

    /// Runs a command on the `admin` database; it may be repeated without harm.
    pub(super) async fn run_admin(
        &self,
        command: RawDocumentBuf,
    ) -> Result<RawDocumentBuf, Failure> {
        let admin = self.client.database("admin");
        match run_on(&admin, command.clone(), None).await {
            Err(failure) if failure.is_worth_repeating() => run_on(&admin, command, None).await,
            outcome => outcome,
        }
    }

    /// Runs a command in a session, once.
    pub(super) async fn run_in(
        &self,
        session: &mut ClientSession,
        command: RawDocumentBuf,
    ) -> Result<RawDocumentBuf, Failure> {
        run_on(&self.database, command, Some(session)).await
    }

    /// Runs a write outside a transaction, confirmed by the majority; it may be repeated without harm.
    pub(super) async fn write(
        &self,
        mut command: RawDocumentBuf,
    ) -> Result<RawDocumentBuf, Failure> {
        command.append(cstr!("writeConcern"), write_concern());
        let reply = self.unblocked(self.run(command)).await?;
        if let Some(error) = reply_document(&reply, "writeConcernError") {
            let (code, name) = code_and_name(error);
            return Err(Failure::write_concern(code, name));
        }
        if let Some(error) = first_write_error(&reply) {
            let (code, name) = code_and_name(error);
            return Err(Failure::server(code, name));
        }
        Ok(reply)
    }

    /// Waits for a write outside a transaction. On a document that a transaction holds the server waits
    /// until that ends, so a process that died in one must be found meanwhile.
    async fn unblocked<T>(&self, write: impl Future<Output = T>) -> T {
        let mut write = std::pin::pin!(write);
        loop {
            match timeout(BLOCKED, &mut write).await {
                Ok(written) => return written,
                Err(_) => self.sessions.look_for_dead().await,
            }
        }
    }

    /// Runs a read command and collects all that its cursor yields.
    pub(super) async fn find(
        &self,
        command: RawDocumentBuf,
    ) -> Result<Vec<RawDocumentBuf>, Failure> {
        match find_on(&self.database, command.clone()).await {
            Err(failure) if failure.is_worth_repeating() => find_on(&self.database, command).await,
            outcome => outcome,
        }
    }
}

impl Drop for Store {
    /// Ends what runs on its behalf, if nobody has closed it.
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

/// Runs a read command once and collects all that its cursor yields.
pub(super) async fn find_on(
    database: &Database,
    command: RawDocumentBuf,
) -> Result<Vec<RawDocumentBuf>, Failure> {
    let mut batches = database.run_raw_cursor_command(command).batch().await?;
    let mut documents = Vec::new();
    while let Some(batch) = batches.next().await {
        for value in batch?.doc_slices()? {
            match value.map_err(Failure::reply)? {
                RawBsonRef::Document(document) => documents.push(document.to_owned()),
                _ => {
                    return Err(Failure::reply(
                        "a batch holds something else than documents",
                    ));
                }
            }
        }
    }
    Ok(documents)
}

pub(super) fn write_concern() -> RawDocumentBuf {
    rawdoc! { "w": "majority", "wtimeout": WRITE_TIMEOUT_MS }
}

pub(super) async fn run_on(
    database: &Database,
    command: RawDocumentBuf,
    session: Option<&mut ClientSession>,
) -> Result<RawDocumentBuf, Failure> {
    let run = database.run_raw_command(command);
    let reply = match session {
        Some(session) => run.session(session).await?,
        None => run.await?,
    };
    RawDocumentBuf::try_from(&reply).map_err(Failure::reply)
}

pub(super) fn reply_document<'a>(reply: &'a RawDocument, field: &str) -> Option<&'a RawDocument> {
    match reply.get(field) {
        Ok(Some(RawBsonRef::Document(document))) => Some(document),
        _ => None,
    }
}

pub(super) fn first_write_error(reply: &RawDocument) -> Option<&RawDocument> {
    match reply.get("writeErrors") {
        Ok(Some(RawBsonRef::Array(errors))) => match errors.get(0) {
            Ok(Some(RawBsonRef::Document(error))) => Some(error),
            _ => None,
        },
        _ => None,
    }
}

pub(super) fn code_and_name(error: &RawDocument) -> (i32, &str) {
    (
        error.get_i32("code").unwrap_or_default(),
        error.get_str("codeName").unwrap_or_default(),
    )
}

/// A count in a reply, `n` for example.
pub(super) fn count(reply: &RawDocument, field: &str) -> i64 {
    match reply.get(field) {
        Ok(Some(RawBsonRef::Int32(n))) => n.into(),
        Ok(Some(RawBsonRef::Int64(n))) => n,
        Ok(Some(RawBsonRef::Double(n))) => n as i64,
        _ => 0,
    }
}
