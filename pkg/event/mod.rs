//! Domain events: the envelope, the mappers that make events from changes, upcasters, serializers.
//!
//! Nothing here awaits. Time and ids come from the engine, so mapping the same change again gives
//! the same events.

mod change;
mod default_mapper;
mod envelope;
pub(crate) mod json;
mod mapper;
mod metadata;
pub mod serializer;
mod upcast;

pub use change::{ChangeKind, ChangeView};
pub use default_mapper::{DefaultEventMapper, EventNames};
pub use envelope::{Event, EventId, EventParts, NewEvent};
pub(crate) use envelope::{NewData, read_variant, validate_event_type};
pub use mapper::{EventMapper, MapError};
pub use metadata::Metadata;
pub use serializer::{CloudEvents, EventSerializer, PlainJson};
pub use upcast::{EventRegistry, UnknownEvents, Upcaster};
