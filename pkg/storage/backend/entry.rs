use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bson::raw::cstr;
use bson::spec::BinarySubtype;
use bson::{
    Binary, Bson, DateTime, RawArrayBuf, RawBson, RawBsonRef, RawDocument, RawDocumentBuf,
    Timestamp,
};
use serde_json::Value;
use uuid::Uuid;

use super::position::Position;
use crate::document::{DocumentId, DocumentKey, Patch, Version};
use crate::error::{BoxError, Error, ErrorKind, Result};
use crate::event::{EventId, Metadata, json};

/// How many partitions the log is divided into, so that several relays can share the work. Part of the
/// stored format: never changed.
pub const PARTITIONS: u32 = 64;

/// What a log entry records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EntryKind {
    /// The document came into being.
    Created,
    /// The document changed, or events were emitted without a change.
    Updated,
    /// The document was deleted.
    Deleted,
    /// The storage found the document in a state that it had not written itself, and took it over:
    /// written, changed, restored or deleted by another program. Carries no events.
    Adopted,
    /// An event was appended to a stream, or an update emitted events where there was no document.
    Appended,
}

impl EntryKind {
    /// The name in the stored form.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Deleted => "deleted",
            Self::Adopted => "adopted",
            Self::Appended => "appended",
        }
    }
}

impl fmt::Display for EntryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for EntryKind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        [
            Self::Created,
            Self::Updated,
            Self::Deleted,
            Self::Adopted,
            Self::Appended,
        ]
        .into_iter()
        .find(|kind| kind.as_str() == name)
        .ok_or_else(|| {
            Error::new(
                ErrorKind::Corrupt,
                format!("unknown log entry kind {name:?}"),
            )
        })
    }
}

/// One version of one document in the log.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::exhaustive_structs)]
pub struct LogEntry {
    /// The document.
    pub key: DocumentKey,
    /// The version that this entry made. One above the entry before, except for
    /// [`Adopted`](EntryKind::Adopted), which passes over versions that other programs used.
    pub version: Version,
    /// Given by the store at commit; [`Position::START`] before.
    pub position: Position,
    /// When the change was committed, by the committing client's clock.
    pub at: DateTime,
    /// The commit it belonged to: a version 7 UUID.
    pub commit: Uuid,
    /// What happened.
    pub kind: EntryKind,
    /// From the version before to this one, without `_id` and the version field; on
    /// [`Updated`](EntryKind::Updated).
    pub patch: Option<Patch>,
    /// The whole document after the change, on [`Created`](EntryKind::Created), on
    /// [`Adopted`](EntryKind::Adopted) unless the document was gone, and on every 100th version.
    pub after: Option<RawDocumentBuf>,
    /// The events of the change, in order.
    pub events: Vec<LoggedEvent>,
    /// What kind of thing the document is, for its events.
    pub aggregate_type: String,
    /// The name of the document's version field.
    pub version_field: Arc<str>,
    /// Where the change came from.
    pub metadata: Metadata,
}

/// The version field's name in the stored form, where it is not this one.
const DEFAULT_VERSION_FIELD: &str = "version";

/// An event as the log keeps it: what the entry does not say already.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::exhaustive_structs)]
pub struct LoggedEvent {
    /// The event's identity.
    pub id: EventId,
    /// The type.
    pub event_type: String,
    /// The schema number of the data.
    pub schema: u32,
    /// The payload.
    pub data: LoggedData,
}

/// The payload of a logged event.
#[derive(Debug, Clone, PartialEq)]
pub enum LoggedData {
    /// As the mapper made it.
    Json(Value),
    /// The change itself, rendered from the entry when it is read. The merge patch is kept where the
    /// entry's patch alone does not determine it, that is where it edits arrays.
    Change {
        /// The RFC 7396 merge patch, if it had to be kept.
        merge_patch: Option<Value>,
    },
}

