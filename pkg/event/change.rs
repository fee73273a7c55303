use std::fmt;

use bson::RawDocument;
use serde::de::DeserializeOwned;

use super::Metadata;
use crate::document::{Diff, DocumentId, DocumentKey, Version};
use crate::error::{Error, ErrorKind, Result};

/// What a change did to its document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    /// The document came into being.
    Created,
    /// The document changed, or its closure emitted events.
    Updated,
    /// The document was deleted.
    Deleted,
    /// Nothing was written: the closure returned an equal document.
    Unchanged,
}

impl fmt::Display for ChangeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Deleted => "deleted",
            Self::Unchanged => "unchanged",
        })
    }
}

/// A change as an [`EventMapper`](super::EventMapper) sees it, before it is committed.
#[derive(Debug, Clone, Copy)]
pub struct ChangeView<'a> {
    key: &'a DocumentKey,
    version: Version,
    kind: ChangeKind,
    before: Option<&'a RawDocument>,
    after: Option<&'a RawDocument>,
    diff: &'a Diff,
    metadata: &'a Metadata,
}

impl<'a> ChangeView<'a> {
    /// A view of a change; for tests of mappers.
    #[must_use]
    pub fn new(
        key: &'a DocumentKey,
        version: Version,
        kind: ChangeKind,
        diff: &'a Diff,
        metadata: &'a Metadata,
    ) -> Self {
        Self {
            key,
            version,
            kind,
            before: diff.before_document(),
            after: diff.after_document(),
            diff,
            metadata,
        }
    }

    /// Collection and id.
    #[must_use]
    pub fn document(&self) -> &'a DocumentKey {
        self.key
    }

    /// The collection.
    #[must_use]
    pub fn collection(&self) -> &'a str {
        self.key.collection()
    }

    /// The document's id.
    #[must_use]
    pub fn id(&self) -> &'a DocumentId {
        self.key.id()
    }

    /// The version that the change makes.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// What the change does.
    #[must_use]
    pub fn kind(&self) -> ChangeKind {
        self.kind
    }

    /// The stored document before the change, with its `_id` and version field.
    #[must_use]
    pub fn before(&self) -> Option<&'a RawDocument> {
        self.before
    }

    /// The document to be stored, with its `_id` and version field.
    #[must_use]
    pub fn after(&self) -> Option<&'a RawDocument> {
        self.after
    }

    /// The document before the change as a type of yours.
    ///
    /// # Errors
    /// `Serialization` if it has another shape.
    pub fn before_as<T: DeserializeOwned>(&self) -> Result<Option<T>> {
        self.decode(self.before)
    }

    /// The document after the change as a type of yours.
    ///
    /// # Errors
    /// `Serialization` if it has another shape.
    pub fn after_as<T: DeserializeOwned>(&self) -> Result<Option<T>> {
        self.decode(self.after)
    }

    /// What changed; the `_id` and the version field never show.
    #[must_use]
    pub fn diff(&self) -> &'a Diff {
        self.diff
    }

    /// Where the change comes from.
    #[must_use]
    pub fn metadata(&self) -> &'a Metadata {
        self.metadata
    }

    fn decode<T: DeserializeOwned>(&self, raw: Option<&RawDocument>) -> Result<Option<T>> {
        raw.map(|raw| bson::deserialize_from_slice(raw.as_bytes()))
            .transpose()
            .map_err(|e| {
                Error::new(
                    ErrorKind::Serialization,
                    format!("{} is not a {}", self.key, std::any::type_name::<T>()),
                )
                .with_source(e)
            })
    }
}
