use std::fmt;
use std::sync::Arc;

use crate::event::{Event, EventId};

/// Something that a subscription has given up.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// By which it is redriven or discarded: the event's own id. What is no event has an id that
    /// follows from where it lay in the broker.
    pub id: EventId,
    /// The event, or the bytes that are none.
    pub content: LetterContent,
    /// What the last attempt failed with: the handler's error with its causes, its panic message, that no
    /// attempt came to an end, or why the bytes are no event.
    pub error: String,
    /// How many attempts were made since the event was published or redriven, by the process that gave it up;
    /// for an event whose attempts had no end, how many of those. 0 for what never reached a handler.
    pub attempts: u32,
}

/// What a [`DeadLetter`] holds.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub enum LetterContent {
    /// An event that handlers failed on.
    Event(Event),
    /// Bytes from the broker that are no event, as they were: not written by this library, damaged,
    /// or of a form that the bus's serializer does not know.
    Foreign(Arc<[u8]>),
}

impl DeadLetter {
    /// Puts a dead letter together; for bus implementations.
    #[must_use]
    pub fn new(event: Event, error: impl Into<String>, attempts: u32) -> Self {
        Self {
            id: event.id(),
            content: LetterContent::Event(event),
            error: error.into(),
            attempts,
        }
    }

    /// A letter for bytes that are no event; for bus implementations.
    #[must_use]
    pub fn foreign(id: EventId, payload: impl Into<Arc<[u8]>>, error: impl Into<String>) -> Self {
        Self {
            id,
            content: LetterContent::Foreign(payload.into()),
            error: error.into(),
            attempts: 0,
        }
    }

    /// The event; `None` for bytes that are none.
    #[must_use]
    pub fn event(&self) -> Option<&Event> {
        match &self.content {
            LetterContent::Event(event) => Some(event),
            LetterContent::Foreign(_) => None,
        }
    }
}

impl fmt::Debug for LetterContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Event(event) => f.debug_tuple("Event").field(event).finish(),
            // Whose bytes they are and what they hold is unknown, so they stay out of logs.
            Self::Foreign(payload) => write!(f, "Foreign({} bytes)", payload.len()),
        }
    }
}
