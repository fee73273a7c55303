use std::sync::{Arc, Mutex, PoisonError};

use super::backend::RecordWrite;
use super::plan::SNAPSHOT_EVERY;
use crate::document::{DocumentId, DocumentKey, ExpectedVersion, Version};
use crate::event::{Metadata, NewEvent};

/// What a single update may be told beside its closure.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct UpdateOptions {
    /// The version the document must have; a stale one fails at once with `VersionConflict`. Default:
    /// any.
    pub expected: ExpectedVersion,
    /// Where the change comes from. Default: nothing.
    pub metadata: Metadata,
    /// Whether the closure's result is the whole document, its key order included. Default: false, the
    /// change that the closure made to its value is applied to the stored document, so that fields the
    /// type does not know stay.
    pub whole_document: bool,
    /// How often and how fast to try again. Default: as the storage is configured.
    pub retry: Option<super::RetryPolicy>,
}

impl UpdateOptions {
    /// Any version, no metadata.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Requires a version: a number, [`ExpectedVersion::MustNotExist`] or
    /// [`ExpectedVersion::MustExist`].
    #[must_use]
    pub fn with_expected(mut self, expected: impl Into<ExpectedVersion>) -> Self {
        self.expected = expected.into();
        self
    }

    /// Says where the change comes from.
    #[must_use]
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = metadata;
        self
    }

    /// Makes the closure's result the whole document: fields that the type does not know are removed, and
    /// the key order is the result's.
    #[must_use]
    pub fn with_whole_document(mut self) -> Self {
        self.whole_document = true;
        self
    }

    /// Sets how often and how fast to try again.
    #[must_use]
    pub fn with_retry(mut self, retry: super::RetryPolicy) -> Self {
        self.retry = Some(retry);
        self
    }
}

/// What an update closure may know and do beside its document: one fresh context per run.
///
/// A clone is the same context.
#[derive(Debug, Clone)]
pub struct UpdateContext {
    key: DocumentKey,
    version: Option<Version>,
    /// The version that the change will have.
    next: Version,
    attempt: u32,
    /// How often this call lost to another writer so far.
    conflicts: u32,
    collected: Arc<Mutex<Collected>>,
}

/// What a run did beside its document.
#[derive(Debug, Default)]
pub(super) struct Collected {
    pub(super) events: Vec<NewEvent>,
    pub(super) metadata: Metadata,
    /// Written in the same commit.
    pub(super) records: Vec<RecordWrite>,
    pub(super) form: LogForm,
}

impl Collected {
    /// Adds what a later run on the same document did.
    pub(super) fn join(&mut self, later: Self) {
        self.events.extend(later.events);
        self.records.extend(later.records);
        self.metadata = later.metadata;
        self.form = later.form;
    }
}

/// How a change is logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogForm {
    /// Whether the collection's mapper makes events of the change, beside those that were emitted.
    pub(crate) mapped: bool,
    /// What kind of thing the document is, in place of what the mapper says.
    pub(crate) aggregate_type: Option<Arc<str>>,
    /// Every how many versions the log keeps the whole document, from 1 to [`SNAPSHOT_EVERY`].
    pub(crate) snapshot_every: u64,
}

impl Default for LogForm {
    fn default() -> Self {
        Self {
            mapped: true,
            aggregate_type: None,
            snapshot_every: SNAPSHOT_EVERY,
        }
    }
}

impl UpdateContext {
    pub(super) fn new(
        key: DocumentKey,
        (version, next): (Option<Version>, Version),
        (attempt, conflicts): (u32, u32),
        metadata: Metadata,
    ) -> Self {
        let collected = Collected {
            metadata,
            ..Collected::default()
        };
        Self {
            key,
            version,
            next,
            attempt,
            conflicts,
            collected: Arc::new(Mutex::new(collected)),
        }
    }

    /// The document's id.
    #[must_use]
    pub fn id(&self) -> &DocumentId {
        self.key.id()
    }

    /// The collection.
    #[must_use]
    pub fn collection(&self) -> &str {
        self.key.collection()
    }

    /// The version the closure's document has; `None` if there is no document.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        self.version
    }

    /// The version that the change will have: above every version the document ever had, also where there
    /// is none now.
    #[must_use]
    pub fn next_version(&self) -> Version {
        self.next
    }

    /// The how-manieth run of the closure this is, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// How often a commit of this call was refused because of another writer, or of a record that was there.
    pub(crate) fn conflicts(&self) -> u32 {
        self.conflicts
    }

    /// Adds an event to the change; it follows those of the mapper. An update that emits is a version
    /// of its own even if the document stays equal. Without effect if the run's result does not count.
    pub fn emit(&self, event: NewEvent) {
        self.with(|collected| collected.events.push(event));
    }

    /// Changes the metadata of the change.
    pub fn set_metadata(&self, change: impl FnOnce(&mut Metadata)) {
        self.with(|collected| change(&mut collected.metadata));
    }

    /// Has a record written in the same commit, if the run's result writes anything. Of several writes that
    /// replace one record the last one counts.
    pub(crate) fn write_record(&self, write: RecordWrite) {
        self.with(|collected| collected.records.push(write));
    }

    /// Sets how the change is logged.
    pub(crate) fn log_as(&self, form: LogForm) {
        self.with(|collected| collected.form = form);
    }

    pub(super) fn take(&self) -> Collected {
        self.with(std::mem::take)
    }

    fn with<R>(&self, f: impl FnOnce(&mut Collected) -> R) -> R {
        // A closure that panicked in `set_metadata` leaves metadata that is complete all the same.
        f(&mut self
            .collected
            .lock()
            .unwrap_or_else(PoisonError::into_inner))
    }
}
