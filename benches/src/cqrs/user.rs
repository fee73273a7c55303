//! The document of the other scenarios as an aggregate, and the update that does by hand what its command does.

use anyhow::{Context as _, Result};
use fastrand::Rng;
use nodestorage::aggregate::{Aggregate, DecideContext};
use nodestorage::command::{Dispatcher, DomainCommand};
use nodestorage::storage::{UpdateContext, UpdateOptions};
use nodestorage::{ChangeView, MapError, NewEvent, Storage};
use serde::{Deserialize, Serialize};

use crate::contender::Checked;
use crate::load::Worker;
use crate::mongo::Database;
use crate::ours::Choice;
use crate::user::{COLLECTION, User, new_status};

const STATUS_CHANGED: &str = "StatusChanged";

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum UserCommand {
    ChangeStatus { status: String },
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum UserEvent {
    StatusChanged { status: String },
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("the user is not there")]
    Missing,
    #[error(transparent)]
    Event(#[from] nodestorage::Error),
}

impl Aggregate for User {
    const TYPE: &'static str = "User";
    const COLLECTION: &'static str = COLLECTION;
    type Command = UserCommand;
    type Event = UserEvent;
    type Error = Refused;

    fn decide(
        &self,
        command: &UserCommand,
        ctx: &DecideContext,
    ) -> Result<Vec<UserEvent>, Refused> {
        let UserCommand::ChangeStatus { status } = command;
        match ctx.exists() {
            true => Ok(vec![UserEvent::StatusChanged {
                status: status.clone(),
            }]),
            false => Err(Refused::Missing),
        }
    }

    fn apply(state: Option<Self>, event: &UserEvent) -> Self {
        let UserEvent::StatusChanged { status } = event;
        changed(state.unwrap_or_default(), status)
    }
}

impl DomainCommand for UserCommand {
    type Aggregate = User;
}

/// The change of state, the same on both sides.
fn changed(mut user: User, status: &str) -> User {
    user.counter += 1;
    status.clone_into(&mut user.status);
    user
}

/// One `Dispatcher::send` per operation.
pub(crate) struct Sending {
    pub(crate) dispatcher: Dispatcher,
    pub(crate) choice: Choice,
    pub(crate) store: Database,
}

impl Worker for Sending {
    async fn step(&self, _: usize, rng: &mut Rng) -> Result<u64> {
        let id = self.choice.pick(rng);
        let status = new_status(rng);
        let command = UserCommand::ChangeStatus { status };
        let done = self.dispatcher.send(&id, command).await;
        let done = done.with_context(|| format!("a command to {id}"))?;
        std::hint::black_box(done.version());
        Ok(1)
    }
}

impl Checked for Sending {
    async fn check(&self, acknowledged: u64) -> Result<()> {
        self.store.check(acknowledged).await
    }
}

/// Makes no events of a change: those that the closure emits are all.
pub(crate) fn nothing_mapped(_: &ChangeView<'_>) -> Result<Vec<NewEvent>, MapError> {
    Ok(Vec::new())
}

/// One `Storage::update_with` per operation, which does what the command does.
pub(crate) struct Updating {
    pub(crate) storage: Storage,
    pub(crate) choice: Choice,
    pub(crate) store: Database,
}

#[derive(Serialize)]
struct StatusChanged<'a> {
    status: &'a str,
}

impl Worker for Updating {
    async fn step(&self, _: usize, rng: &mut Rng) -> Result<u64> {
        let id = self.choice.pick(rng);
        let status = new_status(rng);
        let options = UpdateOptions::new();
        let update = |user: Option<User>, ctx: &mut UpdateContext| {
            let user = user.ok_or(Refused::Missing)?;
            let event = StatusChanged { status: &status };
            ctx.emit(NewEvent::new(STATUS_CHANGED, event)?);
            Ok::<_, Refused>(changed(user, &status))
        };
        let done = self.storage.update_with(COLLECTION, &id, options, update);
        let done = done.await.with_context(|| format!("update of {id}"))?;
        std::hint::black_box(done.version());
        Ok(1)
    }
}

impl Checked for Updating {
    async fn check(&self, acknowledged: u64) -> Result<()> {
        self.store.check(acknowledged).await
    }
}
