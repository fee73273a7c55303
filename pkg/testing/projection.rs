//! Given, when, then: tests of projections without a store and without a runtime.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bson::{DateTime, RawDocumentBuf};
use serde_json::Value;
use uuid::Uuid;

use crate::document::{DocumentId, DocumentKey, Version};
use crate::event::{Event, EventId, EventParts, EventRegistry, Metadata};
use crate::projection::Projection;

/// An event for tests, of document `test` in collection `tests` at version 1 unless told otherwise.
///
/// # Examples
/// ```
/// use nodestorage::testing::SampleEvent;
/// use serde_json::json;
///
/// let event = SampleEvent::new("OrderPlaced", json!({"cents": 500}))
///     .of("orders", "o1")
///     .at_version(2)
///     .build();
/// assert_eq!(event.document().to_string(), "orders/o1");
/// ```
#[derive(Debug, Clone)]
pub struct SampleEvent {
    event_type: String,
    data: Value,
    document: DocumentKey,
    version: Version,
    index: u32,
    schema: u32,
    time: DateTime,
    metadata: Metadata,
}

impl SampleEvent {
    /// An event of a type, with its data.
    #[must_use]
    pub fn new(event_type: impl Into<String>, data: Value) -> Self {
        Self {
            event_type: event_type.into(),
            data,
            document: DocumentKey::new("tests", "test"),
            version: Version::new(1),
            index: 0,
            schema: 1,
            time: DateTime::from_millis(0),
            metadata: Metadata::new(),
        }
    }

    /// Sets the document it is about.
    #[must_use]
    pub fn of(mut self, collection: &str, id: impl Into<DocumentId>) -> Self {
        self.document = DocumentKey::new(collection, id);
        self
    }

    /// Sets the document's version that the change made.
    #[must_use]
    pub fn at_version(mut self, version: impl Into<Version>) -> Self {
        self.version = version.into();
        self
    }

    /// Sets the place among the events of the same version, from 0.
    #[must_use]
    pub fn at_index(mut self, index: u32) -> Self {
        self.index = index;
        self
    }

    /// Sets the schema number of the data.
    #[must_use]
    pub fn with_schema(mut self, schema: u32) -> Self {
        self.schema = schema;
        self
    }

    /// Sets when the change was committed.
    #[must_use]
    pub fn at(mut self, time: DateTime) -> Self {
        self.time = time;
        self
    }

    /// Says where the change came from.
    #[must_use]
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = metadata;
        self
    }

    /// The event.
    #[must_use]
    pub fn build(self) -> Event {
        Event::from_parts(EventParts {
            id: EventId::derive(Uuid::nil(), &self.document, self.version, self.index),
            event_type: self.event_type.into(),
            aggregate_type: self.document.collection().into(),
            document: self.document,
            version: self.version,
            index: self.index,
            time: self.time,
            schema: self.schema,
            data: self.data,
            metadata: self.metadata,
        })
    }
}

impl From<SampleEvent> for Event {
    fn from(sample: SampleEvent) -> Self {
        sample.build()
    }
}

/// A test of a projection: these events have happened, and what do the views show?
///
/// Every view is also written and read as a store does it. An event that is not above the last one of its
/// document is a repetition and is left out, as a runner does.
///
/// # Examples
/// ```
/// # use nodestorage::error::BoxError;
/// # use nodestorage::projection::Projection;
/// # use nodestorage::{DocumentId, Event};
/// # use serde::{Deserialize, Serialize};
/// use nodestorage::testing::{ProjectionTest, SampleEvent};
/// use serde_json::json;
///
/// # #[derive(Clone, Default, Serialize, Deserialize)]
/// # struct Changes { count: u64 }
/// # struct ChangeCounts;
/// # impl Projection for ChangeCounts {
/// #     type View = Changes;
/// #     fn name(&self) -> &str { "change_counts" }
/// #     fn apply(&self, _: &DocumentId, view: Option<Changes>, _: &Event) -> Result<Option<Changes>, BoxError> {
/// #         Ok(Some(Changes { count: view.unwrap_or_default().count + 1 }))
/// #     }
/// # }
/// let changed = |version: u64| SampleEvent::new("UserUpdated", json!({})).of("users", "kim").at_version(version);
///
/// ProjectionTest::new(ChangeCounts)
///     .given([changed(1), changed(2), changed(2)])
///     .then_view("kim", |view| assert_eq!(view.count, 2))
///     .then_no_view("lee");
/// ```
#[derive(Debug)]
pub struct ProjectionTest<P> {
    projection: P,
    registry: Option<Arc<EventRegistry>>,
    /// By the text of the key; ids of different types with one text are rare in tests.
    views: BTreeMap<String, RawDocumentBuf>,
    seen: HashMap<DocumentKey, (Version, u32)>,
    failures: Vec<String>,
}

