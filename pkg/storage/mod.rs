//! Documents and their log: the storage API and the contract that backends fulfil.
//!
//! [`Storage::update`] is the main line. It reads the newest committed document, runs the closure,
//! works out what changed, maps the change to events, and commits document and log entry together,
//! comparing the document's version; if another writer was faster it starts over.

pub mod backend;
mod base;
mod change;
mod codec;
mod collection;
mod context;
mod delivery;
#[cfg(feature = "embedded")]
pub mod embedded;
mod engine;
mod find;
#[cfg(feature = "mongodb")]
pub mod mongodb;
mod outcome;
mod plan;
mod query;
mod retry;
mod stream;
mod transaction;
mod turns;
mod update;
mod wait;

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bson::{Document, RawDocumentBuf};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::OnceCell;

use self::backend::{Backend, Loaded, Position};
use self::engine::Engine;
use self::turns::{Turn, Turns};
use self::update::{Ran, Update};
use crate::clock::Clock;
use crate::document::{DocumentId, DocumentKey, validate_collection_name};
use crate::error::{Error, ErrorKind, Result};
use crate::event::EventMapper;

pub use change::{Change, Stored};
pub(crate) use codec::Codec;
pub use collection::Collection;
pub(crate) use context::LogForm;
pub use context::{UpdateContext, UpdateOptions};
pub use delivery::Delivery;
pub use engine::{CommitOptions, CommitStatistics};
pub use outcome::{Outcome, UpdateError, Verdict};
pub(crate) use plan::SNAPSHOT_EVERY;
pub use query::{CollectionSpec, Filter, Index, Order, Page, Query};
pub use retry::RetryPolicy;
pub use stream::Appended;
pub use transaction::Transaction;

/// A command reads and commits while it has its turn; one that takes longer than this is stuck, or the
/// database is.
const COMMAND_PATIENCE: Duration = Duration::from_secs(1);

/// Documents whose every change becomes events. Cheap to clone; all clones are one storage.
///
/// Made by [`Storage::builder`].
#[derive(Clone)]
pub struct Storage {
    inner: Arc<Inner>,
}

/// What a storage is put together from.
pub(crate) struct Parts {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) mappers: HashMap<String, Arc<dyn EventMapper>>,
    pub(crate) default_mapper: Arc<dyn EventMapper>,
    pub(crate) specs: HashMap<String, CollectionSpec>,
    pub(crate) version_field: String,
    pub(crate) retry: RetryPolicy,
    pub(crate) commits: CommitOptions,
    pub(crate) clock: Arc<dyn Clock>,
}

