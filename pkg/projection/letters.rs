use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use bson::raw::cstr;
use bson::{DateTime, RawDocumentBuf};
use uuid::Uuid;

use super::build::Build;
use super::ledger::COMMIT_WITHIN;
use crate::document::{DocumentId, DocumentKey, Version};
use crate::error::{BoxError, Error, ErrorKind, Result};
use crate::event::EventId;
use crate::storage::backend::{Backend, CommitFailure, Record, RecordWrite, Unit};

/// The longest error text kept, in bytes: ten thousand of them stay within ten megabytes.
const MAX_ERROR_BYTES: usize = 1_000;

/// Records read at once.
const PAGE: usize = 500;

/// An event that a projection could not take. Its document is parked: this event and the later ones of
/// the document stay in the log until somebody [replays](super::ProjectionHandle::replay) or
/// [discards](super::ProjectionHandle::discard) it.
///
/// # Examples
/// ```
/// # use nodestorage::Result;
/// # use nodestorage::projection::{Projection, ProjectionDeadLetter, ProjectionHandle};
/// # async fn example<P: Projection>(
/// #     orders: &ProjectionHandle<P>,
/// #     letter: ProjectionDeadLetter,
/// # ) -> Result<()> {
/// println!("{} of {}: {}", letter.event_type, letter.document, letter.error);
/// orders.replay(&letter.document).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ProjectionDeadLetter {
    /// The build of the views that lacks it.
    pub build: Build,
    /// The document.
    pub document: DocumentKey,
    /// The version that the event belongs to.
    pub version: Version,
    /// The event's place among those of the version.
    pub index: u32,
    /// The event's identity.
    pub event: EventId,
    /// The event's type, as it is logged.
    pub event_type: String,
    /// What the last attempt failed with.
    pub error: String,
    /// How many attempts were made.
    pub attempts: u32,
    /// When it was given up, by the projection's clock.
    pub at: DateTime,
}

/// The parked documents, each with the version from which on its events wait.
pub(super) type Parked = HashMap<DocumentKey, Version>;

/// The dead letters of one build.
#[derive(Debug, Clone)]
pub(super) struct Letters {
    backend: Arc<dyn Backend>,
    kind: String,
    build: Build,
}

impl Letters {
    pub(super) fn new(backend: &Arc<dyn Backend>, name: &str, build: Build) -> Self {
        Self {
            backend: Arc::clone(backend),
            kind: format!("projection_dead_letter/{name}/{build}"),
            build,
        }
    }

    /// One record per document. Not its name, which may be longer than a record's key can be, and is the
    /// same for the integer 1 and the string "1".
    fn key(&self, document: &DocumentKey) -> String {
        EventId::derive(self.backend.store_id(), document, Version::NONE, 0).to_string()
    }

    pub(super) async fn page(
        &self,
        after: Option<&DocumentKey>,
        limit: usize,
    ) -> Result<Vec<ProjectionDeadLetter>> {
        let after = after.map(|document| self.key(document));
        let records = self
            .backend
            .read_records(&self.kind, after.as_deref(), limit)
            .await?;
        records.iter().map(|record| self.read(record)).collect()
    }

    pub(super) async fn of(&self, document: &DocumentKey) -> Result<Option<ProjectionDeadLetter>> {
        let key = self.key(document);
        let record = self.backend.read_record(&self.kind, &key).await?;
        record.map(|record| self.read(&record)).transpose()
    }

    /// All parked documents, at most one more than `limit`.
    pub(super) async fn parked(&self, limit: usize) -> Result<Parked> {
        let mut parked = Parked::new();
        let mut after: Option<DocumentKey> = None;
        while parked.len() <= limit {
            let page = self.page(after.as_ref(), PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.document.clone());
            parked.extend(page.into_iter().map(|it| (it.document, it.version)));
        }
        Ok(parked)
    }

    pub(super) async fn write(&self, letter: &ProjectionDeadLetter) -> Result<()> {
        self.commit(vec![RecordWrite::Put(Record {
            kind: self.kind.clone(),
            key: self.key(&letter.document),
            value: to_raw(letter),
        })])
        .await
    }

    pub(super) async fn remove(&self, document: &DocumentKey) -> Result<()> {
        self.commit(vec![RecordWrite::Delete {
            kind: self.kind.clone(),
            key: self.key(document),
        }])
        .await
    }

    pub(super) async fn clear(&self) -> Result<()> {
        loop {
            let records = self.backend.read_records(&self.kind, None, PAGE).await?;
            if records.is_empty() {
                return Ok(());
            }
            let deletes = records.into_iter().map(|record| RecordWrite::Delete {
                kind: record.kind,
                key: record.key,
            });
            self.commit(deletes.collect()).await?;
        }
    }

    async fn commit(&self, records: Vec<RecordWrite>) -> Result<()> {
        let unit = Unit {
            records,
            ..Unit::default()
        };
        let deadline = Instant::now() + COMMIT_WITHIN;
        match self.backend.commit(&[unit], deadline).await {
            Ok(_) => Ok(()),
            // Putting and deleting may be repeated.
            Err(CommitFailure::Conflict { source, .. } | CommitFailure::Unknown(source)) => {
                Err(Error::new(ErrorKind::Unavailable, "writing a dead letter").with_source(source))
            }
            Err(failure) => Err(failure.into_error()),
        }
    }

    fn read(&self, record: &Record) -> Result<ProjectionDeadLetter> {
        let read = || -> Result<_, BoxError> {
            let raw = &record.value;
            let id = DocumentId::from_bson(raw.get("document")?.ok_or("document is missing")?)?;
            Ok(ProjectionDeadLetter {
                build: self.build,
                document: DocumentKey::new(raw.get_str("collection")?, id),
                version: Version::new(u64::try_from(raw.get_i64("version")?)?),
                index: u32::try_from(raw.get_i64("index")?)?,
                event: raw.get_str("event")?.parse::<Uuid>()?.into(),
                event_type: raw.get_str("type")?.to_owned(),
                error: raw.get_str("error")?.to_owned(),
                attempts: u32::try_from(raw.get_i64("attempts")?)?,
                at: raw.get_datetime("at")?,
            })
        };
        read().map_err(|e| {
            let Record { kind, key, .. } = record;
            let what = format!("record {key} of kind {kind} does not read back");
            Error::new(ErrorKind::Corrupt, what).with_source(e)
        })
    }
}

fn to_raw(letter: &ProjectionDeadLetter) -> RawDocumentBuf {
    let mut raw = RawDocumentBuf::new();
    raw.append(cstr!("collection"), letter.document.collection());
    raw.append(cstr!("document"), letter.document.id().to_raw());
    raw.append(cstr!("version"), letter.version.to_i64());
    raw.append(cstr!("index"), i64::from(letter.index));
    raw.append(cstr!("event"), letter.event.to_string());
    raw.append(cstr!("type"), letter.event_type.as_str());
    let mut end = letter.error.len().min(MAX_ERROR_BYTES);
    while !letter.error.is_char_boundary(end) {
        end -= 1;
    }
    raw.append(cstr!("error"), &letter.error[..end]);
    raw.append(cstr!("attempts"), i64::from(letter.attempts));
    raw.append(cstr!("at"), letter.at);
    raw
}
