//! Events as bytes on a bus.

mod cloud_events;
mod plain;

use bson::DateTime;
use bson::oid::ObjectId;
use uuid::Uuid;

use super::Event;
use crate::document::DocumentId;
use crate::error::{BoxError, Error, ErrorKind, Result};

pub use cloud_events::CloudEvents;
pub use plain::PlainJson;

/// Turns events into the bytes that a bus carries, and back.
pub trait EventSerializer: Send + Sync + std::fmt::Debug + 'static {
    /// The media type of the bytes.
    fn content_type(&self) -> &'static str;

    /// The bytes of an event.
    ///
    /// # Errors
    /// `Serialization` if the event has no such form.
    fn serialize(&self, event: &Event) -> Result<Vec<u8>>;

    /// The event that bytes stand for. Any bytes may come: they never cause a panic.
    ///
    /// # Errors
    /// `Serialization`, saying what is missing or wrong, for bytes that are no event.
    fn deserialize(&self, bytes: &[u8]) -> Result<Event>;
}

fn no_event(format: &str, source: impl Into<BoxError>) -> Error {
    Error::new(
        ErrorKind::Serialization,
        format!("the bytes are no event in {format}"),
    )
    .with_source(source)
}

/// RFC 3339 has the years 0 to 9999; the conversion takes later times for the last of them.
const TIMES: std::ops::RangeInclusive<i64> = -62_167_219_200_000..=253_402_300_799_999;

fn time_to_text(time: DateTime) -> Result<String> {
    let out_of_range = || {
        Error::new(
            ErrorKind::Serialization,
            "the event's time has no RFC 3339 form",
        )
    };
    if !TIMES.contains(&time.timestamp_millis()) {
        return Err(out_of_range());
    }
    time.try_to_rfc3339_string()
        .map_err(|e| out_of_range().with_source(e))
}

/// A time within the years that have an RFC 3339 form, also after the offset is gone.
fn time_from_text(text: &str) -> std::result::Result<DateTime, BoxError> {
    let time = DateTime::parse_rfc3339_str(text)?;
    time_to_text(time)?;
    Ok(time)
}

/// The name of an id's type, where the text alone does not tell `"1"` from `1`.
fn id_type(id: &DocumentId) -> &'static str {
    match id {
        DocumentId::Int(_) => "int",
        DocumentId::String(_) => "string",
        DocumentId::Uuid(_) => "uuid",
        DocumentId::ObjectId(_) => "objectid",
    }
}

fn id_from_text(id_type: &str, text: &str) -> std::result::Result<DocumentId, BoxError> {
    let id = match id_type {
        "int" => DocumentId::Int(text.parse()?),
        "string" => DocumentId::from(text),
        "uuid" => DocumentId::Uuid(Uuid::parse_str(text)?),
        "objectid" => DocumentId::ObjectId(ObjectId::parse_str(text)?),
        other => return Err(format!("unknown id type {other:?}").into()),
    };
    id.validate()?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{DocumentKey, Version};
    use crate::event::{EventId, EventParts, Metadata};
    use serde_json::json;

    fn events() -> Vec<Event> {
        let ids = [
            DocumentId::from("user/1 ü?"),
            DocumentId::from("7"),
            DocumentId::from(7),
            DocumentId::from(Uuid::from_u128(5)),
            DocumentId::from(ObjectId::from_bytes([9; 12])),
        ];
        let all = Metadata::new()
            .with_correlation("c-1")
            .with_causation("e-1")
            .with_actor("me")
            .with_tenant("t")
            .with_trace(
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                Some("a=b".into()),
            )
            .with_extra("Any Key", "\"ü\"");
        let data = [
            json!({"a": [null, true, 1, -1, 1.5, "\u{10FFFF}\n", {}, []], "": 0}),
            json!(null),
            json!("text"),
            json!(i64::MAX),
            json!([0.1, 1e34 / 7.5, f64::MAX, f64::MIN_POSITIVE, -0.0]),
        ];
        ids.into_iter()
            .zip([Metadata::new(), all].into_iter().cycle())
            .zip(data.into_iter().cycle())
            .map(|((id, metadata), data)| {
                let document = DocumentKey::new("app.users", id);
                let version = Version::new(if data.is_null() { 5_000_000_000 } else { 3 });
                Event::from_parts(EventParts {
                    id: EventId::derive(Uuid::nil(), &document, version, 2),
                    event_type: "UserEmailChanged".into(),
                    aggregate_type: "User".into(),
                    document,
                    version,
                    index: 2,
                    time: DateTime::from_millis(1_700_000_000_123),
                    schema: 4,
                    data,
                    metadata,
                })
            })
            .collect()
    }

    #[test]
    fn every_field_survives() {
        let serializers: [&dyn EventSerializer; 2] = [&CloudEvents, &PlainJson];
        for serializer in serializers {
            for event in events() {
                let bytes = serializer.serialize(&event).unwrap();
                assert_eq!(serializer.deserialize(&bytes).unwrap(), event);
            }
        }
    }

    /// Digits beyond a double's, which fuzzing found, and a time that is in the year 10000 without its offset.
    #[test]
    fn what_is_read_can_be_written_and_is_the_same_again() {
        let serializers: [&dyn EventSerializer; 2] = [&CloudEvents, &PlainJson];
        for serializer in serializers {
            let bytes = serializer.serialize(&events()[2]).unwrap();
            let text = String::from_utf8(bytes).unwrap();
            let digits = text.replace("\"text\"", "13333333333333333333333333333333333");
            assert_ne!(digits, text);
            let event = serializer.deserialize(digits.as_bytes()).unwrap();
            let again = serializer.serialize(&event).unwrap();
            assert_eq!(serializer.deserialize(&again).unwrap(), event);
            let late = text.replace("2023-11-14T22:13:20.123Z", "9999-12-31T23:59:59-23:59");
            assert_ne!(late, text);
            let error = serializer.deserialize(late.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Serialization);
        }
    }

    #[test]
    fn damaged_bytes_are_an_error() {
        let serializers: [&dyn EventSerializer; 2] = [&CloudEvents, &PlainJson];
        for serializer in serializers {
            let bytes = serializer.serialize(&events()[0]).unwrap();
            for end in 0..bytes.len() {
                let error = serializer.deserialize(&bytes[..end]).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Serialization);
            }
            for bytes in [
                &b"{}"[..],
                b"[]",
                b"\xff",
                b"null",
                b"{\"specversion\":\"0.3\"}",
            ] {
                assert!(serializer.deserialize(bytes).is_err());
            }
        }
    }
}
