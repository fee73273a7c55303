use std::fmt;
use std::sync::Arc;

use bson::DateTime;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::Metadata;
use crate::document::{DocumentId, DocumentKey, Version};
use crate::error::{Error, ErrorKind, Result};

/// The identity of an event, the same however often it is mapped, published or delivered.
///
/// A version 5 UUID (RFC 9562) in the namespace of the store's own UUID over collection, id, version
/// and index, so two stores that publish on one stream share none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventId(Uuid);

impl EventId {
    /// The id of the event at `index` among those of version `version` of `document`.
    #[must_use]
    pub fn derive(store: Uuid, document: &DocumentKey, version: Version, index: u32) -> Self {
        let id = document.id();
        let (tag, id) = match id {
            DocumentId::Int(_) => ('i', id.to_string()),
            DocumentId::String(_) => ('s', id.to_string()),
            DocumentId::Uuid(_) => ('u', id.to_string()),
            DocumentId::ObjectId(_) => ('o', id.to_string()),
        };
        // NUL occurs in no name, so different parts never run into the same text.
        let name = format!("{}\0{tag}{id}\0{version}\0{index}", document.collection());
        Self(Uuid::new_v5(&store, name.as_bytes()))
    }

    /// The UUID.
    #[must_use]
    pub fn as_uuid(&self) -> Uuid {
        self.0
    }
}

impl From<Uuid> for EventId {
    fn from(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A domain event as a mapper or closure makes it: type, data and schema number. The engine adds the
/// rest of the [envelope](Event).
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent {
    pub(crate) event_type: Arc<str>,
    pub(crate) schema: u32,
    pub(crate) data: NewData,
}

/// What a new event carries.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum NewData {
    /// The mapper's own JSON.
    Json(Value),
    /// `{ diff, merge_patch }` of the change, stored once as the log entry's patch and rendered when
    /// the event is read.
    Change,
}

/// The longest event type, in bytes: brokers carry it in subjects and headers.
const MAX_TYPE_BYTES: usize = 256;

impl NewEvent {
    /// An event of a type in the past tense (`"OrderShipped"`), with schema number 1.
    ///
    /// # Errors
    /// `Serialization` if `data` has no JSON form, `InvalidName` for a type that is empty, longer than
    /// 256 bytes, or has control characters.
    pub fn new(event_type: impl Into<Arc<str>>, data: impl Serialize) -> Result<Self> {
        let event_type = event_type.into();
        let data = serde_json::to_value(data).map_err(|e| {
            Error::new(
                ErrorKind::Serialization,
                format!("data of event {event_type} has no JSON form"),
            )
            .with_source(e)
        })?;
        Self::with_data(event_type, NewData::Json(data))
    }

    /// As [`new`](Self::new), of data that is JSON already.
    pub(crate) fn of_json(event_type: Arc<str>, data: Value) -> Result<Self> {
        Self::with_data(event_type, NewData::Json(data))
    }

    /// An event whose data is the change itself: `{ "diff": …, "merge_patch": … }`, rendered from the
    /// log entry when it is read and stored nowhere twice.
    ///
    /// # Errors
    /// `InvalidName` as for [`new`](Self::new).
    pub fn of_change(event_type: impl Into<Arc<str>>) -> Result<Self> {
        Self::with_data(event_type.into(), NewData::Change)
    }

    fn with_data(event_type: Arc<str>, data: NewData) -> Result<Self> {
        validate_event_type(&event_type)?;
        Ok(Self {
            event_type,
            schema: 1,
            data,
        })
    }

    /// Sets the schema number of the data, from 1.
    #[must_use]
    pub fn with_schema(mut self, schema: u32) -> Self {
        self.schema = schema;
        self
    }

    /// The type.
    #[must_use]
    pub fn event_type(&self) -> &str {
        &self.event_type
    }

    /// The mapper's own data; `None` for [`of_change`](Self::of_change).
    #[must_use]
    pub fn data(&self) -> Option<&Value> {
        match &self.data {
            NewData::Json(value) => Some(value),
            NewData::Change => None,
        }
    }
}

pub(crate) fn validate_event_type(name: &str) -> Result<()> {
    let reason = if name.is_empty() {
        "is empty".to_owned()
    } else if name.len() > MAX_TYPE_BYTES {
        format!(
            "has {} bytes, at most {MAX_TYPE_BYTES} are allowed",
            name.len()
        )
    } else if name.chars().any(char::is_control) {
        "contains a control character".to_owned()
    } else {
        return Ok(());
    };
    Err(Error::new(
        ErrorKind::InvalidName,
        format!("event type {reason}"),
    ))
}

/// A domain event with its envelope. Cheap to clone.
#[derive(Debug, Clone, PartialEq)]
pub struct Event(Arc<EventParts>);

/// The fields of an [`Event`], for code that builds or takes apart envelopes: serializers, upcasters
/// and tests.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::exhaustive_structs)]
pub struct EventParts {
    /// The same for every delivery of the same event.
    pub id: EventId,
    /// In the past tense: `UserEmailChanged`.
    pub event_type: Arc<str>,
    /// What kind of thing the event is about: `User`.
    pub aggregate_type: Arc<str>,
    /// Collection and id of the document the event is about.
    pub document: DocumentKey,
    /// The document's version that the change made.
    pub version: Version,
    /// The event's place among those of the same version, from 0.
    pub index: u32,
    /// When the change was committed, by the committing client's clock; for people, not for order.
    pub time: DateTime,
    /// The schema number of the data.
    pub schema: u32,
    /// The payload.
    pub data: Value,
    /// Where the change came from.
    pub metadata: Metadata,
}

impl Event {
    /// Puts an envelope together.
    #[must_use]
    pub fn from_parts(parts: EventParts) -> Self {
        Self(Arc::new(parts))
    }

