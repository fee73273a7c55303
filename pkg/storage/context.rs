use std::sync::{Arc, Mutex, PoisonError};

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
    attempt: u32,
    collected: Arc<Mutex<Collected>>,
}

#[derive(Debug, Default)]
struct Collected {
    events: Vec<NewEvent>,
    metadata: Metadata,
}

impl UpdateContext {
    pub(super) fn new(
        key: DocumentKey,
        version: Option<Version>,
        attempt: u32,
        metadata: Metadata,
    ) -> Self {
        let events = Vec::new();
        Self {
            key,
            version,
            attempt,
            collected: Arc::new(Mutex::new(Collected { events, metadata })),
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

    /// The how-manieth run of the closure this is, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
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

    pub(super) fn take(&self) -> (Vec<NewEvent>, Metadata) {
        self.with(|collected| {
            let events = std::mem::take(&mut collected.events);
            (events, std::mem::take(&mut collected.metadata))
        })
    }

    fn with<R>(&self, f: impl FnOnce(&mut Collected) -> R) -> R {
        // A closure that panicked in `set_metadata` leaves metadata that is complete all the same.
        f(&mut self
            .collected
            .lock()
            .unwrap_or_else(PoisonError::into_inner))
    }
}