pub(crate) struct Inner {
    engine: Engine,
    turns: Arc<Turns>,
    /// Those of commands, which take longer than an update: of the same id, and on aggregates whose events
    /// are replayed before.
    commands: Arc<Turns>,
    /// What lanes of streams are opened with.
    streams: Arc<CollectionSpec>,
    options: Parts,
    opened: Mutex<HashMap<String, Arc<OnceCell<Arc<CollectionSpec>>>>>,
    delivery: OnceLock<Arc<dyn Delivery>>,
    /// The highest position of this storage's own commits.
    committed: AtomicU64,
    closed: AtomicBool,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Storage {
    pub(crate) fn from_parts(parts: Parts) -> Self {
        Self {
            inner: Arc::new(Inner {
                engine: Engine::new(Arc::clone(&parts.backend), parts.commits.clone()),
                streams: Arc::new(CollectionSpec::new(stream::STREAMS)),
                turns: Arc::default(),
                commands: Arc::new(Turns::with_patience(COMMAND_PATIENCE)),
                opened: Mutex::default(),
                delivery: OnceLock::new(),
                committed: AtomicU64::new(0),
                closed: AtomicBool::new(false),
                clock: Arc::clone(&parts.clock),
                options: parts,
            }),
        }
    }

    /// Connects whoever publishes the log. Once, before the storage is handed out.
    pub(crate) fn set_delivery(&self, delivery: Arc<dyn Delivery>) {
        let _ = self.inner.delivery.set(delivery);
    }

    pub(crate) fn delivery(&self) -> Option<&Arc<dyn Delivery>> {
        self.inner.delivery()
    }

    /// Waits until the bus has confirmed the events of everything that this storage committed before
    /// the call. Cancel-safe.
    ///
    /// # Errors
    /// `Unsupported` if no bus is connected and no relay publishes the log elsewhere, `Closed` if the relay
    /// stopped.
    pub async fn flush(&self) -> Result<()> {
        let Some(delivery) = self.inner.delivery() else {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "no bus is connected to this storage, so nothing confirms a delivery",
            ));
        };
        let committed = self.inner.committed.load(Ordering::SeqCst);
        delivery.flush(Position::from_u64(committed)).await
    }

    /// The backend below, for rooms that read the log.
    #[must_use]
    pub fn backend(&self) -> &Arc<dyn Backend> {
        self.inner.backend()
    }

    /// The clock that the builder was given.
    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.inner.clock
    }

    /// Lines up with other commands for a key; a hint, as all turns are.
    pub(crate) async fn line_up(&self, key: &DocumentKey) -> Turn {
        self.inner.commands.take(key).await
    }

    /// The time that events carry.
    pub(crate) fn now(&self) -> bson::DateTime {
        self.inner.clock.now()
    }

    /// Refuses with `Closed` once the storage was closed.
    pub(crate) fn check_open(&self) -> Result<()> {
        self.inner.check_open()
    }

    /// Opens a collection on its first use.
    pub(crate) async fn open_collection(&self, name: &str) -> Result<Arc<CollectionSpec>> {
        self.inner.open_collection(name).await
    }

    /// The names of the collections that the builder was told of.
    pub(crate) fn declared_collections(&self) -> impl Iterator<Item = &str> {
        self.inner.options.specs.keys().map(String::as_str)
    }

    /// A typed view of a collection.
    #[must_use]
    pub fn collection<T>(&self, name: impl Into<Arc<str>>) -> Collection<T> {
        Collection::new(self.clone(), name.into())
    }

    /// Changes a document: reads it, runs the closure on it, and commits the result together with its
    /// events.
    ///
    /// The closure gets `None` if there is no document, and returns the new one in one of the forms of
    /// [`Outcome`]. It may run more than once, each time on a fresh copy of the newest document; one
    /// run's result counts. An equal document writes nothing and emits nothing. Fields of the stored
    /// document that the type does not know stay as they are.
    ///
    /// Document and log entry are committed atomically. Dropping the future either leaves everything as
    /// it was or lets a commit that has begun go to its end; nothing is ever half-written.
    ///
    /// ```
    /// # use nodestorage::{Storage, Result};
    /// # use serde::{Serialize, Deserialize};
    /// #[derive(Serialize, Deserialize)]
    /// struct User { name: String, email: String }
    ///
    /// # async fn example(storage: Storage) -> Result<()> {
    /// let change = storage
    ///     .update("users", "user123", |user: Option<User>| {
    ///         let mut user = user.unwrap_or(User { name: "John Doe".into(), email: String::new() });
    ///         user.email = "john.doe@example.com".into();
    ///         user
    ///     })
    ///     .await?;
    /// println!("{} is at version {}", change.document(), change.version());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`UpdateError::Rejected`] with the closure's own error. Else `InvalidName`, `Serialization`,
    /// `Mapping`, `TooLarge`, `Constraint`: nothing was written and trying again will not help;
    /// `Unavailable`, `Timeout`, `RetriesExhausted`: nothing was written; `CommitUnknown`: the change may
    /// or may not have been committed.
    pub async fn update<T, R>(
        &self,
        collection: &str,
        id: impl Into<DocumentId>,
        mut f: impl FnMut(Option<T>) -> R,
    ) -> Result<Change<T>, R::Error>
    where
        T: Serialize + DeserializeOwned,
        R: Outcome<T>,
    {
        let options = UpdateOptions::default();
        self.update_with(
            collection,
            id,
            options,
            move |document, _: &mut UpdateContext| f(document),
        )
        .await
    }

    /// As [`update`](Self::update), with options, and with a context that knows id and version and
    /// emits events of its own.
    ///
    /// # Errors
    /// As for [`update`](Self::update), and `VersionConflict` if the document is not at the expected
    /// version.
    #[tracing::instrument(level = "debug", name = "update", skip_all, fields(document))]
    pub async fn update_with<T, R>(
        &self,
        collection: &str,
        id: impl Into<DocumentId>,
        options: UpdateOptions,
        mut f: impl FnMut(Option<T>, &mut UpdateContext) -> R,
    ) -> Result<Change<T>, R::Error>
    where
        T: Serialize + DeserializeOwned,
        R: Outcome<T>,
    {
        let key = DocumentKey::new(collection, id);
        let mut update = Update::new(&self.inner, key, options, false).await?;
        loop {
            let (document, mut run) = update.start::<T>().await?;
            let after = match f(document, &mut run.context).into_result() {
                Ok(after) => after,
                Err(rejected) if update.stands(run).await? => return Err(rejected),
                Err(_) => continue,
            };
            match update.finish(run, after).await? {
                Ran::Done(change) => return Ok(change),
                Ran::Again => {}
            }
        }
    }

    /// As [`update_with`](Self::update_with), with a closure that awaits.
    ///
    /// Other updates of the document go ahead while it does, after which the closure runs again.
    ///
    /// # Errors
    /// As for [`update_with`](Self::update_with).
    #[tracing::instrument(level = "debug", name = "update", skip_all, fields(document))]
    pub async fn update_async<T, R, Fut>(
        &self,
        collection: &str,
        id: impl Into<DocumentId>,
        options: UpdateOptions,
        mut f: impl FnMut(Option<T>, UpdateContext) -> Fut,
    ) -> Result<Change<T>, R::Error>
    where
        T: Serialize + DeserializeOwned,
        R: Outcome<T>,
        Fut: Future<Output = R>,
    {
        let key = DocumentKey::new(collection, id);
        let mut update = Update::new(&self.inner, key, options, true).await?;
        loop {
            let (document, run) = update.start::<T>().await?;
            let after = match f(document, run.context.clone()).await.into_result() {
                Ok(after) => after,
                Err(rejected) if update.stands(run).await? => return Err(rejected),
                Err(_) => continue,
            };
            match update.finish(run, after).await? {
                Ran::Done(change) => return Ok(change),
                Ran::Again => {}
            }
        }
    }

    /// Deletes a document. Without one, nothing happens and the change is
    /// [`Unchanged`](crate::ChangeKind::Unchanged).
    ///
    /// # Errors
    /// As for [`update`](Self::update).
    pub async fn delete(
        &self,
        collection: &str,
        id: impl Into<DocumentId>,
    ) -> Result<Change<Document>> {
        self.delete_with(collection, id, UpdateOptions::default())
            .await
    }

    /// As [`delete`](Self::delete), with options.
    ///
    /// # Errors
    /// As for [`update_with`](Self::update_with).
    pub async fn delete_with(
        &self,
        collection: &str,
        id: impl Into<DocumentId>,
        options: UpdateOptions,
    ) -> Result<Change<Document>> {
        // Raw, so that whatever is stored can be deleted, also what does not read as a `Document`.
        let gone = |_: Option<RawDocumentBuf>, _: &mut UpdateContext| {
            Ok::<Option<RawDocumentBuf>, std::convert::Infallible>(None)
        };
        let change = self.update_with(collection, id, options, gone).await?;
        Ok(change.retyped())
    }

    /// What the commit engine has done since the storage was opened.
    #[must_use]
    pub fn commit_statistics(&self) -> CommitStatistics {
        self.inner.engine.statistics()
    }

    /// Ends the storage: refuses new calls with `Closed`, waits for commits under way, and closes the
    /// backend. The relay is shut down first if the builder connected a bus, and the bus closed if it was
    /// opened by URL.
    pub async fn close(&self) {
        self.inner.closed.store(true, Ordering::SeqCst);
        self.inner.engine.close().await;
        if let Some(delivery) = self.inner.delivery() {
            delivery.shutdown().await;
        }
        self.inner.backend().close().await;
    }
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storage")
            .field("backend", self.inner.backend())
            .field("closed", &self.inner.closed)
            .finish_non_exhaustive()
    }
}

