use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::{EventSerializer, id_from_text, id_type, no_event, time_from_text, time_to_text};
use crate::document::{DocumentKey, Version};
use crate::error::{BoxError, Error, ErrorKind, Result};
use crate::event::{Event, EventParts, Metadata, validate_event_type};

/// CloudEvents 1.0 in the JSON event format, structured mode; the default on every bus.
///
/// Core attributes: `id`, `source` (`/` and the collection, percent-encoded), `type`, `subject` (the
/// document id as text), `time`, `datacontenttype`. Extensions: `collection`, `subjecttype` (`string`,
/// `int`, `uuid` or `objectid`), `aggregatetype`, `aggregateversion`, `eventindex`, `schemaversion`,
/// `partitionkey`, and where set `correlationid`, `causationid`, `actor`, `tenant`, `traceparent`,
/// `tracestate` and `metadata` (a JSON object as text).
///
/// Sources: CloudEvents specification 1.0.2; its JSON format; the extensions "Distributed Tracing" and
/// "Partitioning".
#[derive(Debug, Clone, Copy, Default)]
pub struct CloudEvents;

#[derive(Serialize, Deserialize)]
struct Wire {
    specversion: String,
    id: Uuid,
    source: String,
    #[serde(rename = "type")]
    event_type: String,
    subject: String,
    time: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    datacontenttype: Option<String>,
    collection: String,
    subjecttype: String,
    aggregatetype: String,
    aggregateversion: Integer,
    eventindex: Integer,
    schemaversion: Integer,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    partitionkey: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    correlationid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    causationid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    actor: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tracestate: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metadata: Option<String>,
    #[serde(default)]
    data: Value,
}

/// An attribute of the specification's type Integer, which has 32 bits: larger numbers travel as text.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Integer {
    Number(u64),
    Text(String),
}

impl Integer {
    fn new(number: u64) -> Self {
        match i32::try_from(number) {
            Ok(_) => Self::Number(number),
            Err(_) => Self::Text(number.to_string()),
        }
    }

    fn get(&self) -> std::result::Result<u64, BoxError> {
        match self {
            Self::Number(number) => Ok(*number),
            Self::Text(text) => Ok(text.parse()?),
        }
    }
}

impl EventSerializer for CloudEvents {
    fn content_type(&self) -> &'static str {
        "application/cloudevents+json"
    }

    fn serialize(&self, event: &Event) -> Result<Vec<u8>> {
        let failed = |e: serde_json::Error| {
            Error::new(
                ErrorKind::Serialization,
                format!("event {} has no JSON form", event.id()),
            )
            .with_source(e)
        };
        let meta = event.metadata();
        let metadata = if meta.extra.is_empty() {
            None
        } else {
            Some(serde_json::to_string(&meta.extra).map_err(failed)?)
        };
        let wire = Wire {
            specversion: "1.0".to_owned(),
            id: event.id().as_uuid(),
            source: format!("/{}", percent_encoded(event.collection())),
            event_type: event.event_type().to_owned(),
            subject: event.aggregate_id().to_string(),
            time: time_to_text(event.time())?,
            datacontenttype: Some("application/json".to_owned()),
            collection: event.collection().to_owned(),
            subjecttype: id_type(event.aggregate_id()).to_owned(),
            aggregatetype: event.aggregate_type().to_owned(),
            aggregateversion: Integer::new(event.version().get()),
            eventindex: Integer::new(event.index().into()),
            schemaversion: Integer::new(event.schema().into()),
            partitionkey: Some(event.partition_key()),
            correlationid: meta.correlation.clone(),
            causationid: meta.causation.clone(),
            actor: meta.actor.clone(),
            tenant: meta.tenant.clone(),
            traceparent: meta.traceparent.clone(),
            tracestate: meta.tracestate.clone(),
            metadata,
            data: event.data().clone(),
        };
        serde_json::to_vec(&wire).map_err(failed)
    }

    fn deserialize(&self, bytes: &[u8]) -> Result<Event> {
        let wire: Wire =
            serde_json::from_slice(bytes).map_err(|e| no_event("CloudEvents JSON", e))?;
        wire.into_event()
            .map_err(|e| no_event("CloudEvents JSON", e))
    }
}

impl Wire {
    fn into_event(self) -> std::result::Result<Event, BoxError> {
        if self.specversion != "1.0" {
            return Err(format!("specversion is {:?}, not 1.0", self.specversion).into());
        }
        validate_event_type(&self.event_type)?;
        let extra: BTreeMap<String, String> = match &self.metadata {
            Some(text) => serde_json::from_str(text)?,
            None => BTreeMap::new(),
        };
        Ok(Event::from_parts(EventParts {
            id: self.id.into(),
            event_type: self.event_type.into(),
            aggregate_type: self.aggregatetype.into(),
            document: DocumentKey::new(
                self.collection,
                id_from_text(&self.subjecttype, &self.subject)?,
            ),
            version: Version::new(self.aggregateversion.get()?),
            index: u32::try_from(self.eventindex.get()?)?,
            time: time_from_text(&self.time)?,
            schema: u32::try_from(self.schemaversion.get()?)?,
            data: self.data,
            metadata: Metadata {
                correlation: self.correlationid,
                causation: self.causationid,
                actor: self.actor,
                tenant: self.tenant,
                traceparent: self.traceparent,
                tracestate: self.tracestate,
                extra,
            },
        }))
    }
}

/// A path segment of a URI reference: RFC 3986, section 2.3, unreserved characters stay.
fn percent_encoded(text: &str) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}
