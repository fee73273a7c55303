//! The second way to read a room: from its events, without anything that was prepared. It needs no second
//! store, is never behind, and reads any moment of the past.

use std::collections::{HashMap, HashSet};

use nodestorage::VersionRange;
use nodestorage::aggregate::Repository;
use nodestorage::error::BoxError;

use crate::events::RoomEvent;
use crate::room::Room;
use crate::view::MessageView;

/// The newest messages of a room at a version, oldest first.
///
/// Reads from the end, and no further than it must: by the time the sending of a message is reached, all
/// that became of it is known.
pub(crate) async fn recent(
    rooms: &Repository<Room>,
    room: &str,
    at: Option<u64>,
    limit: usize,
) -> Result<Vec<MessageView>, BoxError> {
    let mut range = VersionRange::new().with_newest_first(true);
    if let Some(version) = at {
        range = range.with_to(version);
    }
    let mut deleted = HashSet::new();
    let mut edited: HashMap<String, String> = HashMap::new();
    let mut readers: HashMap<String, Vec<String>> = HashMap::new();
    let mut messages = Vec::new();
    loop {
        let page = rooms.events(room, range).await?;
        for event in &page.items {
            match event.typed()? {
                RoomEvent::MessageDeleted { message } => {
                    deleted.insert(message);
                }
                RoomEvent::MessageEdited { message, content } => {
                    // The last one counts, and comes first.
                    edited.entry(message).or_insert(content);
                }
                RoomEvent::MessageRead { message, reader } => {
                    readers.entry(message).or_default().push(reader);
                }
                RoomEvent::MessageSent { message, .. } if deleted.contains(&message) => {}
                RoomEvent::MessageSent {
                    message,
                    sender,
                    content,
                } => {
                    let changed = edited.remove(&message);
                    let mut read_by = readers.remove(&message).unwrap_or_default();
                    read_by.reverse();
                    messages.push(MessageView {
                        room: room.to_owned(),
                        message,
                        number: i64::try_from(event.version().get())?,
                        sender,
                        edited: changed.is_some(),
                        content: changed.unwrap_or(content),
                        read_by,
                    });
                }
            }
            if messages.len() == limit {
                break;
            }
        }
        match page.next {
            Some(next) if messages.len() < limit => range = next,
            _ => break,
        }
    }
    messages.reverse();
    Ok(messages)
}
