use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use super::Event;
use crate::error::{BoxError, Error, ErrorKind, Result};

/// Knows the current schema of each event type, and brings older events up to it.
///
/// ```
/// use nodestorage::event::{EventRegistry, UnknownEvents, Upcaster};
/// use serde_json::json;
///
/// let registry = EventRegistry::new(UnknownEvents::Fail)
///     .with_type("OrderPlaced", 2)?
///     .with_upcaster(Upcaster::renaming("OrderPlacedV1", 1, "OrderPlaced", 2, |mut data| {
///         data["currency"] = json!("EUR");
///         Ok(data)
///     }))?;
/// # Ok::<(), nodestorage::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct EventRegistry {
    current: HashMap<Arc<str>, u32>,
    upcasters: HashMap<(Arc<str>, u32), Upcaster>,
    unknown: UnknownEvents,
}

/// What to do with events that a registry does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownEvents {
    /// An unknown type, a schema newer than the code, or a gap in the chain is an error.
    Fail,
    /// They are passed on as they are; where the type at the end of a chain of upcasters is not registered,
    /// as the chain left them.
    Pass,
}

type Convert = dyn Fn(Value) -> std::result::Result<Value, BoxError> + Send + Sync;

/// One step from an older form of an event to a newer one.
#[derive(Clone)]
pub struct Upcaster {
    from: (Arc<str>, u32),
    to: (Arc<str>, u32),
    convert: Arc<Convert>,
}

impl Upcaster {
    /// A step from schema `from` to `from + 1` of the same type.
    pub fn new(
        event_type: impl Into<Arc<str>>,
        from: u32,
        convert: impl Fn(Value) -> std::result::Result<Value, BoxError> + Send + Sync + 'static,
    ) -> Self {
        let event_type = event_type.into();
        Self {
            from: (Arc::clone(&event_type), from),
            to: (event_type, from.saturating_add(1)),
            convert: Arc::new(convert),
        }
    }

    /// A step to another type and schema.
    pub fn renaming(
        from_type: impl Into<Arc<str>>,
        from: u32,
        to_type: impl Into<Arc<str>>,
        to: u32,
        convert: impl Fn(Value) -> std::result::Result<Value, BoxError> + Send + Sync + 'static,
    ) -> Self {
        Self {
            from: (from_type.into(), from),
            to: (to_type.into(), to),
            convert: Arc::new(convert),
        }
    }
}

impl fmt::Debug for Upcaster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Upcaster({} {} -> {} {})",
            self.from.0, self.from.1, self.to.0, self.to.1
        )
    }
}

impl EventRegistry {
    /// A registry that knows nothing yet.
    #[must_use]
    pub fn new(unknown: UnknownEvents) -> Self {
        Self {
            current: HashMap::new(),
            upcasters: HashMap::new(),
            unknown,
        }
    }

    /// Registers a type with its current schema number.
    ///
    /// # Errors
    /// `AlreadyRegistered` if the type is.
    pub fn with_type(mut self, event_type: impl Into<Arc<str>>, schema: u32) -> Result<Self> {
        let event_type = event_type.into();
        if self.current.contains_key(&event_type) {
            return Err(Error::new(
                ErrorKind::AlreadyRegistered,
                format!("event type {event_type} is registered already"),
            ));
        }
        self.current.insert(event_type, schema);
        Ok(self)
    }

    /// Registers an upcaster.
    ///
    /// # Errors
    /// `AlreadyRegistered` if there is one from the same type and schema.
    pub fn with_upcaster(mut self, upcaster: Upcaster) -> Result<Self> {
        if self.upcasters.contains_key(&upcaster.from) {
            return Err(Error::new(
                ErrorKind::AlreadyRegistered,
                format!(
                    "an upcaster from {} schema {} is registered already",
                    upcaster.from.0, upcaster.from.1
                ),
            ));
        }
        self.upcasters.insert(upcaster.from.clone(), upcaster);
        Ok(self)
    }

    /// Whether there is a way on from this type: it may be an old name of another one.
    pub(crate) fn converts(&self, event_type: &str) -> bool {
        self.upcasters.keys().any(|(from, _)| &**from == event_type)
    }

