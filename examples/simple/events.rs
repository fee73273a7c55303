use serde::{Deserialize, Serialize};

/// What can happen to a user. The name of a variant is the type of the event, its fields are the data.
#[derive(Debug, Serialize, Deserialize)]
#[allow(clippy::enum_variant_names, reason = "they are the events' types")]
pub(crate) enum UserEvent {
    UserCreated { name: String, email: String },
    UserUpdated { name: String, email: String },
    UserEmailChanged { new_email: String },
    UserDeleted,
}
