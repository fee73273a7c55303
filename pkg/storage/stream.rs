//! Event streams without a document: append and read.

use std::ops::{Bound, RangeBounds};

use super::backend::{EntryKind, LogEntry, LogRange};
use super::engine::{Answer, Part, Proposal, View, Want};
use super::plan::{Stamp, logged};
use super::retry::Attempts;
use super::update::{MISSES, moved};
use super::{Storage, UpdateOptions};
use crate::document::{Diff, DocumentId, DocumentKey, Version, VersionConflict};
use crate::error::Result;
use crate::event::{Event, NewEvent};

/// The collection name under which streams are logged; no collection of a user's can have it.
pub(super) const STREAMS: &str = "nodestorage.streams";

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
    #[tracing::instrument(level = "debug", name = "append", skip_all)]
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
        let _place = inner.engine.admit(attempts.deadline()).await?;
        let since = inner.engine.tick();
        let mut want = Want::Newest;
        let mut lost = None;
        let mut misses = 0;
        loop {
            if let Some(source) = lost.take() {
                attempts.again(source).await?;
            }
            let turn = match misses >= MISSES || inner.turns.is_taken(&key) {
                true => Some(inner.turns.take(&key).await),
                false => None,
            };
            let (_lane, view) = match inner
                .engine
                .begin(&key, &inner.streams, want, attempts.deadline())
                .await
            {
                Ok(entered) => entered,
                Err(error) => {
                    attempts.after_failure(error).await?;
                    continue;
                }
            };
            let version = view.base.last();
            let head = (version > Version::NONE).then_some(version);
            let accepted = options.expected.accepts(head);
            if !accepted || events.is_empty() {
                if view.seen <= Some(since) {
                    // Not to be handed out before the database has confirmed it.
                    want = Want::Since(since);
                    continue;
                }
                if accepted {
                    let events = Vec::new();
                    return Ok(Appended { version, events });
                }
                let conflict = VersionConflict::new(options.expected, head);
                return Err(conflict.into_error(&key));
            }
            want = Want::Newest;
            let is_beside = view.generation.is_none();
            let proposal = self.stream_proposal(&key, view, &events, &options, &attempts)?;
            match inner.engine.propose(proposal, turn).await? {
                None if is_beside => attempts.after_commit(moved(&key)).await?,
                None => {
                    misses += 1;
                    lost = Some(moved(&key));
                }
                Some(Answer::Committed { position, entries }) => {
                    inner.note_commit(position, true);
                    let version = entries.last().map_or(version, |entry| entry.version);
                    let events = entries.iter().map(LogEntry::to_events);
                    let events = events.collect::<Result<Vec<_>>>()?;
                    let events = events.into_iter().flatten().collect();
                    return Ok(Appended { version, events });
                }
                Some(Answer::Again { own: true, source }) => {
                    attempts.after_conflict(source).await?;
                }
                Some(Answer::Again { own: false, source }) => lost = Some(source),
                Some(Answer::Failed(error)) => attempts.after_failure(error).await?,
                Some(Answer::Unknown(error)) => return Err(error),
            }
        }
    }

    fn stream_proposal(
        &self,
        key: &DocumentKey,
        view: View,
        events: &[NewEvent],
        options: &UpdateOptions,
        attempts: &Attempts,
    ) -> Result<Proposal> {
        let stamp = Stamp::new(&self.inner);
        let mut after = view.base.clone();
        let mut entries = Vec::with_capacity(events.len());
        for event in events {
            entries.push(self.stream_entry(stamp, key, after.next, event, options)?);
            after = after.after(None);
        }
        Ok(Proposal {
            parts: vec![Part {
                key: key.clone(),
                generation: view.generation,
                seen: view.seen,
                before: view.base,
                after,
                writes: false,
            }],
            entries,
            checks: Vec::new(),
            records: Vec::new(),
            deadline: attempts.deadline(),
        })
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
