//! Who handles what.

use std::any::{Any, TypeId, type_name};
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt;
use serde::Deserialize;
use serde_json::Value;

use super::message::Content;
use super::{Command, CommandHandler, CommandMessage, CommandResult};
use crate::aggregate::{Aggregate, Repository, variants_of};
use crate::error::{BoxError, Error, ErrorKind, Result};
use crate::middleware::Endpoint;
use crate::storage::UpdateError;

#[derive(Default)]
pub(super) struct Registry {
    by_name: HashMap<String, Arc<dyn Route>>,
    /// Repositories by the types of their aggregates.
    by_type: HashMap<TypeId, Arc<dyn Any + Send + Sync>>,
}

/// Where commands of some names go.
#[async_trait]
pub(super) trait Route: Send + Sync {
    /// The collection of the aggregate; empty for a handler of the application's own.
    fn collection(&self) -> &'static str;

    fn decode(&self, name: &str, data: Value) -> Result<Content>;

    async fn handle(&self, message: CommandMessage) -> Result<CommandResult, BoxError>;
}

impl Registry {
    pub(super) fn aggregate<A: Aggregate>(&mut self, repository: Repository<A>) -> Result<()> {
        // Early, rather than with the first command.
        repository.event_types()?;
        let Some(names) = variants_of::<A::Command>() else {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                format!(
                    "the commands of {} must be an enum, tagged externally: {} is not",
                    A::TYPE,
                    type_name::<A::Command>()
                ),
            ));
        };
        if self.by_type.contains_key(&TypeId::of::<A>()) {
            let what = format!("aggregate {} is registered already", A::TYPE);
            return Err(Error::new(ErrorKind::AlreadyRegistered, what));
        }
        for name in names {
            self.check_free(name)?;
        }
        let route = Arc::new(repository.clone());
        for name in names {
            self.by_name
                .insert((*name).to_owned(), Arc::clone(&route) as _);
        }
        self.by_type.insert(TypeId::of::<A>(), Arc::new(repository));
        Ok(())
    }

    pub(super) fn handler(&mut self, name: String, handler: impl CommandHandler) -> Result<()> {
        self.check_free(&name)?;
        self.by_name.insert(name, Arc::new(Own(handler)));
        Ok(())
    }

    fn check_free(&self, name: &str) -> Result<()> {
        match self.by_name.contains_key(name) {
            false => Ok(()),
            true => Err(Error::new(
                ErrorKind::AlreadyRegistered,
                format!("a handler for command {name} is registered already"),
            )),
        }
    }

    pub(super) fn route(&self, name: &str) -> Result<&Arc<dyn Route>> {
        self.by_name.get(name).ok_or_else(|| {
            let what = format!("no handler is registered for command {name:?}");
            Error::new(ErrorKind::UnknownCommand, what)
        })
    }

    pub(super) fn repository<A: Aggregate>(&self) -> Result<&Repository<A>> {
        let found = self.by_type.get(&TypeId::of::<A>());
        found.and_then(|found| found.downcast_ref()).ok_or_else(|| {
            let what = format!("aggregate {} is not registered", A::TYPE);
            Error::new(ErrorKind::UnknownCommand, what)
        })
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }
}

#[async_trait]
impl<A: Aggregate> Route for Repository<A> {
    fn collection(&self) -> &'static str {
        A::COLLECTION
    }

    fn decode(&self, name: &str, data: Value) -> Result<Content> {
        // What has no data arrives as null, and over HTTP as `{}`.
        let is_empty = data.as_object().is_some_and(serde_json::Map::is_empty);
        let command = match tagged::<A::Command>(name, data) {
            Err(_) if is_empty => tagged(name, Value::Null).or_else(|_| {
                let data = Value::Object(serde_json::Map::new());
                tagged(name, data)
            }),
            decoded => decoded,
        };
        Ok(Content::Typed(Box::new(command?)))
    }

    async fn handle(&self, message: CommandMessage) -> Result<CommandResult, BoxError> {
        let Content::Typed(command) = message.content else {
            return Err(misrouted(&message.name).into());
        };
        let Ok(command) = command.downcast::<A::Command>() else {
            return Err(misrouted(&message.name).into());
        };
        let id = message.document.id();
        let done = self.execute(id, &command, message.options).await;
        done.map_err(|error| match error {
            UpdateError::Rejected(error) => error.into(),
            UpdateError::Storage(error) => error.into(),
        })
    }
}

fn misrouted(name: &str) -> Error {
    let what = format!("command {name} has become one of another type on its way");
    Error::new(ErrorKind::InvalidConfig, what)
}

/// Reads a variant of an enum. The error names the field and what was expected there, and not what was found,
/// which may be anything.
fn tagged<C: for<'de> Deserialize<'de>>(name: &str, data: Value) -> Result<C> {
    let mut tagged = serde_json::Map::with_capacity(1);
    tagged.insert(name.to_owned(), data);
    serde_path_to_error::deserialize(Value::Object(tagged)).map_err(|e| {
        let path = e.path().to_string();
        let path = path.strip_prefix(name).unwrap_or(&path);
        let path = path.strip_prefix('.').unwrap_or(path);
        let reason = e.inner().to_string();
        let reason = match reason.split_once(", expected ") {
            Some((found, expected)) if found.starts_with("invalid") => {
                format!("expected {expected}")
            }
            _ => reason,
        };
        let place = match path {
            "" | "?" => String::new(),
            path => format!(", field {path}"),
        };
        Error::new(
            ErrorKind::Serialization,
            format!("command {name}{place}: {reason}"),
        )
    })
}

/// A handler of the application's own.
struct Own<H>(H);

#[async_trait]
impl<H: CommandHandler> Route for Own<H> {
    fn collection(&self) -> &'static str {
        ""
    }

    fn decode(&self, _: &str, data: Value) -> Result<Content> {
        Ok(Content::Json(data))
    }

    async fn handle(&self, message: CommandMessage) -> Result<CommandResult, BoxError> {
        let Content::Json(data) = message.content else {
            return Err(misrouted(&message.name).into());
        };
        let what = format!("the handler of command {} panicked", message.name);
        let command =
            Command::new(message.name, message.document.id(), data).with_options(message.options);
        let handling = AssertUnwindSafe(async { self.0.handle(command).await });
        match handling.catch_unwind().await {
            Ok(done) => done,
            Err(_) => Err(Error::new(ErrorKind::Panicked, what).into()),
        }
    }
}

/// A route as the end of the middleware.
pub(super) struct End<'a>(pub(super) &'a dyn Route);

#[async_trait]
impl Endpoint<CommandMessage, CommandResult> for End<'_> {
    async fn call(&self, message: CommandMessage) -> Result<CommandResult, BoxError> {
        self.0.handle(message).await
    }
}
