//! What surrounds every call of a handler: spans, deadlines, recognising repetitions.
//!
//! A [`Middleware`] gets the event and [what comes after it](Next), and decides whether, when and how
//! often to run it. It is attached to a handler, not to a bus, so it works on every bus alike:
//!
//! ```
//! use std::time::Duration;
//!
//! use nodestorage::Event;
//! use nodestorage::bus::middleware::{Dedupe, Timeout, Tracing};
//! use nodestorage::bus::{EventBusExt, EventHandlerExt, MemoryBus, Subscription};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> nodestorage::Result<()> {
//! let welcome = |event: Event| async move {
//!     println!("welcome, {}", event.aggregate_id());
//! };
//! let bus = MemoryBus::new();
//! bus.subscribe(
//!     Subscription::to("UserCreated"),
//!     welcome
//!         .with(Timeout::after(Duration::from_secs(5)))
//!         .with(Dedupe::remembering(10_000))
//!         .with(Tracing::new()),
//! )
//! .await?;
//! # Ok(()) }
//! ```
//!
//! Each `with` puts a middleware around all that is there already, so the last one sees an event first: in
//! the example the span also covers what [`Dedupe`] drops, and only the handler itself has five seconds.
//!
//! A failure of a middleware is a failure of the handler: the event is tried again after a backoff.

mod dedupe;
#[cfg(test)]
mod tests;
mod upcast;

use async_trait::async_trait;

use super::handler::EventHandler;
use crate::error::BoxError;
use crate::event::Event;
use crate::middleware::Endpoint;

pub use crate::middleware::{Middleware, Next, Timeout, Tracing};
pub use dedupe::Dedupe;
pub use upcast::Upcast;

#[async_trait]
impl<H: EventHandler> Endpoint for H {
    async fn call(&self, event: Event) -> Result<(), BoxError> {
        self.handle(event).await
    }
}

/// A handler with a middleware around it; made by [`EventHandlerExt::with`].
#[derive(Debug, Clone)]
pub struct Layered<H, M> {
    handler: H,
    middleware: M,
}

#[async_trait]
impl<H: EventHandler, M: Middleware> EventHandler for Layered<H, M> {
    async fn handle(&self, event: Event) -> Result<(), BoxError> {
        self.middleware
            .handle(event, Next::new(&self.handler))
            .await
    }
}

/// Putting middleware around handlers, closures too.
pub trait EventHandlerExt: EventHandler + Sized {
    /// Surrounds this handler, and the middleware it has already, with one more.
    fn with<M: Middleware>(self, middleware: M) -> Layered<Self, M> {
        Layered {
            handler: self,
            middleware,
        }
    }
}

impl<H: EventHandler> EventHandlerExt for H {}
