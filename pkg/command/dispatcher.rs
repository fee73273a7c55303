use std::fmt;
use std::sync::Arc;

use super::error::typed;
use super::message::Content;
use super::registry::{End, Registry, Route};
use super::{
    Command, CommandError, CommandHandler, CommandMessage, CommandOptions, CommandResult,
    DomainCommand, Middleware, Next,
};
use crate::aggregate::{Aggregate, Repository, variant_of};
use crate::document::{DocumentId, DocumentKey};
use crate::error::{BoxError, Error, Result};
use crate::storage::UpdateError;

type Layer = Arc<dyn Middleware<CommandMessage, CommandResult>>;

/// Sends commands to those who handle them. Cheap to clone; all clones are one dispatcher.
///
/// # Examples
/// ```
/// # use nodestorage::aggregate::Repository;
/// # use nodestorage::command::{Command, Dispatcher, DomainCommand};
/// # use nodestorage::{Result, Storage};
/// # use serde_json::json;
/// # async fn example<C: DomainCommand>(storage: Storage, create_user: C) -> Result<()> {
/// # type User<C> = <C as DomainCommand>::Aggregate;
/// let users = Repository::<User<C>>::new(&storage);
/// let dispatcher = Dispatcher::builder().aggregate(users)?.build();
///
/// // Typed: a rejection is the aggregate's own error.
/// match dispatcher.send("user123", create_user).await {
///     Ok(result) => println!("version {}", result.version()),
///     Err(error) => println!("{error}"),
/// }
///
/// // By name, as it arrives over HTTP.
/// let command = Command::new("CreateUser", "user124", json!({"name": "John Doe"}));
/// if let Err(error) = dispatcher.dispatch(command).await {
///     println!("{error}");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Dispatcher {
    registry: Arc<Registry>,
    layers: Arc<[Layer]>,
}

/// Puts a [`Dispatcher`] together.
///
/// # Examples
/// ```
/// use std::time::Duration;
///
/// use nodestorage::command::{Dispatcher, Timeout, Tracing};
///
/// let builder = Dispatcher::builder()
///     .with(Tracing::new())
///     .with(Timeout::after(Duration::from_secs(5)));
/// let dispatcher = builder.build();
/// assert_eq!(dispatcher.commands().count(), 0);
/// ```
#[derive(Default)]
#[must_use = "a builder does nothing until it is built"]
pub struct DispatcherBuilder {
    registry: Registry,
    layers: Vec<Layer>,
}

impl DispatcherBuilder {
    /// Sends all commands of an aggregate to its repository.
    ///
    /// # Errors
    /// `AlreadyRegistered` if the aggregate is, or if one of its commands has a handler; `InvalidConfig` if its commands or
    /// events are no externally tagged enums.
    pub fn aggregate<A: Aggregate>(mut self, repository: Repository<A>) -> Result<Self> {
        self.registry.aggregate(repository)?;
        Ok(self)
    }

    /// Sends commands of this name to a handler of the application's own.
    ///
    /// # Errors
    /// `AlreadyRegistered` if the name has a handler.
    pub fn handler(
        mut self,
        name: impl Into<String>,
        handler: impl CommandHandler,
    ) -> Result<Self> {
        self.registry.handler(name.into(), handler)?;
        Ok(self)
    }

    /// Surrounds the handling of all commands. The first one that is added sees a command first.
    pub fn with(mut self, layer: impl Middleware<CommandMessage, CommandResult>) -> Self {
        self.layers.push(Arc::new(layer));
        self
    }

    /// The dispatcher.
    #[must_use]
    pub fn build(self) -> Dispatcher {
        Dispatcher {
            registry: Arc::new(self.registry),
            layers: self.layers.into(),
        }
    }
}

impl Dispatcher {
    /// Begins to put a dispatcher together.
    pub fn builder() -> DispatcherBuilder {
        DispatcherBuilder::default()
    }

    /// Sends a command to an aggregate; see [`Repository::execute`].
    ///
    /// # Errors
    /// [`UpdateError::Rejected`] with the aggregate's own error. `UnknownCommand` if the aggregate is not
    /// registered, `Refused` by a middleware, and those of [`Repository::execute`].
    pub async fn send<C: DomainCommand>(
        &self,
        id: impl Into<DocumentId>,
        command: C,
    ) -> Result<CommandResult, UpdateError<<C::Aggregate as Aggregate>::Error>> {
        self.send_with(id, command, CommandOptions::new()).await
    }

    /// As [`send`](Self::send), with options: a command id, metadata, an expected version.
    ///
    /// # Errors
    /// Those of [`send`](Self::send).
    pub async fn send_with<C: DomainCommand>(
        &self,
        id: impl Into<DocumentId>,
        command: C,
        options: CommandOptions,
    ) -> Result<CommandResult, UpdateError<<C::Aggregate as Aggregate>::Error>> {
        let repository = self.registry.repository::<C::Aggregate>()?;
        let command = command.into();
        if self.layers.is_empty() {
            return repository.execute(id, &command, options).await;
        }
        let collection = <C::Aggregate as Aggregate>::COLLECTION;
        let message = CommandMessage {
            name: variant_of(&command).unwrap_or_default().to_owned(),
            document: DocumentKey::new(collection, id),
            options,
            content: Content::Typed(Box::new(command)),
        };
        self.pass(message, repository).await.map_err(typed)
    }

    /// Sends a command by its name.
    ///
    /// # Errors
    /// `UnknownCommand` for a name without a handler; `Serialization`, naming the field, for data that is not
    /// that of the command; `Refused` by a middleware. [`UpdateError::Rejected`] with the boxed error of the
    /// aggregate or handler; else those of [`Repository::execute`].
    pub async fn dispatch(&self, command: Command) -> Result<CommandResult, CommandError> {
        let (name, target, data, options) = command.into_parts();
        let route = self.registry.route(&name)?;
        let message = CommandMessage {
            content: route.decode(&name, data)?,
            document: DocumentKey::new(route.collection(), target),
            name,
            options,
        };
        let passed = self.pass(message, route.as_ref()).await;
        passed.map_err(|error| match error.downcast::<Error>() {
            Ok(error) => UpdateError::Storage(*error),
            Err(error) => UpdateError::Rejected(error),
        })
    }

    /// The names of all commands that have a handler, in no order.
    pub fn commands(&self) -> impl Iterator<Item = &str> {
        self.registry.names()
    }

    async fn pass(
        &self,
        message: CommandMessage,
        route: &dyn Route,
    ) -> Result<CommandResult, BoxError> {
        Next::through(&self.layers, &End(route)).run(message).await
    }
}

impl fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names: Vec<_> = self.commands().collect();
        names.sort_unstable();
        f.debug_struct("Dispatcher")
            .field("commands", &names)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for DispatcherBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DispatcherBuilder").finish_non_exhaustive()
    }
}
