//! Event streams without a document: append and read.

use std::ops::{Bound, RangeBounds};

use super::backend::{CommitFailure, EntryKind, LogEntry, LogRange, Unit};
use super::plan::{Stamp, logged};
use super::retry::Attempts;
use super::turns::Turn;
use super::{Storage, UpdateOptions};
use crate::document::{Diff, DocumentId, DocumentKey, Version, VersionConflict};
use crate::error::Result;
use crate::event::{Event, NewEvent};

/// The collection name under which streams are logged; no collection of a user's can have it.
const STREAMS: &str = "nodestorage.streams";

/// How many log entries are read at a time.
const PAGE: usize = 256;

/// What an append did.
#[derive(Debug, Clone)]
pub struct Appended {
    version: Version,
    events: Vec<Event>,
}

impl Appended {
    /// The stream's version afterwards: the number of its events.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The events as they were logged.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        &self.events
    }
}

impl Storage {
    /// Appends events to a stream, all or none. Each event is one version of the stream, from 1.
    ///
    /// Streams have no document; their names are ids of their own. The aggregate type of their events is
    /// the part of the name before the first `-`: `order` for `order-42`.
    ///
    /// # Errors
    /// `VersionConflict` if the stream is not at the expected version (a stream without events does not
    /// exist); `InvalidName`, `Serialization`, `TooLarge`, `Unavailable`, `CommitUnknown` as for
    /// [`update`](Self::update).
    pub async fn append(
        &self,
        stream: impl Into<DocumentId>,
        events: Vec<NewEvent>,
        options: UpdateOptions,
    ) -> Result<Appended> {
        let inner = &self.inner;
        inner.check_open()?;
        let key = stream_key(stream)?;
        let mut attempts = Attempts::new(options.retry.as_ref().unwrap_or(&inner.options.retry));
        let mut kept: Option<Turn> = None;
        loop {
            let turn = match kept.take() {
                Some(turn) => turn.resume().await,
                None => inner.turns.take(&key).await,
            };
            let (turn, loaded) = inner.load_in_turn(&key, turn).await?;
            let head = match loaded {
                Ok(loaded) => loaded.head.map(|head| head.version),
                Err(error) => {
                    attempts.after_failure(error).await?;
                    continue;
                }
            };
            if !options.expected.accepts(head) {
                let conflict = VersionConflict::new(options.expected, head);
                return Err(conflict.into_error(&key));
            }
            let mut version = head.unwrap_or(Version::NONE);
            if events.is_empty() {
                let events = Vec::new();
                return Ok(Appended { version, events });
            }
            let mut unit = Unit::default();
            let stamp = Stamp::new(inner);
            for event in &events {
                version = version.next();
                unit.entries
                    .push(self.stream_entry(stamp, &key, version, event, &options)?);
            }
            let mut committed = inner
                .engine
                .commit(unit, vec![turn], attempts.deadline())
                .await?;
            match committed.result {
                Ok(receipt) => {
                    inner.note_commit(receipt.position, true);
                    let entries = committed.unit.entries.iter();
                    let events = entries
                        .map(LogEntry::to_events)
                        .collect::<Result<Vec<_>>>()?;
                    let events = events.into_iter().flatten().collect();
                    return Ok(Appended { version, events });
                }
                Err(CommitFailure::Conflict { source, .. }) => {
                    kept = committed.turns.pop();
                    attempts.after_conflict(source).await?;
                }
                Err(failure @ CommitFailure::Failed(_)) => {
                    attempts.after_failure(failure.into_error()).await?;
                }
                Err(failure) => return Err(failure.into_error()),
            }
        }
    }

    /// Reads the events of a stream whose versions lie in a range, oldest first. A stream that was never
    /// written has none.
    ///
    /// # Errors
    /// `InvalidName`, `Unavailable`, `Corrupt`.
    pub async fn read(
        &self,
        stream: impl Into<DocumentId>,
        versions: impl RangeBounds<u64>,
    ) -> Result<Vec<Event>> {
        self.inner.check_open()?;
        let key = stream_key(stream)?;
        let to = match versions.end_bound() {
            Bound::Included(to) => Version::new(*to),
            Bound::Excluded(to) => Version::new(to.saturating_sub(1)),
            Bound::Unbounded => Version::MAX,
        };
        let mut from = match versions.start_bound() {
            Bound::Included(from) => Version::new(*from),
            Bound::Excluded(from) => Version::new(*from).next(),
            Bound::Unbounded => Version::NONE,
        };
        let mut events = Vec::new();
        while from <= to {
            let range = LogRange {
                key: key.clone(),
                from,
                to,
                until: None,
                newest_first: false,
                limit: PAGE,
            };
            let entries = self.backend().read_log(&range).await?;
            let Some(last) = entries.last() else {
                break;
            };
            from = last.version.next();
            for entry in &entries {
                events.extend(entry.to_events()?);
            }
            if entries.len() < PAGE {
                break;
            }
        }
        Ok(events)
    }

    fn stream_entry(
        &self,
        stamp: Stamp,
        key: &DocumentKey,
        version: Version,
        event: &NewEvent,
        options: &UpdateOptions,
    ) -> Result<LogEntry> {
        let nothing = Diff::between(None, None, &[])?;
        let store = self.backend().store_id();
        let name = key.id().to_string();
        let category = name
            .split_once('-')
            .map_or(name.as_str(), |(first, _)| first);
        let entry = LogEntry {
            events: logged(store, key, version, vec![event.clone()], &nothing)?,
            metadata: options.metadata.clone(),
            ..stamp.entry(
                key,
                version,
                EntryKind::Appended,
                category.to_owned(),
                "version",
            )
        };
        super::plan::check_entry(&entry, self.inner.max_entry())?;
        Ok(entry)
    }
}

fn stream_key(stream: impl Into<DocumentId>) -> Result<DocumentKey> {
    let key = DocumentKey::new(STREAMS, stream);
    key.id().validate().map_err(|e| e.context("stream"))?;
    Ok(key)
}
