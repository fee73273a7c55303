use serde::{Deserialize, Serialize};

/// What can happen in a room.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(clippy::enum_variant_names, reason = "they are the events' types")]
pub(crate) enum RoomEvent {
    MessageSent {
        message: String,
        sender: String,
        content: String,
    },
    MessageEdited {
        message: String,
        content: String,
    },
    MessageDeleted {
        message: String,
    },
    MessageRead {
        message: String,
        reader: String,
    },
}