    /// Brings an event to the current schema of its type, through as many upcasters as it takes. An
    /// event that is current costs one look-up.
    ///
    /// # Errors
    /// `Serialization` when an upcaster fails or loops, and for unknown types and schemas if so
    /// configured.
    pub fn upcast(&self, event: Event) -> Result<Event> {
        if self.current.get(event.event_type()) == Some(&event.schema()) {
            return Ok(event);
        }
        let original = event.clone();
        let mut parts = event.into_parts();
        // A chain visits no upcaster twice, so it has at most as many steps as there are upcasters.
        for _ in 0..=self.upcasters.len() {
            if self.current.get(&parts.event_type) == Some(&parts.schema) {
                return Ok(Event::from_parts(parts));
            }
            let at = (Arc::clone(&parts.event_type), parts.schema);
            let Some(step) = self.upcasters.get(&at) else {
                return match self.unknown {
                    // The end of a chain whose type nobody registered.
                    UnknownEvents::Pass if !self.current.contains_key(&parts.event_type) => {
                        Ok(Event::from_parts(parts))
                    }
                    UnknownEvents::Pass => Ok(original),
                    UnknownEvents::Fail => Err(self.unknown_error(&original)),
                };
            };
            parts.data = (step.convert)(parts.data).map_err(|e| {
                Error::new(
                    ErrorKind::Serialization,
                    format!("{step:?} failed on event {}", original.id()),
                )
                .with_source(e)
            })?;
            (parts.event_type, parts.schema) = step.to.clone();
        }
        Err(Error::new(
            ErrorKind::Serialization,
            format!(
                "the upcasters of {} schema {} run in a circle",
                original.event_type(),
                original.schema()
            ),
        ))
    }

    fn unknown_error(&self, event: &Event) -> Error {
        let what = match self.current.get(event.event_type()) {
            None => format!("unknown event type {}", event.event_type()),
            Some(current) => format!(
                "unknown schema {} of event type {}, the current one is {current}",
                event.schema(),
                event.event_type()
            ),
        };
        Error::new(
            ErrorKind::Serialization,
            format!("{what} in event {}", event.id()),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{DocumentKey, Version};
    use crate::event::{EventId, EventParts, Metadata};
    use serde_json::json;

    fn event(event_type: &str, schema: u32) -> Event {
        let document = DocumentKey::new("orders", 1);
        Event::from_parts(EventParts {
            id: EventId::derive(uuid::Uuid::nil(), &document, Version::new(1), 0),
            event_type: event_type.into(),
            aggregate_type: "Order".into(),
            document,
            version: Version::new(1),
            index: 0,
            time: bson::DateTime::from_millis(0),
            schema,
            data: json!({"total": 5}),
            metadata: Metadata::new(),
        })
    }

    fn registry(unknown: UnknownEvents) -> EventRegistry {
        EventRegistry::new(unknown)
            .with_type("OrderPlaced", 3)
            .unwrap()
            .with_upcaster(Upcaster::renaming(
                "OrderPlacedV1",
                1,
                "OrderPlaced",
                2,
                |mut data| {
                    data["currency"] = json!("EUR");
                    Ok(data)
                },
            ))
            .unwrap()
            .with_upcaster(Upcaster::new("OrderPlaced", 2, |data| {
                Ok(json!({"order": data}))
            }))
            .unwrap()
    }

    #[test]
    fn upcasts_through_the_chain() {
        let new = registry(UnknownEvents::Fail)
            .upcast(event("OrderPlacedV1", 1))
            .unwrap();
        assert_eq!((new.event_type(), new.schema()), ("OrderPlaced", 3));
        assert_eq!(
            new.data(),
            &json!({"order": {"total": 5, "currency": "EUR"}})
        );
    }

    #[test]
    fn unknown_events_fail_or_pass_as_configured() {
        for odd in [
            event("Never", 1),
            event("OrderPlaced", 4),
            event("OrderPlaced", 1),
        ] {
            let error = registry(UnknownEvents::Fail)
                .upcast(odd.clone())
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Serialization);
            assert_eq!(
                registry(UnknownEvents::Pass).upcast(odd.clone()).unwrap(),
                odd
            );
        }
    }

    #[test]
    fn a_circle_is_an_error_and_a_second_registration_is_refused() {
        let circle = EventRegistry::new(UnknownEvents::Pass)
            .with_upcaster(Upcaster::renaming("A", 1, "B", 1, Ok))
            .unwrap()
            .with_upcaster(Upcaster::renaming("B", 1, "A", 1, Ok))
            .unwrap();
        assert!(circle.upcast(event("A", 1)).is_err());
        let twice = circle.with_upcaster(Upcaster::new("A", 1, Ok)).unwrap_err();
        assert_eq!(twice.kind(), ErrorKind::AlreadyRegistered);
        let twice = registry(UnknownEvents::Fail)
            .with_type("OrderPlaced", 4)
            .unwrap_err();
        assert_eq!(twice.kind(), ErrorKind::AlreadyRegistered);
    }
}