impl LogEntry {
    /// The partition of a document: an FNV-1a hash of collection and id, modulo [`PARTITIONS`].
    #[must_use]
    pub fn partition(key: &DocumentKey) -> u32 {
        // Offset basis and prime of the 64-bit FNV-1a hash.
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        let mut feed = |bytes: &[u8]| {
            for byte in bytes {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            }
        };
        feed(key.collection().as_bytes());
        feed(&[0]);
        feed(key.id().to_string().as_bytes());
        (hash % u64::from(PARTITIONS)) as u32
    }

    /// The stored form:
    ///
    /// ```text
    /// _id:       { c: collection, d: document id, v: version (Int64) }
    /// position:  Timestamp; (0, 0) asks the server to fill it in
    /// at:        Date          commit: UUID          kind: String
    /// patch:     see Patch     after:  Document
    /// events:    [ { id: UUID, type: String, schema: Int32, data: any | change: merge patch or null } ]
    /// part:      Int32         aggregate: String     meta: Document
    /// field:     String, the version field, where it is not "version"
    /// ```
    ///
    /// # Errors
    /// `Serialization` if an event's payload has no BSON form.
    pub fn to_raw(&self) -> Result<RawDocumentBuf> {
        let mut raw = RawDocumentBuf::new();
        raw.append(cstr!("_id"), log_id(&self.key, self.version));
        raw.append(cstr!("position"), Timestamp::from(self.position));
        raw.append(cstr!("at"), self.at);
        raw.append(cstr!("commit"), uuid_to_raw(self.commit));
        raw.append(cstr!("kind"), self.kind.as_str());
        if let Some(patch) = &self.patch {
            raw.append(cstr!("patch"), patch.to_raw()?);
        }
        if let Some(after) = &self.after {
            raw.append(cstr!("after"), after);
        }
        if !self.events.is_empty() {
            let mut events = RawArrayBuf::new();
            for event in &self.events {
                events.push(event.to_raw()?);
            }
            raw.append(cstr!("events"), events);
        }
        raw.append(cstr!("part"), Self::partition(&self.key) as i32);
        raw.append(cstr!("aggregate"), self.aggregate_type.as_str());
        if &*self.version_field != DEFAULT_VERSION_FIELD {
            raw.append(cstr!("field"), &*self.version_field);
        }
        if !self.metadata.is_empty() {
            let meta = bson::serialize_to_raw_document_buf(&self.metadata)
                .map_err(|e| Error::new(ErrorKind::Serialization, "metadata").with_source(e))?;
            raw.append(cstr!("meta"), meta);
        }
        Ok(raw)
    }

    /// About how many bytes the stored form has, without making it.
    pub(crate) fn estimated_bytes(&self) -> usize {
        // Keys and ids are bounded; a kilobyte each is generous.
        4_096 + self.content_bytes(512)
    }

    /// About how many bytes it takes, for whoever bounds what is read ahead.
    pub(crate) fn approximate_bytes(&self) -> usize {
        256 + self.content_bytes(64)
    }

