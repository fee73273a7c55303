//! Commands: sent to aggregates, typed or by name.
//!
//! A [`Dispatcher`] knows who handles what. Typed commands go to their aggregate with
//! [`send`](Dispatcher::send), and a rejection comes back as the aggregate's own error. What arrives from
//! outside, over HTTP or from a queue, is a [`Command`] of a name, an id and JSON, and goes through
//! [`dispatch`](Dispatcher::dispatch). Both pass the same middleware.

mod contract;
mod dispatcher;
mod error;
mod guards;
mod handler;
mod message;
mod named;
mod registry;

pub use crate::aggregate::{CommandOptions, CommandResult};
pub use crate::middleware::{Middleware, Next, Timeout, Tracing};
pub use contract::DomainCommand;
pub use dispatcher::{Dispatcher, DispatcherBuilder};
pub use error::CommandError;
pub use guards::{Authorize, Validate};
pub use handler::CommandHandler;
pub use message::CommandMessage;
pub use named::Command;
