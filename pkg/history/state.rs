use std::fmt;
use std::sync::Arc;

use bson::{RawDocument, RawDocumentBuf};
use serde::de::DeserializeOwned;

use crate::document::{DocumentKey, Version};
use crate::error::Result;
use crate::storage::backend::LogEntry;
use crate::storage::{Codec, Stored};

/// A document as it was at one of its versions. Cheap to clone.
#[derive(Clone, PartialEq)]
pub struct DocumentState {
    key: DocumentKey,
    version: Version,
    version_field: Arc<str>,
    document: Arc<RawDocumentBuf>,
}

impl DocumentState {
    /// The state after a log entry.
    pub(super) fn after(entry: &LogEntry, document: Arc<RawDocumentBuf>) -> Self {
        Self {
            key: entry.key.clone(),
            version: entry.version,
            version_field: Arc::clone(&entry.version_field),
            document,
        }
    }

    /// Collection and id.
    #[must_use]
    pub fn key(&self) -> &DocumentKey {
        &self.key
    }

    /// The version whose log entry made this state.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The bytes as they were stored. Where another program had written the document
    /// ([`Adopted`](crate::storage::backend::EntryKind::Adopted)), they are what was found, with whatever
    /// stood in the version field.
    #[must_use]
    pub fn document(&self) -> &RawDocument {
        &self.document
    }

    /// As [`document`](Self::document), owned.
    #[must_use]
    pub fn into_document(self) -> RawDocumentBuf {
        Arc::unwrap_or_clone(self.document)
    }

    /// The document as a `T`, with [`version`](Self::version).
    ///
    /// # Errors
    /// `Serialization` if it does not read as a `T`.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<Stored<T>> {
        let codec = Codec {
            key: &self.key,
            version_field: &self.version_field,
        };
        let value = codec
            .decode(&self.document)
            .map_err(|e| e.context(format_args!("version {}", self.version)))?;
        Ok(Stored::new(self.key.id().clone(), self.version, value))
    }
}

impl fmt::Debug for DocumentState {
    /// Shows no document contents.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DocumentState")
            .field("key", &self.key.to_string())
            .field("version", &self.version.get())
            .finish_non_exhaustive()
    }
}
