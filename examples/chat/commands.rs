use nodestorage::command::DomainCommand;
use serde::{Deserialize, Serialize};

use crate::room::Room;

/// What can be asked of a room. Whoever sends a message names it, so that it may be sent again when no
/// answer came.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(clippy::enum_variant_names, reason = "they are the commands' names")]
pub(crate) enum RoomCommand {
    SendMessage {
        message: String,
        sender: String,
        content: String,
    },
    EditMessage {
        message: String,
        sender: String,
        content: String,
    },
    DeleteMessage {
        message: String,
        sender: String,
    },
    ReadMessage {
        message: String,
        reader: String,
    },
}

impl DomainCommand for RoomCommand {
    type Aggregate = Room;
}

/// Why a room refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RoomError {
    #[error("a message has from 1 to 2000 characters")]
    Content,
    #[error("there is a message {0} already")]
    Taken(String),
    #[error("there is no message {0} among the recent ones")]
    Unknown(String),
    #[error("message {0} is somebody else's")]
    NotYours(String),
}
