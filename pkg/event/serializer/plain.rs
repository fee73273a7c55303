use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::{EventSerializer, id_from_text, id_type, no_event, time_from_text, time_to_text};
use crate::document::{DocumentKey, Version};
use crate::error::{BoxError, Error, ErrorKind, Result};
use crate::event::{Event, EventParts, Metadata, validate_event_type};

/// One flat JSON object per event with the envelope's own field names.
///
/// Fields: `id`, `type`, `aggregate_type`, `collection`, `aggregate_id` (text), `id_type` (`string`,
/// `int`, `uuid` or `objectid`), `version`, `index`, `time` (RFC 3339), `schema`, `data`, `metadata`.
#[derive(Debug, Clone, Copy, Default)]
pub struct PlainJson;

#[derive(Serialize, Deserialize)]
struct Wire {
    id: Uuid,
    #[serde(rename = "type")]
    event_type: String,
    aggregate_type: String,
    collection: String,
    aggregate_id: String,
    id_type: String,
    version: u64,
    index: u32,
    time: String,
    schema: u32,
    data: Value,
    #[serde(default)]
    metadata: Metadata,
}

impl EventSerializer for PlainJson {
    fn content_type(&self) -> &'static str {
        "application/json"
    }

    fn serialize(&self, event: &Event) -> Result<Vec<u8>> {
        let wire = Wire {
            id: event.id().as_uuid(),
            event_type: event.event_type().to_owned(),
            aggregate_type: event.aggregate_type().to_owned(),
            collection: event.collection().to_owned(),
            aggregate_id: event.aggregate_id().to_string(),
            id_type: id_type(event.aggregate_id()).to_owned(),
            version: event.version().get(),
            index: event.index(),
            time: time_to_text(event.time())?,
            schema: event.schema(),
            data: event.data().clone(),
            metadata: event.metadata().clone(),
        };
        serde_json::to_vec(&wire).map_err(|e| {
            Error::new(
                ErrorKind::Serialization,
                format!("event {} has no JSON form", event.id()),
            )
            .with_source(e)
        })
    }

    fn deserialize(&self, bytes: &[u8]) -> Result<Event> {
        let wire: Wire = serde_json::from_slice(bytes).map_err(|e| no_event("plain JSON", e))?;
        wire.into_event().map_err(|e| no_event("plain JSON", e))
    }
}

impl Wire {
    fn into_event(self) -> std::result::Result<Event, BoxError> {
        validate_event_type(&self.event_type)?;
        Ok(Event::from_parts(EventParts {
            id: self.id.into(),
            event_type: self.event_type.into(),
            aggregate_type: self.aggregate_type.into(),
            document: DocumentKey::new(
                self.collection,
                id_from_text(&self.id_type, &self.aggregate_id)?,
            ),
            version: Version::new(self.version),
            index: self.index,
            time: time_from_text(&self.time)?,
            schema: self.schema,
            data: self.data,
            metadata: self.metadata,
        }))
    }
}
