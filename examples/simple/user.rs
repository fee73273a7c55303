use std::ops::Not;

use nodestorage::aggregate::{Aggregate, DecideContext};
use serde::{Deserialize, Serialize};

use crate::commands::{UserCommand, UserError};
use crate::events::UserEvent;

/// A user: the model, and the document that is stored.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) email: String,
    #[serde(default, skip_serializing_if = "Not::not")]
    deleted: bool,
}

impl Aggregate for User {
    const TYPE: &'static str = "User";
    const COLLECTION: &'static str = "users";
    type Command = UserCommand;
    type Event = UserEvent;
    type Error = UserError;

    /// The rules. Nothing changes here: what is decided becomes events.
    fn decide(
        &self,
        command: &UserCommand,
        ctx: &DecideContext,
    ) -> Result<Vec<UserEvent>, UserError> {
        match command {
            UserCommand::CreateUser { name, email } => {
                check(name, email)?;
                Ok(vec![UserEvent::UserCreated {
                    name: name.clone(),
                    email: email.clone(),
                }])
            }
            _ if !ctx.exists() => Err(UserError::Unknown),
            UserCommand::UpdateUser { name, email } => {
                check(name, email)?;
                let mut events = Vec::new();
                if *name != self.name || *email != self.email {
                    events.push(UserEvent::UserUpdated {
                        name: name.clone(),
                        email: email.clone(),
                    });
                }
                // For those who care about nothing but the address.
                if *email != self.email {
                    events.push(UserEvent::UserEmailChanged {
                        new_email: email.clone(),
                    });
                }
                Ok(events)
            }
            UserCommand::DeleteUser => Ok(vec![UserEvent::UserDeleted]),
        }
    }

    /// What an event changes. No rules here: it has happened.
    fn apply(state: Option<Self>, event: &UserEvent) -> Self {
        let mut user = state.unwrap_or_default();
        match event {
            UserEvent::UserCreated { name, email } | UserEvent::UserUpdated { name, email } => {
                user.name.clone_from(name);
                user.email.clone_from(email);
            }
            UserEvent::UserEmailChanged { new_email } => user.email.clone_from(new_email),
            UserEvent::UserDeleted => user.deleted = true,
        }
        user
    }

    /// Creating requires that there is no such user yet.
    fn creates(command: &UserCommand) -> bool {
        matches!(command, UserCommand::CreateUser { .. })
    }

    /// Then the document goes; its history stays.
    fn is_deleted(&self) -> bool {
        self.deleted
    }
}

fn check(name: &str, email: &str) -> Result<(), UserError> {
    if name.is_empty() {
        return Err(UserError::NoName);
    }
    if !email.contains('@') {
        return Err(UserError::Email(email.to_owned()));
    }
    Ok(())
}