impl Inner {
    pub(crate) fn backend(&self) -> &Arc<dyn Backend> {
        self.engine.backend()
    }

    fn delivery(&self) -> Option<&Arc<dyn Delivery>> {
        self.delivery.get()
    }

    /// Notes a commit; one with events wakes whoever publishes.
    fn note_commit(&self, position: Position, has_events: bool) {
        self.committed
            .fetch_max(position.to_u64(), Ordering::SeqCst);
        if has_events && let Some(delivery) = self.delivery() {
            delivery.committed();
        }
    }

    fn mapper(&self, collection: &str) -> &dyn EventMapper {
        let options = &self.options;
        let mapper = options.mappers.get(collection);
        mapper.unwrap_or(&options.default_mapper).as_ref()
    }

    fn max_document(&self) -> usize {
        self.backend().capabilities().max_document_bytes
    }

    fn max_entry(&self) -> usize {
        self.backend().capabilities().max_entry_bytes
    }

    fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(engine::closed());
        }
        Ok(())
    }

    async fn load(&self, key: &DocumentKey) -> Result<Loaded> {
        let (backend, key) = (Arc::clone(self.backend()), key.clone());
        // In a task: a caller that is never polled again must not keep a connection.
        let loading = self
            .engine
            .spawn(async move { load_one(backend.as_ref(), key).await });
        loading.await.map_err(|_| engine::closed())?
    }

    /// Opens a collection on its first use, once per process.
    async fn open_collection(&self, name: &str) -> Result<Arc<CollectionSpec>> {
        let cell = {
            let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
            match opened.get(name) {
                Some(cell) => Arc::clone(cell),
                None => {
                    validate_collection_name(name)?;
                    Arc::clone(opened.entry(name.to_owned()).or_default())
                }
            }
        };
        if let Some(spec) = cell.get() {
            return Ok(Arc::clone(spec));
        }
        let (backend, spec) = (Arc::clone(self.backend()), self.spec(name));
        // In a task: the others that need the collection wait for whoever opens it, and a caller that
        // is never polled again must hold up nobody.
        let opening = self.engine.spawn(async move {
            let open = || async {
                backend.open_collection(&spec).await?;
                Ok(Arc::new(spec))
            };
            cell.get_or_try_init(open).await.cloned()
        });
        opening.await.map_err(|_| engine::closed())?
    }

    fn spec(&self, name: &str) -> CollectionSpec {
        self.options.specs.get(name).cloned().unwrap_or_else(|| {
            CollectionSpec::new(name).with_version_field(&self.options.version_field)
        })
    }
}

async fn load_one(backend: &dyn Backend, key: DocumentKey) -> Result<Loaded> {
    let mut loaded = backend.load(std::slice::from_ref(&key)).await?;
    loaded.pop().ok_or_else(|| {
        Error::new(
            ErrorKind::Corrupt,
            format!("the backend answered nothing for {key}"),
        )
    })
}
