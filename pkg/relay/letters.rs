use std::collections::HashMap;

use bson::raw::cstr;
use bson::{DateTime, RawDocument, RawDocumentBuf};
use uuid::Uuid;

use crate::document::{DocumentId, DocumentKey, Version};
use crate::error::{BoxError, Error, ErrorKind, Result};
use crate::event::EventId;
use crate::storage::backend::{Record, RecordWrite};

pub(super) const DEAD_LETTER: &str = "dead_letter";
pub(super) const PARKED: &str = "parked";

/// The longest error text kept, in bytes: ten thousand of them stay within ten megabytes.
const MAX_ERROR_BYTES: usize = 1_000;

/// An event that a bus would not take. Its document is parked: this event and the later ones of the
/// document are held back in the log.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The document.
    pub document: DocumentKey,
    /// The version that the event belongs to.
    pub version: Version,
    /// The event's place among those of the version.
    pub index: u32,
    /// The event's identity.
    pub event: EventId,
    /// The event's type.
    pub event_type: String,
    /// What the last attempt failed with.
    pub error: String,
    /// How many attempts were made.
    pub attempts: u32,
    /// When it was given up, by the relay's clock.
    pub at: DateTime,
}

impl DeadLetter {
    /// Writes the letter, and parks its document at the letter's version.
    pub(super) fn to_records(&self, store: Uuid) -> Vec<RecordWrite> {
        let mut error = self.error.clone();
        let mut end = error.len().min(MAX_ERROR_BYTES);
        while !error.is_char_boundary(end) {
            end -= 1;
        }
        error.truncate(end);
        let mut letter = address(&self.document, self.version);
        letter.append(cstr!("index"), i64::from(self.index));
        letter.append(cstr!("event"), self.event.to_string());
        letter.append(cstr!("type"), self.event_type.as_str());
        letter.append(cstr!("error"), error);
        letter.append(cstr!("attempts"), i64::from(self.attempts));
        letter.append(cstr!("at"), self.at);
        let put = |kind: &str, value| {
            RecordWrite::Put(Record {
                kind: kind.to_owned(),
                key: record_key(store, &self.document),
                value,
            })
        };
        vec![
            put(DEAD_LETTER, letter),
            put(PARKED, address(&self.document, self.version)),
        ]
    }

    /// Deletes what [`to_records`](Self::to_records) wrote for a document.
    pub(super) fn forget(store: Uuid, document: &DocumentKey) -> Vec<RecordWrite> {
        [DEAD_LETTER, PARKED]
            .map(|kind| RecordWrite::Delete {
                kind: kind.to_owned(),
                key: record_key(store, document),
            })
            .into()
    }

    pub(super) fn from_record(record: &Record) -> Result<Self> {
        let read = || -> std::result::Result<Self, BoxError> {
            let raw = &record.value;
            let (document, version) = read_address(raw)?;
            Ok(Self {
                document,
                version,
                index: u32::try_from(raw.get_i64("index")?)?,
                event: raw.get_str("event")?.parse::<Uuid>()?.into(),
                event_type: raw.get_str("type")?.to_owned(),
                error: raw.get_str("error")?.to_owned(),
                attempts: u32::try_from(raw.get_i64("attempts")?)?,
                at: raw.get_datetime("at")?,
            })
        };
        read().map_err(|e| corrupt(record, e))
    }
}

/// The parked documents, each with the version from which on its events are held back.
pub(super) type Parked = HashMap<DocumentKey, Version>;

pub(super) fn parked_from_record(record: &Record) -> Result<(DocumentKey, Version)> {
    read_address(&record.value).map_err(|e| corrupt(record, e))
}

/// One record per document. Not its name, which may be longer than a record's key can be, and is the
/// same for the integer 1 and the string "1".
pub(super) fn record_key(store: Uuid, document: &DocumentKey) -> String {
    EventId::derive(store, document, Version::NONE, 0).to_string()
}

fn address(document: &DocumentKey, version: Version) -> RawDocumentBuf {
    let mut raw = RawDocumentBuf::new();
    raw.append(cstr!("collection"), document.collection());
    raw.append(cstr!("document"), document.id().to_raw());
    raw.append(cstr!("version"), version.to_i64());
    raw
}

fn read_address(raw: &RawDocument) -> std::result::Result<(DocumentKey, Version), BoxError> {
    let id = DocumentId::from_bson(raw.get("document")?.ok_or("document is missing")?)?;
    let version = u64::try_from(raw.get_i64("version")?)?;
    let document = DocumentKey::new(raw.get_str("collection")?, id);
    Ok((document, Version::new(version)))
}

fn corrupt(record: &Record, source: BoxError) -> Error {
    let Record { kind, key, .. } = record;
    Error::new(
        ErrorKind::Corrupt,
        format!("record {key} of kind {kind} does not read back"),
    )
    .with_source(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_read_back() {
        let letter = DeadLetter {
            document: DocumentKey::new("users", 1),
            version: Version::new(7),
            index: 2,
            event: Uuid::from_u128(5).into(),
            event_type: "UserCreated".into(),
            error: "값".repeat(1_000),
            attempts: 5,
            at: DateTime::from_millis(1),
        };
        let records: Vec<_> = letter
            .to_records(Uuid::nil())
            .into_iter()
            .map(|write| match write {
                RecordWrite::Put(record) => record,
                other => panic!("{other:?}"),
            })
            .collect();
        let back = DeadLetter::from_record(&records[0]).unwrap();
        assert_eq!(back.error.len(), 999);
        let expected = DeadLetter {
            error: back.error.clone(),
            ..letter.clone()
        };
        assert_eq!(back, expected);
        let parked = parked_from_record(&records[1]).unwrap();
        assert_eq!(parked, (letter.document, letter.version));
        assert!(DeadLetter::from_record(&records[1]).is_err());
    }
}
