//! Events for the unit tests of this room.

use bson::DateTime;
use serde_json::json;
use uuid::Uuid;

use crate::document::{DocumentKey, Version};
use crate::event::{Event, EventId, EventParts, Metadata};

/// An event about `users/u1`; its id follows from the version.
pub(super) fn event(event_type: &str, version: u64) -> Event {
    let document = DocumentKey::new("users", "u1");
    let version = Version::new(version);
    Event::from_parts(EventParts {
        id: EventId::derive(Uuid::nil(), &document, version, 0),
        event_type: event_type.into(),
        aggregate_type: "User".into(),
        document,
        version,
        index: 0,
        time: DateTime::from_millis(0),
        schema: 1,
        data: json!({ "secret": true }),
        metadata: Metadata::default(),
    })
}