    /// The bytes of documents, patch and payloads, and so many for the rest of each event.
    fn content_bytes(&self, per_event: usize) -> usize {
        let after = self.after.as_ref().map_or(0, |it| it.as_bytes().len());
        let patch = self.patch.as_ref().map_or(0, Patch::estimated_bytes);
        let events = self.events.iter().map(|event| match &event.data {
            LoggedData::Json(value)
            | LoggedData::Change {
                merge_patch: Some(value),
            } => per_event + json_bytes(value),
            LoggedData::Change { merge_patch: None } => per_event,
        });
        after + patch + events.sum::<usize>()
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// `Corrupt`, naming the entry, for anything that [`to_raw`](Self::to_raw) does not write.
    pub fn from_raw(raw: &RawDocument) -> Result<Self> {
        let (key, version) = read_log_id(raw)?;
        Self::read(raw, key.clone(), version)
            .map_err(|e| corrupt(format!("log entry {version} of {key}"), e))
    }

    fn read(
        raw: &RawDocument,
        key: DocumentKey,
        version: Version,
    ) -> std::result::Result<Self, BoxError> {
        let mut events = Vec::new();
        if let Some(stored) = raw.get("events")? {
            for event in stored.as_array().ok_or("events is no array")? {
                let event = event?.as_document().ok_or("an event is no document")?;
                events.push(LoggedEvent::from_raw(event)?);
            }
        }
        let metadata = match raw.get("meta")? {
            Some(RawBsonRef::Document(meta)) => bson::deserialize_from_slice(meta.as_bytes())?,
            Some(_) => return Err("meta is no document".into()),
            None => Metadata::default(),
        };
        let after = match raw.get("after")? {
            Some(RawBsonRef::Document(after)) => Some(after.to_owned()),
            Some(_) => return Err("after is no document".into()),
            None => None,
        };
        Ok(Self {
            key,
            version,
            position: raw.get_timestamp("position")?.into(),
            at: raw.get_datetime("at")?,
            commit: uuid_from_raw(raw.get("commit")?.ok_or("commit is missing")?)?,
            kind: raw.get_str("kind")?.parse()?,
            patch: raw.get("patch")?.map(Patch::from_raw).transpose()?,
            after,
            events,
            aggregate_type: raw.get_str("aggregate")?.to_owned(),
            version_field: match raw.get("field")? {
                Some(field) => field.as_str().ok_or("field is no string")?.into(),
                None => DEFAULT_VERSION_FIELD.into(),
            },
            metadata,
        })
    }
}

impl LoggedEvent {
    fn to_raw(&self) -> Result<RawDocumentBuf> {
        let mut raw = RawDocumentBuf::new();
        raw.append(cstr!("id"), uuid_to_raw(self.id.as_uuid()));
        raw.append(cstr!("type"), self.event_type.as_str());
        raw.append(cstr!("schema"), self.schema as i32);
        let (name, value) = match &self.data {
            LoggedData::Json(value) => (cstr!("data"), value),
            LoggedData::Change {
                merge_patch: Some(value),
            } => (cstr!("change"), value),
            LoggedData::Change { merge_patch: None } => (cstr!("change"), &Value::Null),
        };
        let value = json::to_bson(value)
            .and_then(|value| {
                RawBson::try_from(value).map_err(|e| {
                    Error::new(ErrorKind::Serialization, "has no BSON form").with_source(e)
                })
            })
            .map_err(|e| e.context(format!("data of event {}", self.event_type)))?;
        raw.append(name, value);
        Ok(raw)
    }

    fn from_raw(raw: &RawDocument) -> std::result::Result<Self, BoxError> {
        let json_of = |value: RawBsonRef<'_>| -> std::result::Result<Value, BoxError> {
            Ok(json::from_bson(Bson::try_from(value)?))
        };
        let data = match (raw.get("data")?, raw.get("change")?) {
            (Some(data), _) => LoggedData::Json(json_of(data)?),
            (None, Some(RawBsonRef::Null)) => LoggedData::Change { merge_patch: None },
            (None, Some(patch)) => LoggedData::Change {
                merge_patch: Some(json_of(patch)?),
            },
            (None, None) => return Err("an event has neither data nor change".into()),
        };
        Ok(Self {
            id: uuid_from_raw(raw.get("id")?.ok_or("an event has no id")?)?.into(),
            event_type: raw.get_str("type")?.to_owned(),
            schema: u32::try_from(raw.get_i32("schema")?)?,
            data,
        })
    }
}

/// No less than the BSON of a JSON value takes: an element has a type byte, a key of its own or an index
/// of up to ten digits, and at most nine bytes beside its text.
fn json_bytes(value: &Value) -> usize {
    match value {
        Value::String(text) => 20 + text.len(),
        Value::Array(items) => 20 + items.iter().map(json_bytes).sum::<usize>(),
        Value::Object(fields) => {
            let fields = fields.iter();
            20 + fields
                .map(|(key, value)| key.len() + json_bytes(value))
                .sum::<usize>()
        }
        _ => 20,
    }
}

