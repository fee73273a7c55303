use std::fmt;
use std::sync::Arc;

use bson::DateTime;

use super::events::EventCodec;
use super::fold::Fold;
use super::inline::{Inline, Typed, kind_of};
use super::{Aggregate, InlineProjection};
use crate::document::{DocumentId, DocumentKey, Version};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, EventRegistry};
use crate::history::{HistoryPage, VersionRange};
use crate::storage::backend::LogRange;
use crate::storage::{LogForm, SNAPSHOT_EVERY, Storage, Stored};

/// How many log entries are read at a time.
const PAGE: usize = 256;

/// Loads and stores the aggregates of one type. Cheap to clone.
///
/// # Examples
/// ```
/// # use nodestorage::aggregate::{Aggregate, Repository};
/// # use nodestorage::{Result, Storage};
/// # async fn example<Account: Aggregate>(storage: Storage) -> Result<()> {
/// let accounts = Repository::<Account>::new(&storage).with_snapshot_every(10);
/// let account = accounts.load("ACC-001").await?;
/// let before = accounts.load_at("ACC-001", account.version().get() - 1).await?;
/// # let _ = before;
/// # Ok(())
/// # }
/// ```
pub struct Repository<A: Aggregate> {
    pub(super) storage: Storage,
    pub(super) codec: EventCodec<A>,
    pub(super) form: LogForm,
    /// Whether there is no document, only events.
    pub(super) sourced: bool,
    pub(super) inline: Vec<Arc<dyn Inline<A>>>,
}

impl<A: Aggregate> Repository<A> {
    /// A repository whose aggregates are documents: the stored document is the state.
    #[must_use]
    pub fn new(storage: &Storage) -> Self {
        Self {
            storage: storage.clone(),
            codec: EventCodec::new(),
            form: LogForm {
                mapped: false,
                aggregate_type: Some(A::TYPE.into()),
                snapshot_every: SNAPSHOT_EVERY,
            },
            sourced: false,
            inline: Vec::new(),
        }
    }

    /// Keeps events alone: no document is stored, and states are replayed from the nearest snapshot.
    ///
    /// Aggregates that were stored as documents are not seen by such a repository, and the other way
    /// round.
    #[must_use]
    pub fn event_sourced(mut self) -> Self {
        self.sourced = true;
        self
    }

    /// Sets every how many versions the whole state is kept beside the events, from 1 to 100 (what lies outside
    /// is taken for the nearest bound): how many entries loading a past state reads at most. Default 100.
    #[must_use]
    pub fn with_snapshot_every(mut self, versions: u64) -> Self {
        self.form.snapshot_every = versions.clamp(1, SNAPSHOT_EVERY);
        self
    }

    /// Brings older events up to their current schema as they are read.
    #[must_use]
    pub fn with_registry(mut self, registry: Arc<EventRegistry>) -> Self {
        self.codec.set_registry(registry);
        self
    }

    /// Adds a read model that is written in the commit of each command.
    #[must_use]
    pub fn with_inline(mut self, projection: impl InlineProjection<A>) -> Self {
        self.inline.push(Arc::new(Typed(projection)));
        self
    }

    /// The storage below.
    #[must_use]
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// The types of events there are.
    ///
    /// # Errors
    /// `InvalidConfig` if the event type is no externally tagged enum.
    pub fn event_types(&self) -> Result<Vec<&str>> {
        Ok(self.codec.types()?.iter().map(AsRef::as_ref).collect())
    }

    /// Reads an aggregate; `None` if there is none.
    ///
    /// # Errors
    /// `InvalidName`, `Serialization` if what is stored is not an `A`, `Unavailable`.
    pub async fn find(&self, id: impl Into<DocumentId>) -> Result<Option<Stored<A>>> {
        if self.sourced {
            let key = self.key(id)?;
            let fold = self.sourced_at(&key, Version::MAX, None).await?;
            return Ok(stored(key, fold));
        }
        self.storage.find(A::COLLECTION, id).await
    }

