use std::fmt;

use bson::DateTime;
use futures_core::stream::BoxStream;

use super::range::{HistoryPage, VersionRange};
use super::rebuild::{Step, rebuild};
use super::replay::{Replay, Revision};
use super::state::DocumentState;
use crate::document::{DocumentId, DocumentKey, Version, validate_collection_name};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::storage::backend::{LogEntry, LogRange, Position};
use crate::storage::{Collection, Storage};

/// The history of one document: its versions, its events, and the document as it was. Cheap to clone.
///
/// Made by [`Storage::history`]. Everything is read from the log alone, so that documents that were
/// deleted have a history like any other, and reading it creates no collection.
#[derive(Clone)]
pub struct History {
    storage: Storage,
    key: DocumentKey,
}

impl Storage {
    /// The history of a document. Reads nothing yet.
    ///
    /// ```
    /// # use nodestorage::{Result, Storage, Version};
    /// # async fn example(storage: Storage) -> Result<()> {
    /// let history = storage.history("users", "user123");
    /// for entry in history.versions(Default::default()).await?.items {
    ///     println!("{} {} {}", entry.version, entry.kind, entry.at);
    /// }
    /// if let Some(state) = history.at_version(Version::new(3)).await? {
    ///     let user = state.decode::<bson::Document>()?;
    ///     println!("{}", user.get_str("name").unwrap_or_default());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn history(&self, collection: &str, id: impl Into<DocumentId>) -> History {
        History {
            storage: self.clone(),
            key: DocumentKey::new(collection, id),
        }
    }
}

impl<T> Collection<T> {
    /// The history of a document; see [`Storage::history`].
    #[must_use]
    pub fn history(&self, id: impl Into<DocumentId>) -> History {
        self.storage().history(self.name(), id)
    }
}

impl History {
    /// Collection and id.
    #[must_use]
    pub fn key(&self) -> &DocumentKey {
        &self.key
    }

    /// Reads a page of the document's versions. A document that was never written has none.
    ///
    /// # Errors
    /// `InvalidName`, `Unavailable`, `Corrupt`, `Closed`.
    pub async fn versions(&self, range: VersionRange) -> Result<HistoryPage<LogEntry>> {
        self.check()?;
        let limit = range.limit.max(1);
        // One more than asked for tells whether there is a next page, and where it starts.
        let mut items = self.read(range, None, limit.saturating_add(1)).await?;
        let next = items.get(limit).map(|entry| entry.version);
        items.truncate(limit);
        Ok(HistoryPage {
            items,
            next: next.map(|start| range.starting_at(start)),
        })
    }

    /// Reads the events of a page of the document's versions. The limit counts versions, so that the
    /// events of one version stay together; they are in their order in either direction.
    ///
    /// # Errors
    /// As for [`versions`](Self::versions).
    pub async fn events(&self, range: VersionRange) -> Result<HistoryPage<Event>> {
        let page = self.versions(range).await?;
        let mut items = Vec::new();
        for entry in &page.items {
            items.extend(entry.to_events()?);
        }
        Ok(HistoryPage {
            items,
            next: page.next,
        })
    }

    /// The document at a version, byte for byte as it was stored; `None` if it was deleted then, and at
    /// version 0.
    ///
    /// At versions that another program used and the log passed over, the state is that of the last
    /// entry below. Reads at most 100 log entries, more only where a snapshot was too large to be kept.
    ///
    /// # Errors
    /// `NotFound` for a version above the newest; `Corrupt`, naming the version, if the log lacks what
    /// leads to it; `InvalidName`, `Unavailable`, `Closed`.
    pub async fn at_version(&self, version: impl Into<Version>) -> Result<Option<DocumentState>> {
        self.check()?;
        let version = version.into();
        if version == Version::NONE {
            return Ok(None);
        }
        let found = rebuild(self.storage.backend(), &self.key, version).await?;
        if let Some((entry, state)) = found {
            if entry.version != version {
                self.check_passed_over(version, Some(entry.version)).await?;
            }
            return Ok(state);
        }
        self.check_passed_over(version, None).await?;
        Ok(None)
    }

    /// The document at a time of the database's clock, in whole seconds: as the last entry at or before
    /// it left it. `None` before the first entry and where the document was deleted.
    ///
    /// # Errors
    /// `Corrupt`, `InvalidName`, `Unavailable`, `Closed`.
    pub async fn at_time(&self, time: DateTime) -> Result<Option<DocumentState>> {
        self.check()?;
        let newest = VersionRange::new().with_newest_first(true);
        let until = Some(Position::end_of(time));
        let entries = self.read(newest, until, 1).await?;
        let Some(entry) = entries.first() else {
            return Ok(None);
        };
        let found = rebuild(self.storage.backend(), &self.key, entry.version).await?;
        Ok(found.and_then(|(_, state)| state))
    }

    /// All versions from the oldest on, each with the document as it was afterwards. Holds a page of a
    /// few megabytes in memory. Ends after the newest version at the time it gets there, or with an
    /// error.
    ///
    /// # Errors
    /// The stream yields `Corrupt` where the log does not lead from one version to the next, and
    /// `InvalidName`, `Unavailable`, `Closed`.
    #[must_use]
    pub fn replay(&self) -> BoxStream<'static, Result<Revision>> {
        if let Err(error) = self.check() {
            return Box::pin(futures_util::stream::iter([Err(error)]));
        }
        Replay::new(self.storage.backend().clone(), self.key.clone()).into_stream()
    }

    fn check(&self) -> Result<()> {
        self.storage.check_open()?;
        validate_collection_name(self.key.collection())?;
        self.key.id().validate()
    }

    async fn read(
        &self,
        range: VersionRange,
        until: Option<Position>,
        limit: usize,
    ) -> Result<Vec<LogEntry>> {
        let range = LogRange {
            key: self.key.clone(),
            from: range.from,
            to: range.to.min(Version::MAX),
            until,
            newest_first: range.newest_first,
            limit,
        };
        self.storage.backend().read_log(&range).await
    }

    /// Tells a version that an adoption passed over from one that never was and from one that is
    /// missing; `below` is the nearest entry below it.
    async fn check_passed_over(&self, version: Version, below: Option<Version>) -> Result<()> {
        let above = VersionRange::new().with_from(version.next());
        let entries = self.read(above, None, 1).await?;
        match entries.first() {
            None => Err(Error::new(
                ErrorKind::NotFound,
                format!(
                    "{} has no version {version}: its newest is {}",
                    self.key,
                    below.unwrap_or_default()
                ),
            )),
            Some(entry) => Step::between(below, entry).check(entry),
        }
    }
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("History")
            .field("key", &self.key.to_string())
            .finish_non_exhaustive()
    }
}
