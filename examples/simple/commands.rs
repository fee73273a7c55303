use nodestorage::command::DomainCommand;
use serde::{Deserialize, Serialize};

use crate::user::User;

/// What can be asked for. The name of a variant is the name of the command, its fields are the data.
#[derive(Debug, Serialize, Deserialize)]
#[allow(clippy::enum_variant_names, reason = "they are the commands' names")]
pub(crate) enum UserCommand {
    CreateUser { name: String, email: String },
    UpdateUser { name: String, email: String },
    DeleteUser,
}

/// Tells the dispatcher who decides on these commands.
impl DomainCommand for UserCommand {
    type Aggregate = User;
}

/// Why a command is rejected.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UserError {
    #[error("a user needs a name")]
    NoName,
    #[error("{0:?} is no e-mail address")]
    Email(String),
    #[error("there is no such user")]
    Unknown,
}
