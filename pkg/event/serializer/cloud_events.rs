use std::borrow::Cow;
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

/// Borrowed where it is written, owned where it was read.
#[derive(Serialize, Deserialize)]
struct Wire<'a> {
    specversion: Cow<'a, str>,
    id: Uuid,
    source: Cow<'a, str>,
    #[serde(rename = "type")]
    event_type: Cow<'a, str>,
    subject: Cow<'a, str>,
    time: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    datacontenttype: Option<Cow<'a, str>>,
    collection: Cow<'a, str>,
    subjecttype: Cow<'a, str>,
    aggregatetype: Cow<'a, str>,
    aggregateversion: Integer,
    eventindex: Integer,
    schemaversion: Integer,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    partitionkey: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    correlationid: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    causationid: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    actor: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tenant: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    traceparent: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tracestate: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metadata: Option<Cow<'a, str>>,
    #[serde(default)]
    data: Cow<'a, Value>,
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

/// What most events take; a larger one only costs a few reallocations.
const USUAL_BYTES: usize = 1_024;

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
            specversion: "1.0".into(),
            id: event.id().as_uuid(),
            source: format!("/{}", percent_encoded(event.collection())).into(),
            event_type: event.event_type().into(),
            subject: event.aggregate_id().to_string().into(),
            time: time_to_text(event.time())?.into(),
            datacontenttype: Some("application/json".into()),
            collection: event.collection().into(),
            subjecttype: id_type(event.aggregate_id()).into(),
            aggregatetype: event.aggregate_type().into(),
            aggregateversion: Integer::new(event.version().get()),
            eventindex: Integer::new(event.index().into()),
            schemaversion: Integer::new(event.schema().into()),
            partitionkey: Some(event.partition_key().into()),
            correlationid: meta.correlation.as_deref().map(Cow::Borrowed),
            causationid: meta.causation.as_deref().map(Cow::Borrowed),
            actor: meta.actor.as_deref().map(Cow::Borrowed),
            tenant: meta.tenant.as_deref().map(Cow::Borrowed),
            traceparent: meta.traceparent.as_deref().map(Cow::Borrowed),
            tracestate: meta.tracestate.as_deref().map(Cow::Borrowed),
            metadata: metadata.map(Cow::Owned),
            data: Cow::Borrowed(event.data()),
        };
        let mut bytes = Vec::with_capacity(USUAL_BYTES);
        serde_json::to_writer(&mut bytes, &wire).map_err(failed)?;
        Ok(bytes)
    }

    fn deserialize(&self, bytes: &[u8]) -> Result<Event> {
        let wire: Wire<'_> =
            serde_json::from_slice(bytes).map_err(|e| no_event("CloudEvents JSON", e))?;
        wire.into_event()
            .map_err(|e| no_event("CloudEvents JSON", e))
    }
}

impl Wire<'_> {
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
            event_type: self.event_type.as_ref().into(),
            aggregate_type: self.aggregatetype.as_ref().into(),
            document: DocumentKey::new(
                self.collection.as_ref(),
                id_from_text(&self.subjecttype, &self.subject)?,
            ),
            version: Version::new(self.aggregateversion.get()?),
            index: u32::try_from(self.eventindex.get()?)?,
            time: time_from_text(&self.time)?,
            schema: u32::try_from(self.schemaversion.get()?)?,
            data: self.data.into_owned(),
            metadata: Metadata {
                correlation: self.correlationid.map(Cow::into_owned),
                causation: self.causationid.map(Cow::into_owned),
                actor: self.actor.map(Cow::into_owned),
                tenant: self.tenant.map(Cow::into_owned),
                traceparent: self.traceparent.map(Cow::into_owned),
                tracestate: self.tracestate.map(Cow::into_owned),
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
