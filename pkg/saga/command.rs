//! Steps that send commands.

use std::sync::Arc;

use futures_core::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::context::{Call, StepContext};
use super::step::{Step, Work, run};
use super::step_error::StepError;
use crate::command::{CommandOptions, CommandResult, Dispatcher, DomainCommand};

impl<D> StepContext<D> {
    /// Options for a command that the step sends: the effect as command id, so that it is carried out once,
    /// and the saga's [metadata](Self::metadata).
    ///
    /// A step that sends several commands gives each an id of its own, made from the
    /// [effect id](Self::effect_id).
    #[must_use]
    pub fn command_options(&self) -> CommandOptions {
        CommandOptions::new()
            .with_command_id(self.effect_id())
            .with_metadata(self.metadata())
    }

    /// Sends a command to an aggregate, once: the effect is the command's id.
    ///
    /// # Examples
    /// ```
    /// # use nodestorage::command::{Dispatcher, DomainCommand};
    /// # use nodestorage::saga::{Step, StepContext};
    /// # fn example<Ship: DomainCommand + Clone + Sync>(dispatcher: Dispatcher, ship: Ship) -> Step<String> {
    /// Step::new("ship", move |ctx: StepContext<String>| {
    ///     let (dispatcher, ship) = (dispatcher.clone(), ship.clone());
    ///     async move {
    ///         let shipped = ctx.send(&dispatcher, ctx.data(), ship).await?;
    ///         println!("shipped, version {}", shipped.version());
    ///         Ok(())
    ///     }
    /// })
    /// # }
    /// ```
    ///
    /// # Errors
    /// A rejection where the aggregate rejects, or where trying again does not help; else a failure that is
    /// tried again.
    pub async fn send<C: DomainCommand>(
        &self,
        dispatcher: &Dispatcher,
        id: &str,
        command: C,
    ) -> Result<CommandResult, StepError> {
        let sent = dispatcher.send_with(id, command, self.command_options());
        Ok(sent.await?)
    }
}

impl<D: Serialize + DeserializeOwned + Clone + Send + Sync + 'static> Step<D> {
    /// A step that sends one command, with the effect as its id: `command` tells to which aggregate and what.
    ///
    /// # Examples
    /// ```
    /// # use nodestorage::command::{Dispatcher, DomainCommand};
    /// # use nodestorage::saga::{Saga, Step};
    /// # use serde::{Deserialize, Serialize};
    /// #[derive(Clone, Serialize, Deserialize)]
    /// struct Transfer { from: String, to: String, amount: i64 }
    ///
    /// # fn example<Withdraw: DomainCommand, Deposit: DomainCommand>(
    /// #     dispatcher: Dispatcher,
    /// #     withdraw: fn(i64) -> Withdraw,
    /// #     deposit: fn(i64) -> Deposit,
    /// # ) -> Saga<Transfer> {
    /// Saga::new("transfer")
    ///     .step(
    ///         Step::sending("withdraw", &dispatcher, move |t: &Transfer| (t.from.clone(), withdraw(t.amount)))
    ///             .compensate_sending(&dispatcher, move |t| (t.from.clone(), deposit(t.amount))),
    ///     )
    ///     .step(Step::sending("deposit", &dispatcher, move |t: &Transfer| (t.to.clone(), deposit(t.amount))))
    /// # }
    /// ```
    pub fn sending<C, F>(name: impl Into<Arc<str>>, dispatcher: &Dispatcher, command: F) -> Self
    where
        C: DomainCommand,
        F: Fn(&D) -> (String, C) + Send + Sync + 'static,
    {
        Self::new(name, sends(dispatcher, command))
    }

    /// Undoes the step by sending one command, with the compensation's effect as its id.
    ///
    /// While it is [in doubt](StepContext::is_in_doubt) whether the step's own command was carried out, that is
    /// settled first: the action runs again, under its id. If it is rejected it has had no effect and will have
    /// none, so that there is nothing to undo.
    #[must_use]
    pub fn compensate_sending<C, F>(mut self, dispatcher: &Dispatcher, command: F) -> Self
    where
        C: DomainCommand,
        F: Fn(&D) -> (String, C) + Send + Sync + 'static,
    {
        let undo = run(sends(dispatcher, command));
        let action = match &self.definition.work {
            Work::Act(action) => Some(Arc::clone(action)),
            Work::Wait { .. } => None,
        };
        self.definition.compensation = Some(Arc::new(move |call: Call| {
            let action = action.as_ref().filter(|_| call.in_doubt);
            let settling = action.map(|action| {
                action(Call {
                    compensates: false,
                    ..call.clone()
                })
            });
            let undoing = undo(call);
            Box::pin(async move {
                if let Some(settling) = settling {
                    match settling.await {
                        Ok(_) => {}
                        Err(error) if error.is_rejected() => return Ok(None),
                        Err(error) => return Err(error),
                    }
                }
                undoing.await
            })
        }));
        self
    }
}

fn sends<D, C, F>(
    dispatcher: &Dispatcher,
    command: F,
) -> impl Fn(StepContext<D>) -> BoxFuture<'static, Result<(), StepError>> + Send + Sync + 'static
where
    D: Send + Sync + 'static,
    C: DomainCommand,
    F: Fn(&D) -> (String, C) + Send + Sync + 'static,
{
    let dispatcher = dispatcher.clone();
    move |ctx| {
        let dispatcher = dispatcher.clone();
        let (id, command) = command(ctx.data());
        Box::pin(async move {
            ctx.send(&dispatcher, &id, command).await?;
            Ok(())
        })
    }
}
