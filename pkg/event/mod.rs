//! Domain events: the envelope, the mappers that make events from changes, upcasters, serializers.
//!
//! Nothing here awaits. Time and ids come from the engine, so mapping the same change again gives
//! the same events.

mod envelope;
pub(crate) mod json;
mod metadata;

pub use envelope::{Event, EventId, EventParts, NewEvent};
pub(crate) use envelope::{NewData, validate_event_type};
pub use metadata::Metadata;
