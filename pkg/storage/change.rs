use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use serde::de::DeserializeOwned;

use super::backend::{LogEntry, Position};
use super::codec::Codec;
use super::delivery::Delivery;
use crate::document::{Diff, DocumentId, DocumentKey, Version};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{ChangeKind, Event};

/// What an update did: versions, both states, the diff and the events.
pub struct Change<T> {
    pub(super) key: DocumentKey,
    pub(super) version_field: Arc<str>,
    pub(super) kind: ChangeKind,
    pub(super) version: Version,
    pub(super) diff: Diff,
    /// The log entry and where it was committed; `None` when nothing was written.
    pub(super) committed: Option<(Arc<LogEntry>, Position)>,
    pub(super) delivery: Option<Arc<dyn Delivery>>,
    pub(super) events: OnceLock<Vec<Event>>,
    pub(super) document: PhantomData<fn() -> T>,
}

impl<T> Change<T> {
    /// What happened.
    #[must_use]
    pub fn kind(&self) -> ChangeKind {
        self.kind
    }

    /// Collection and id.
    #[must_use]
    pub fn document(&self) -> &DocumentKey {
        &self.key
    }

    /// The document's version after the change; after a deletion the version of the deletion, and the
    /// current one when nothing changed.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// What changed, with its views as merge patch and JSON patch.
    #[must_use]
    pub fn diff(&self) -> &Diff {
        &self.diff
    }

    /// The events that were logged with the change, in order.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        self.events.get_or_init(|| match &self.committed {
            Some((entry, _)) => entry.events_with(&self.diff),
            None => Vec::new(),
        })
    }

    /// Waits until the bus has confirmed the events, whether the relay that publishes them runs here or in
    /// another process. Returns at once if there are none. Dropping the future gives up waiting and
    /// nothing else.
    ///
    /// # Errors
    /// `Unsupported` if no bus is connected and no relay publishes the log elsewhere, `DeadLettered` if the events were given up or wait behind
    /// others of the document that were, `Closed` if the storage was closed meanwhile.
    pub async fn delivered(&self) -> Result<()> {
        let Some((entry, position)) = &self.committed else {
            return Ok(());
        };
        if entry.events.is_empty() {
            return Ok(());
        }
        let Some(delivery) = &self.delivery else {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "no bus is connected to this storage, so nothing confirms a delivery",
            ));
        };
        delivery.delivered(&self.key, self.version, *position).await
    }
}

impl<T> Change<T> {
    /// The same change, its documents to be read as another type.
    pub(crate) fn retyped<U>(self) -> Change<U> {
        Change {
            key: self.key,
            version_field: self.version_field,
            kind: self.kind,
            version: self.version,
            diff: self.diff,
            committed: self.committed,
            delivery: self.delivery,
            events: self.events,
            document: PhantomData,
        }
    }
}

impl<T: DeserializeOwned> Change<T> {
    /// The document before the change.
    ///
    /// # Errors
    /// `Serialization` if it does not read as a `T`.
    pub fn before(&self) -> Result<Option<T>> {
        let codec = self.codec();
        let document = self.diff.before_document();
        document.map(|document| codec.decode(document)).transpose()
    }

    /// The document after the change.
    ///
    /// # Errors
    /// `Serialization` if it does not read as a `T`.
    pub fn after(&self) -> Result<Option<T>> {
        let codec = self.codec();
        let document = self.diff.after_document();
        document.map(|document| codec.decode(document)).transpose()
    }

    fn codec(&self) -> Codec<'_> {
        Codec {
            key: &self.key,
            version_field: &self.version_field,
        }
    }
}

impl<T> fmt::Debug for Change<T> {
    /// Shows no document contents.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Change")
            .field("document", &self.key.to_string())
            .field("kind", &self.kind)
            .field("version", &self.version.get())
            .finish_non_exhaustive()
    }
}

/// A document as it was read: the value, its id and its version. Dereferences to the value.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored<T> {
    pub(super) id: DocumentId,
    pub(super) version: Version,
    pub(super) value: T,
}

impl<T> Stored<T> {
    pub(crate) fn new(id: DocumentId, version: Version, value: T) -> Self {
        Self { id, version, value }
    }

    /// The document's id.
    #[must_use]
    pub fn id(&self) -> &DocumentId {
        &self.id
    }

    /// The document's version; 0 if no program that knows versions has written it yet.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The value.
    #[must_use]
    pub fn into_inner(self) -> T {
        self.value
    }
}

impl<T> Deref for Stored<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}
