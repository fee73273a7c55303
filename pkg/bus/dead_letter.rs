use crate::event::Event;

/// An event that a subscription has given up.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The event.
    pub event: Event,
    /// What the last attempt failed with: the handler's error with its causes, or its panic message.
    pub error: String,
    /// How many attempts were made since the event was published or redriven.
    pub attempts: u32,
}

impl DeadLetter {
    /// Puts a dead letter together; for bus implementations.
    #[must_use]
    pub fn new(event: Event, error: impl Into<String>, attempts: u32) -> Self {
        Self {
            event,
            error: error.into(),
            attempts,
        }
    }
}