impl<P: Projection> ProjectionTest<P> {
    /// Nothing has happened yet.
    pub fn new(projection: P) -> Self {
        Self {
            projection,
            registry: None,
            views: BTreeMap::new(),
            seen: HashMap::new(),
            failures: Vec::new(),
        }
    }

    /// Brings events up to their current schemas first.
    #[must_use]
    pub fn with_registry(mut self, registry: Arc<EventRegistry>) -> Self {
        self.registry = Some(registry);
        self
    }

    /// These events happen, in this order.
    ///
    /// # Panics
    /// When a view does not read back as it is written.
    #[must_use]
    pub fn given<E: Into<Event>>(mut self, events: impl IntoIterator<Item = E>) -> Self {
        for event in events {
            self.happens(event.into());
        }
        self
    }

    fn happens(&mut self, event: Event) {
        let at = (event.version(), event.index());
        let last = self.seen.get(event.document());
        if last.is_some_and(|last| *last >= at) {
            return;
        }
        self.seen.insert(event.document().clone(), at);
        let event = match &self.registry {
            Some(registry) => match registry.upcast(event) {
                Ok(event) => event,
                Err(error) => return self.failures.push(error.to_string()),
            },
            None => event,
        };
        if !self
            .projection
            .handles(event.event_type(), event.collection())
        {
            return;
        }
        for key in self.projection.keys(&event) {
            let view = self.view(&key);
            match self.projection.apply(&key, view, &event) {
                Ok(Some(view)) => {
                    let raw = bson::serialize_to_raw_document_buf(&view);
                    let raw = raw.expect("a view is stored as a document");
                    self.views.insert(key.to_string(), raw);
                }
                Ok(None) => {
                    self.views.remove(&key.to_string());
                }
                Err(error) => self.failures.push(error.to_string()),
            }
        }
    }

    fn view(&self, key: &DocumentId) -> Option<P::View> {
        let raw = self.views.get(&key.to_string())?;
        let view = bson::deserialize_from_slice(raw.as_bytes());
        Some(view.expect("a view reads back as it was written"))
    }

    /// There is a view, as `check` wants it.
    ///
    /// # Panics
    /// When there is none, when an event failed, and when `check` does.
    #[allow(clippy::must_use_candidate, clippy::return_self_not_must_use)]
    pub fn then_view(self, key: impl Into<DocumentId>, check: impl FnOnce(&P::View)) -> Self {
        self.no_failures();
        let key = key.into();
        match self.view(&key) {
            Some(view) => check(&view),
            None => panic!("there is no view {key}, only {}", self.keys()),
        }
        self
    }

    /// There is no view of this key.
    ///
    /// # Panics
    /// When there is one, and when an event failed.
    #[allow(clippy::must_use_candidate, clippy::return_self_not_must_use)]
    pub fn then_no_view(self, key: impl Into<DocumentId>) -> Self {
        self.no_failures();
        let key = key.into();
        assert!(self.view(&key).is_none(), "there is a view {key}");
        self
    }

    /// There are so many views.
    ///
    /// # Panics
    /// When there are more or less, and when an event failed.
    #[allow(clippy::must_use_candidate, clippy::return_self_not_must_use)]
    pub fn then_views(self, number: usize) -> Self {
        self.no_failures();
        let keys = self.keys();
        assert_eq!(self.views.len(), number, "the views are {keys}");
        self
    }

    /// So many events failed; `check` looks at the last reason.
    ///
    /// # Panics
    /// When more or less did, and when `check` does.
    pub fn then_failures(self, number: usize, check: impl FnOnce(&str)) {
        let failures = &self.failures;
        assert_eq!(failures.len(), number, "the failures are {failures:?}");
        if let Some(last) = failures.last() {
            check(last);
        }
    }

    fn no_failures(&self) {
        let failures = &self.failures;
        assert!(failures.is_empty(), "events failed: {failures:?}");
    }

    fn keys(&self) -> String {
        let keys: Vec<_> = self.views.keys().map(String::as_str).collect();
        keys.join(", ")
    }
}
