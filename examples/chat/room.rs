use std::collections::{BTreeSet, VecDeque};

use nodestorage::aggregate::{Aggregate, DecideContext};
use serde::{Deserialize, Serialize};

use crate::commands::{RoomCommand, RoomError};
use crate::events::RoomEvent;

/// How many messages a room remembers for its rules. Older ones can be read and no longer changed, so that
/// the state of a room stays small however long it lives.
pub(crate) const RECENT: usize = 100;

/// A room, as far as its rules need to know it: what was written is in the events.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Room {
    recent: VecDeque<Posted>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Posted {
    message: String,
    sender: String,
    readers: BTreeSet<String>,
}

impl Aggregate for Room {
    const TYPE: &'static str = "Room";
    const COLLECTION: &'static str = "rooms";
    type Command = RoomCommand;
    type Event = RoomEvent;
    type Error = RoomError;

    fn decide(
        &self,
        command: &RoomCommand,
        _: &DecideContext,
    ) -> Result<Vec<RoomEvent>, RoomError> {
        let event = match command.clone() {
            RoomCommand::SendMessage {
                message,
                sender,
                content,
            } => {
                check(&content)?;
                if self.find(&message).is_ok() {
                    return Err(RoomError::Taken(message));
                }
                RoomEvent::MessageSent {
                    message,
                    sender,
                    content,
                }
            }
            RoomCommand::EditMessage {
                message,
                sender,
                content,
            } => {
                check(&content)?;
                self.must_be_of(&message, &sender)?;
                RoomEvent::MessageEdited { message, content }
            }
            RoomCommand::DeleteMessage { message, sender } => {
                self.must_be_of(&message, &sender)?;
                RoomEvent::MessageDeleted { message }
            }
            RoomCommand::ReadMessage { message, reader } => {
                // Read once is read.
                if self.find(&message)?.readers.contains(&reader) {
                    return Ok(Vec::new());
                }
                RoomEvent::MessageRead { message, reader }
            }
        };
        Ok(vec![event])
    }

    fn apply(state: Option<Self>, event: &RoomEvent) -> Self {
        let mut room = state.unwrap_or_default();
        match event.clone() {
            RoomEvent::MessageSent {
                message, sender, ..
            } => {
                if room.recent.len() == RECENT {
                    room.recent.pop_front();
                }
                room.recent.push_back(Posted {
                    message,
                    sender,
                    readers: BTreeSet::new(),
                });
            }
            // The rules do not ask what a message says.
            RoomEvent::MessageEdited { .. } => {}
            RoomEvent::MessageDeleted { message } => {
                room.recent.retain(|posted| posted.message != message);
            }
            RoomEvent::MessageRead { message, reader } => {
                for posted in &mut room.recent {
                    if posted.message == message {
                        posted.readers.insert(reader.clone());
                    }
                }
            }
        }
        room
    }
}

impl Room {
    fn find(&self, message: &str) -> Result<&Posted, RoomError> {
        let found = self.recent.iter().find(|posted| posted.message == message);
        found.ok_or_else(|| RoomError::Unknown(message.to_owned()))
    }

    fn must_be_of(&self, message: &str, sender: &str) -> Result<(), RoomError> {
        match self.find(message)?.sender == sender {
            true => Ok(()),
            false => Err(RoomError::NotYours(message.to_owned())),
        }
    }
}

fn check(content: &str) -> Result<(), RoomError> {
    match content.chars().count() {
        1..=2_000 => Ok(()),
        _ => Err(RoomError::Content),
    }
}
