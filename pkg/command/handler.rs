use std::future::Future;

use async_trait::async_trait;

use super::{Command, CommandResult};
use crate::error::BoxError;

/// Handles commands that belong to no aggregate. Closures `Fn(Command) -> impl Future` are handlers.
///
/// # Examples
/// ```
/// use nodestorage::command::{Command, CommandResult, Dispatcher};
/// use nodestorage::{Result, Storage};
/// use serde_json::Value;
///
/// # fn example(storage: Storage) -> Result<()> {
/// let dispatcher = Dispatcher::builder()
///     .handler("SetTheme", move |command: Command| {
///         let storage = storage.clone();
///         async move {
///             let theme = command.data().clone();
///             let set = |_: Option<Value>| theme.clone();
///             let change = storage.update("themes", command.target(), set).await?;
///             Ok::<_, nodestorage::Error>(CommandResult::from(change))
///         }
///     })?
///     .build();
/// # let _ = dispatcher;
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait CommandHandler: Send + Sync + 'static {
    /// Carries a command out.
    ///
    /// # Errors
    /// Whoever sent the command gets a `nodestorage::Error` as it is, and anything else as a rejection.
    async fn handle(&self, command: Command) -> Result<CommandResult, BoxError>;
}

#[async_trait]
impl<F, Fut, E> CommandHandler for F
where
    F: Fn(Command) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<CommandResult, E>> + Send,
    E: Into<BoxError>,
{
    async fn handle(&self, command: Command) -> Result<CommandResult, BoxError> {
        self(command).await.map_err(Into::into)
    }
}
