//! Middleware that refuses commands.

use std::fmt;
use std::marker::PhantomData;

use async_trait::async_trait;

use super::{CommandMessage, CommandResult, Middleware, Next};
use crate::error::{BoxError, Error, ErrorKind};

type Check<T> = Box<dyn Fn(&T) -> Result<(), BoxError> + Send + Sync>;

/// Asks whether a command may be carried out, before anything is read.
///
/// # Examples
/// ```
/// use nodestorage::command::{Authorize, CommandMessage, Dispatcher};
///
/// let only_tellers = Authorize::by(|message: &CommandMessage| {
///     match message.metadata().actor.as_deref() {
///         Some(actor) if actor.starts_with("teller-") => Ok(()),
///         _ => Err("only tellers move money"),
///     }
/// });
/// let dispatcher = Dispatcher::builder().with(only_tellers).build();
/// # let _ = dispatcher;
/// ```
pub struct Authorize {
    check: Check<CommandMessage>,
}

impl Authorize {
    /// Lets a command pass where `check` is `Ok`; else its sender gets the reason, as an error of kind
    /// [`Refused`](ErrorKind::Refused).
    #[must_use]
    pub fn by<E: Into<BoxError>>(
        check: impl Fn(&CommandMessage) -> Result<(), E> + Send + Sync + 'static,
    ) -> Self {
        let check = Box::new(move |message: &CommandMessage| check(message).map_err(Into::into));
        Self { check }
    }
}

#[async_trait]
impl Middleware<CommandMessage, CommandResult> for Authorize {
    async fn handle(
        &self,
        message: CommandMessage,
        next: Next<'_, CommandMessage, CommandResult>,
    ) -> Result<CommandResult, BoxError> {
        match (self.check)(&message) {
            Ok(()) => next.run(message).await,
            Err(reason) => {
                let what = format!("{} {} is not allowed", message.name(), message.document());
                Err(refused(what, reason))
            }
        }
    }
}

/// Checks the commands of one type, before anything is read.
///
/// # Examples
/// ```
/// use nodestorage::command::Validate;
///
/// enum AccountCommand { Deposit { amount: i64 } }
///
/// let positive = Validate::new(|command: &AccountCommand| match command {
///     AccountCommand::Deposit { amount } if *amount <= 0 => Err("amount must be positive"),
///     AccountCommand::Deposit { .. } => Ok(()),
/// });
/// # let _ = positive;
/// ```
pub struct Validate<C> {
    check: Check<C>,
    command: PhantomData<fn(C)>,
}

impl<C: 'static> Validate<C> {
    /// Lets commands of other types pass, and those of this type where `check` is `Ok`; else the sender gets
    /// the reason, as an error of kind [`Refused`](ErrorKind::Refused).
    #[must_use]
    pub fn new<E: Into<BoxError>>(
        check: impl Fn(&C) -> Result<(), E> + Send + Sync + 'static,
    ) -> Self {
        Self {
            check: Box::new(move |command| check(command).map_err(Into::into)),
            command: PhantomData,
        }
    }
}

#[async_trait]
impl<C: 'static> Middleware<CommandMessage, CommandResult> for Validate<C> {
    async fn handle(
        &self,
        message: CommandMessage,
        next: Next<'_, CommandMessage, CommandResult>,
    ) -> Result<CommandResult, BoxError> {
        let checked = message.command::<C>().map_or(Ok(()), &self.check);
        match checked {
            Ok(()) => next.run(message).await,
            Err(reason) => {
                let what = format!("{} {} is not valid", message.name(), message.document());
                Err(refused(what, reason))
            }
        }
    }
}

fn refused(what: String, reason: BoxError) -> BoxError {
    let message = format!("{what}: {reason}");
    Error::new(ErrorKind::Refused, message)
        .with_source(reason)
        .into()
}

impl fmt::Debug for Authorize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorize").finish_non_exhaustive()
    }
}

impl<C> fmt::Debug for Validate<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Validate").finish_non_exhaustive()
    }
}