/// The `_id` of a log entry: `{ c, d, v }`.
pub(crate) fn log_id(key: &DocumentKey, version: Version) -> RawDocumentBuf {
    let mut id = RawDocumentBuf::new();
    id.append(cstr!("c"), key.collection());
    id.append(cstr!("d"), key.id().to_raw());
    id.append(cstr!("v"), version.to_i64());
    id
}

/// Reads document and version out of a stored entry's `_id`.
pub(crate) fn read_log_id(raw: &RawDocument) -> Result<(DocumentKey, Version)> {
    let read = || -> std::result::Result<_, BoxError> {
        let id = raw.get_document("_id")?;
        let document = DocumentId::from_bson(id.get("d")?.ok_or("d is missing")?)?;
        let version = u64::try_from(id.get_i64("v")?)?;
        let key = DocumentKey::new(id.get_str("c")?, document);
        Ok((key, Version::new(version)))
    };
    read().map_err(|e| corrupt("log entry key".to_owned(), e))
}

fn corrupt(what: String, source: BoxError) -> Error {
    Error::new(ErrorKind::Corrupt, format!("{what} does not read back")).with_source(source)
}

fn uuid_to_raw(uuid: Uuid) -> Binary {
    Binary {
        subtype: BinarySubtype::Uuid,
        bytes: uuid.as_bytes().to_vec(),
    }
}

fn uuid_from_raw(value: RawBsonRef<'_>) -> std::result::Result<Uuid, BoxError> {
    let binary = value.as_binary().ok_or("expected a UUID")?;
    Ok(Uuid::from_slice(binary.bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;
    use serde_json::json;

    fn entry() -> LogEntry {
        let key = DocumentKey::new("users", "user123");
        LogEntry {
            version: Version::new(7),
            position: Position::new(1_700_000_000, 3),
            at: DateTime::from_millis(1_700_000_000_123),
            commit: Uuid::from_u128(9),
            kind: EntryKind::Updated,
            patch: Some(
                Patch::between(&rawdoc! { "n": 0_i64 }, &rawdoc! { "n": 1_i64 }, &[]).unwrap(),
            ),
            after: Some(rawdoc! { "_id": "user123", "n": 1_i64 }),
            events: vec![
                LoggedEvent {
                    id: EventId::derive(Uuid::nil(), &key, Version::new(7), 0),
                    event_type: "UserUpdated".into(),
                    schema: 1,
                    data: LoggedData::Change { merge_patch: None },
                },
                LoggedEvent {
                    id: EventId::derive(Uuid::nil(), &key, Version::new(7), 1),
                    event_type: "Odd".into(),
                    schema: 2,
                    data: LoggedData::Json(Value::Null),
                },
                LoggedEvent {
                    id: EventId::derive(Uuid::nil(), &key, Version::new(7), 2),
                    event_type: "Kept".into(),
                    schema: 1,
                    data: LoggedData::Change {
                        merge_patch: Some(json!({"tags": ["a", {"$ref": 1}]})),
                    },
                },
            ],
            aggregate_type: "User".into(),
            version_field: "rev".into(),
            metadata: Metadata::new().with_actor("me").with_extra("k", "v"),
            key,
        }
    }

    #[test]
    fn the_stored_form_reads_back() {
        let entry = entry();
        assert_eq!(LogEntry::from_raw(&entry.to_raw().unwrap()).unwrap(), entry);
    }

    #[test]
    fn a_damaged_entry_is_named() {
        let mut raw = RawDocumentBuf::new();
        raw.append(cstr!("_id"), log_id(&entry().key, Version::new(7)));
        let error = LogEntry::from_raw(&raw).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("7 of users/user123"), "{error}");
        assert!(LogEntry::from_raw(&RawDocumentBuf::new()).is_err());
    }

    #[test]
    fn partitions_are_part_of_the_format() {
        // A change of these numbers would send a document's events through two relays at once.
        assert_eq!(
            LogEntry::partition(&DocumentKey::new("users", "user123")),
            50
        );
        assert_eq!(LogEntry::partition(&DocumentKey::new("orders", 42)), 38);
    }
}
