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
mod timeout;
mod tracing;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use super::handler::EventHandler;
use crate::error::BoxError;
use crate::event::Event;

pub use dedupe::Dedupe;
pub use timeout::Timeout;
pub use tracing::Tracing;

/// Surrounds the calls of a handler.
///
/// As a handler, it must be cancel safe: when its subscription is aborted its future is dropped at the
/// `await` it is in, together with that of the handler. One middleware may surround several handlers,
/// shared in an [`Arc`], and serves the calls of many workers at a time.
///
/// # Examples
/// ```
/// use async_trait::async_trait;
/// use nodestorage::Event;
/// use nodestorage::bus::{Middleware, Next};
/// use nodestorage::error::BoxError;
///
/// /// Leaves out what other tenants did.
/// struct OnlyTenant(String);
///
/// #[async_trait]
/// impl Middleware for OnlyTenant {
///     async fn handle(&self, event: Event, next: Next<'_>) -> Result<(), BoxError> {
///         if event.metadata().tenant.as_ref() == Some(&self.0) {
///             next.run(event).await
///         } else {
///             Ok(())
///         }
///     }
/// }
/// ```
#[async_trait]
pub trait Middleware: Send + Sync + 'static {
    /// Handles an event by running `next`, or in its place. Returning `Ok` acknowledges the event.
    ///
    /// # Errors
    /// Those of `next`, unless it does something about them, and its own. Any error has the event
    /// redelivered, as one of the [handler](EventHandler::handle) does.
    async fn handle(&self, event: Event, next: Next<'_>) -> Result<(), BoxError>;
}

#[async_trait]
impl<M: Middleware + ?Sized> Middleware for Arc<M> {
    async fn handle(&self, event: Event, next: Next<'_>) -> Result<(), BoxError> {
        (**self).handle(event, next).await
    }
}

/// What a middleware surrounds: the handler, with whatever middleware lies between.
#[derive(Clone, Copy)]
pub struct Next<'a>(&'a dyn EventHandler);

impl<'a> Next<'a> {
    /// Ends the chain with a handler; for code that runs a middleware itself, such as tests.
    #[must_use]
    pub fn new(handler: &'a dyn EventHandler) -> Self {
        Self(handler)
    }

    /// Runs it, once per call.
    ///
    /// # Errors
    /// Those of the handler and of the middleware in between.
    pub async fn run(&self, event: Event) -> Result<(), BoxError> {
        self.0.handle(event).await
    }
}

impl fmt::Debug for Next<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Next").finish_non_exhaustive()
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::bus::samples::event;

    /// Notes when it begins and ends.
    struct Note(&'static str, Arc<Mutex<Vec<String>>>);

    impl Note {
        fn down(&self, what: &str) {
            let mut lines = self.1.lock().unwrap();
            lines.push(format!("{what} {}", self.0));
        }
    }

    #[async_trait]
    impl Middleware for Note {
        async fn handle(&self, event: Event, next: Next<'_>) -> Result<(), BoxError> {
            self.down("enter");
            let result = next.run(event).await;
            self.down("leave");
            result
        }
    }

    #[tokio::test]
    async fn the_last_one_attached_is_the_outermost() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let note = |name| Note(name, Arc::clone(&lines));
        let inside = Arc::clone(&lines);
        let handler = move |event: Event| {
            inside.lock().unwrap().push(event.event_type().to_owned());
            async { Err::<(), _>("no") }
        };
        // Shared ones are middleware as well.
        let handler = handler.with(note("inner")).with(Arc::new(note("outer")));
        let error = handler.handle(event("Handled", 1)).await.unwrap_err();
        assert_eq!(error.to_string(), "no");
        let expected = [
            "enter outer",
            "enter inner",
            "Handled",
            "leave inner",
            "leave outer",
        ];
        assert_eq!(*lines.lock().unwrap(), expected);
    }
}
