//! Between an aggregate's events and those of the log.

use std::any::type_name;
use std::marker::PhantomData;
use std::sync::Arc;

use serde_json::Value;

use super::Aggregate;
use super::shape::variants_of;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, EventRegistry, NewEvent, read_variant};

/// Turns an aggregate's events into new events and back.
#[derive(Debug)]
pub(super) struct EventCodec<A> {
    types: Option<Vec<Arc<str>>>,
    registry: Option<Arc<EventRegistry>>,
    aggregate: PhantomData<fn() -> A>,
}

impl<A> Clone for EventCodec<A> {
    fn clone(&self) -> Self {
        Self {
            types: self.types.clone(),
            registry: self.registry.clone(),
            aggregate: PhantomData,
        }
    }
}

impl<A: Aggregate> EventCodec<A> {
    pub(super) fn new() -> Self {
        let types = variants_of::<A::Event>();
        Self {
            types: types.map(|names| names.iter().map(|name| Arc::from(*name)).collect()),
            registry: None,
            aggregate: PhantomData,
        }
    }

    pub(super) fn set_registry(&mut self, registry: Arc<EventRegistry>) {
        self.registry = Some(registry);
    }

    /// The types of events there are.
    pub(super) fn types(&self) -> Result<&[Arc<str>]> {
        self.types.as_deref().ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidConfig,
                format!(
                    "the events of {} must be an enum, tagged externally: {} is not",
                    A::TYPE,
                    type_name::<A::Event>()
                ),
            )
        })
    }

    pub(super) fn encode(&self, event: &A::Event) -> Result<NewEvent> {
        let types = self.types()?;
        let value = serde_json::to_value(event).map_err(|e| {
            let what = format!("an event of {} has no JSON form", A::TYPE);
            Error::new(ErrorKind::Serialization, what).with_source(e)
        })?;
        let (name, data) = match value {
            Value::String(name) => Some((name, Value::Null)),
            Value::Object(fields) if fields.len() == 1 => fields.into_iter().next(),
            _ => None,
        }
        .ok_or_else(|| {
            let what = format!("an event of {} is not written as it is read", A::TYPE);
            Error::new(ErrorKind::Serialization, what)
        })?;
        let event_type = types.iter().find(|known| ***known == *name);
        let event_type = event_type.ok_or_else(|| {
            let what = format!("event {name} of {} is written but not read", A::TYPE);
            Error::new(ErrorKind::Serialization, what)
        })?;
        let event = NewEvent::of_json(Arc::clone(event_type), data)?;
        Ok(event.with_schema(A::schema(&name)))
    }

    pub(super) fn upcast(&self, event: Event) -> Result<Event> {
        match &self.registry {
            Some(registry) => registry.upcast(event),
            None => Ok(event),
        }
    }

    /// Reads an event, brought up to the current schema first if there is a registry.
    pub(super) fn decode(&self, event: Event) -> Result<A::Event> {
        let event = self.upcast(event)?;
        let known = A::schema(event.event_type());
        if event.schema() > known {
            return Err(Error::new(
                ErrorKind::Serialization,
                format!(
                    "{} of {} at version {} has schema {}, newer than {known}",
                    event.event_type(),
                    event.document(),
                    event.version(),
                    event.schema()
                ),
            ));
        }
        let parts = event.into_parts();
        read_variant(&parts.event_type, parts.data).map_err(|e| {
            Error::new(
                ErrorKind::Serialization,
                format!(
                    "{} of {} at version {} is no event of {}",
                    parts.event_type,
                    parts.document,
                    parts.version,
                    A::TYPE
                ),
            )
            .with_source(e)
        })
    }
}

/// The event as it reads back from the log.
#[cfg(feature = "testing")]
pub(crate) fn read_back<A: Aggregate>(event: &A::Event) -> Result<A::Event> {
    let logged = EventCodec::<A>::new().encode(event)?;
    let data = logged.data().cloned().unwrap_or_default();
    read_variant(logged.event_type(), data).map_err(|e| {
        let what = format!(
            "{} of {} does not read back as it is written",
            logged.event_type(),
            A::TYPE
        );
        Error::new(ErrorKind::Serialization, what).with_source(e)
    })
}