    /// Reads an aggregate that must be there.
    ///
    /// # Errors
    /// `NotFound`, and those of [`find`](Self::find).
    pub async fn load(&self, id: impl Into<DocumentId>) -> Result<Stored<A>> {
        let key = DocumentKey::new(A::COLLECTION, id);
        let found = self.find(key.id()).await?;
        found.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("{key} not found")))
    }

    /// The aggregate as it was at a version; `None` if it was deleted then. Reads at most
    /// as many log entries as there are between snapshots.
    ///
    /// # Errors
    /// `NotFound` for a version above the newest; else as for [`find`](Self::find).
    pub async fn load_at(
        &self,
        id: impl Into<DocumentId>,
        version: impl Into<Version>,
    ) -> Result<Option<Stored<A>>> {
        let (key, version) = (self.key(id)?, version.into());
        if self.sourced {
            let fold = self.sourced_at(&key, version, None).await?;
            if fold.version < version {
                let what = format!(
                    "{key} has no version {version}: its newest is {}",
                    fold.version
                );
                return Err(Error::new(ErrorKind::NotFound, what));
            }
            return Ok(stored(key, fold));
        }
        let history = self.storage.history(A::COLLECTION, key.id());
        let state = history.at_version(version).await?;
        state.map(|state| state.decode()).transpose()
    }

    /// The aggregate as it was at a time of the database's clock, in whole seconds; `None` before the first
    /// event and where it was deleted.
    ///
    /// # Errors
    /// As for [`find`](Self::find).
    pub async fn load_at_time(
        &self,
        id: impl Into<DocumentId>,
        time: DateTime,
    ) -> Result<Option<Stored<A>>> {
        let key = self.key(id)?;
        if self.sourced {
            let fold = self.sourced_at(&key, Version::MAX, Some(time)).await?;
            return Ok(stored(key, fold));
        }
        let history = self.storage.history(A::COLLECTION, key.id());
        let state = history.at_time(time).await?;
        state.map(|state| state.decode()).transpose()
    }

    /// The aggregate from its events alone, from the first one on; `None` if there is none.
    ///
    /// # Errors
    /// `Serialization` for events that the aggregate does not know, `Panicked` if `apply` did, and those of
    /// [`find`](Self::find).
    pub async fn rebuild(&self, id: impl Into<DocumentId>) -> Result<Option<Stored<A>>> {
        let key = self.key(id)?;
        let fold = self.fold(&key, Fold::new(), Version::MAX).await?;
        Ok(stored(key, fold))
    }

    /// A page of the aggregate's events, brought up to their current schemas.
    ///
    /// # Errors
    /// As for [`History::events`](crate::History::events), and those of the registry.
    pub async fn events(
        &self,
        id: impl Into<DocumentId>,
        range: VersionRange,
    ) -> Result<HistoryPage<Event>> {
        let history = self.storage.history(A::COLLECTION, id);
        let mut page = history.events(range).await?;
        for event in &mut page.items {
            *event = self.codec.upcast(event.clone())?;
        }
        Ok(page)
    }

    /// Reads a view of an [inline projection](InlineProjection); `None` if there is none.
    ///
    /// # Errors
    /// `InvalidConfig` if the repository has no such projection, `Serialization` if what is stored is no such view, `Unavailable`.
    pub async fn inline_view<P: InlineProjection<A>>(
        &self,
        projection: &P,
        id: impl Into<DocumentId>,
    ) -> Result<Option<P::View>> {
        let key = self.key(id)?;
        let name = projection.name();
        if !self.inline.iter().any(|known| known.name() == name) {
            let what = format!("the repository of {} has no projection {name}", A::TYPE);
            return Err(Error::new(ErrorKind::InvalidConfig, what));
        }
        let backend = self.storage.backend();
        let record = backend
            .read_record(&kind_of(name), &key.to_string())
            .await?;
        let view = record.map(|record| bson::deserialize_from_slice(record.value.as_bytes()));
        view.transpose().map_err(|e| {
            let what = format!("the view of {key} in {name} does not read back");
            Error::new(ErrorKind::Serialization, what).with_source(e)
        })
    }

    pub(super) fn key(&self, id: impl Into<DocumentId>) -> Result<DocumentKey> {
        self.storage.check_open()?;
        let key = DocumentKey::new(A::COLLECTION, id);
        key.id().validate()?;
        Ok(key)
    }

    /// Goes on from `fold` up to a version.
    pub(super) async fn fold(
        &self,
        key: &DocumentKey,
        mut fold: Fold<A>,
        to: Version,
    ) -> Result<Fold<A>> {
        loop {
            let range = LogRange {
                key: key.clone(),
                from: fold.version.next(),
                to,
                until: None,
                newest_first: false,
                limit: PAGE,
            };
            let entries = self.storage.backend().read_log(&range).await?;
            for entry in &entries {
                fold.entry(&self.codec, entry)?;
            }
            if entries.len() < PAGE {
                return Ok(fold);
            }
        }
    }
}

pub(super) fn stored<A>(key: DocumentKey, fold: Fold<A>) -> Option<Stored<A>> {
    let version = fold.version;
    let state = fold.state?;
    Some(Stored::new(key.id().clone(), version, state))
}

impl<A: Aggregate> Clone for Repository<A> {
    fn clone(&self) -> Self {
        Self {
            storage: self.storage.clone(),
            codec: self.codec.clone(),
            form: self.form.clone(),
            sourced: self.sourced,
            inline: self.inline.clone(),
        }
    }
}

impl<A: Aggregate> fmt::Debug for Repository<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repository")
            .field("aggregate", &A::TYPE)
            .field("event_sourced", &self.sourced)
            .field("snapshot_every", &self.form.snapshot_every)
            .finish_non_exhaustive()
    }
}
