use std::sync::Arc;

use uuid::Uuid;

use super::partition::partition_of;
use super::{Letter, Outgoing, Payload, Position};
use crate::bus::DeadLetter;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, EventId, EventSerializer};

/// Between events and their form in the broker.
#[derive(Debug, Clone)]
pub(super) struct Wire {
    serializer: Arc<dyn EventSerializer>,
    partitions: u32,
    max_bytes: Option<usize>,
}

impl Wire {
    pub(super) fn new(
        serializer: Arc<dyn EventSerializer>,
        partitions: u32,
        max_bytes: Option<usize>,
    ) -> Self {
        Self {
            serializer,
            partitions,
            max_bytes,
        }
    }

    /// An event ready to be stored; an error is the event's own, so it is poison.
    fn outgoing(&self, event: &Event) -> Result<Outgoing> {
        let payload = self.serializer.serialize(event)?;
        if let Some(max) = self.max_bytes
            && payload.len() > max
        {
            return Err(Error::new(
                ErrorKind::TooLarge,
                format!(
                    "event {} has {} bytes on the wire, at most {max} are allowed",
                    event.id(),
                    payload.len()
                ),
            ));
        }
        Ok(Outgoing {
            partition: partition_of(&event.partition_key(), self.partitions),
            event: event.clone(),
            payload: payload.into(),
        })
    }

    /// Events ready to be stored up to the first that never can be, and why not.
    pub(super) fn all_outgoing(&self, events: &[Event]) -> (Vec<Outgoing>, Option<Error>) {
        let mut outgoing = Vec::with_capacity(events.len());
        for event in events {
            match self.outgoing(event) {
                Ok(event) => outgoing.push(event),
                Err(error) => return (outgoing, Some(error)),
            }
        }
        (outgoing, None)
    }

    pub(super) fn event(&self, payload: &Payload) -> Result<Event> {
        self.serializer.deserialize(&payload.0)
    }

    /// The bytes that an event lies in the dead letters with.
    pub(super) fn payload(&self, event: &Event) -> Result<Payload> {
        self.serializer.serialize(event).map(Payload::from)
    }

    pub(super) fn dead_letter(&self, letter: Letter) -> DeadLetter {
        match self.event(&letter.payload) {
            Ok(event) => DeadLetter::new(event, letter.error, letter.attempts),
            Err(_) => DeadLetter::foreign(letter.id, &*letter.payload.0, letter.error),
        }
    }
}

/// The id of something that is no event, from where it lay; the same whenever it is read again.
pub(super) fn foreign_id(label: &str, partition: u32, position: Position) -> EventId {
    let name = format!(
        "{label}\0{partition}\0{}\0{}\0{}",
        position.source, position.major, position.minor
    );
    Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes()).into()
}