    /// Takes the envelope apart, cloning it if it is shared.
    #[must_use]
    pub fn into_parts(self) -> EventParts {
        Arc::unwrap_or_clone(self.0)
    }

    /// The event's identity: consumers drop an id they have seen.
    #[must_use]
    pub fn id(&self) -> EventId {
        self.0.id
    }

    /// The type, in the past tense.
    #[must_use]
    pub fn event_type(&self) -> &str {
        &self.0.event_type
    }

    /// What kind of thing the event is about.
    #[must_use]
    pub fn aggregate_type(&self) -> &str {
        &self.0.aggregate_type
    }

    /// The id of the document the event is about.
    #[must_use]
    pub fn aggregate_id(&self) -> &DocumentId {
        self.0.document.id()
    }

    /// The collection of the document the event is about.
    #[must_use]
    pub fn collection(&self) -> &str {
        self.0.document.collection()
    }

    /// Collection and id.
    #[must_use]
    pub fn document(&self) -> &DocumentKey {
        &self.0.document
    }

    /// The document's version that the change made. A consumer drops what is not above the last
    /// `(version, index)` it saw of a document.
    #[must_use]
    pub fn version(&self) -> Version {
        self.0.version
    }

    /// The event's place among those of the same version, from 0.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.0.index
    }

    /// When the change was committed, by the committing client's clock.
    #[must_use]
    pub fn time(&self) -> DateTime {
        self.0.time
    }

    /// The schema number of the data.
    #[must_use]
    pub fn schema(&self) -> u32 {
        self.0.schema
    }

    /// The payload.
    #[must_use]
    pub fn data(&self) -> &Value {
        &self.0.data
    }

    /// The payload as a type of yours.
    ///
    /// # Errors
    /// `Serialization` if the payload has another shape.
    pub fn data_as<T: DeserializeOwned>(&self) -> Result<T> {
        T::deserialize(&self.0.data).map_err(|e| {
            Error::new(
                ErrorKind::Serialization,
                format!(
                    "data of event {} of {} at version {} is not a {}",
                    self.event_type(),
                    self.document(),
                    self.version(),
                    std::any::type_name::<T>()
                ),
            )
            .with_source(e)
        })
    }

    /// The event as a variant of an enum that is tagged externally, as an aggregate's events are: the type is
    /// the variant's name, the payload what is in it.
    ///
    /// ```
    /// # use nodestorage::{Event, Result};
    /// use serde::Deserialize;
    ///
    /// #[derive(Deserialize)]
    /// enum AccountEvent {
    ///     MoneyDeposited { amount: i64 },
    ///     AccountClosed,
    /// }
    ///
    /// fn amount(event: &Event) -> Result<i64> {
    ///     Ok(match event.typed()? {
    ///         AccountEvent::MoneyDeposited { amount } => amount,
    ///         AccountEvent::AccountClosed => 0,
    ///     })
    /// }
    /// ```
    ///
    /// # Errors
    /// `Serialization` for an event that the enum does not know, or of another shape.
    pub fn typed<E: DeserializeOwned>(&self) -> Result<E> {
        read_variant(self.event_type(), self.data().clone()).map_err(|e| {
            Error::new(
                ErrorKind::Serialization,
                format!(
                    "{} of {} at version {} is no {}",
                    self.event_type(),
                    self.document(),
                    self.version(),
                    std::any::type_name::<E>()
                ),
            )
            .with_source(e)
        })
    }

    /// Where the change came from.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.0.metadata
    }

    /// What a partitioned bus must keep in order: events with the same key are delivered in order.
    #[must_use]
    pub fn partition_key(&self) -> String {
        self.0.document.to_string()
    }
}

/// Reads the variant of this name of an externally tagged enum.
pub(crate) fn read_variant<E: DeserializeOwned>(name: &str, data: Value) -> serde_json::Result<E> {
    let mut tagged = serde_json::Map::with_capacity(1);
    tagged.insert(name.to_owned(), data);
    serde_json::from_value(Value::Object(tagged))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_ids_depend_on_every_part_and_on_nothing_else() {
        let store = Uuid::from_u128(1);
        let key = DocumentKey::new("users", "1");
        let id = EventId::derive(store, &key, Version::new(3), 0);
        assert_eq!(id, EventId::derive(store, &key, Version::new(3), 0));
        let others = [
            EventId::derive(Uuid::from_u128(2), &key, Version::new(3), 0),
            EventId::derive(store, &DocumentKey::new("users", 1), Version::new(3), 0),
            EventId::derive(store, &DocumentKey::new("user", "1"), Version::new(3), 0),
            EventId::derive(store, &key, Version::new(30), 0),
            EventId::derive(store, &key, Version::new(3), 1),
        ];
        assert!(others.iter().all(|other| *other != id));
    }

    #[test]
    fn event_types_are_checked() {
        for name in ["", "a\nb", &"x".repeat(257)] {
            let error = NewEvent::new(name, ()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidName);
        }
    }
}
