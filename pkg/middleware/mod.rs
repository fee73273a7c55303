//! What surrounds the handling of a message: spans, deadlines, validation, authorization.
//!
//! One [`Middleware`] trait serves the handlers of events on every [bus](crate::bus::middleware) and those
//! of [commands](crate::command). A middleware gets the message and [what comes after it](Next), and decides
//! whether, when and how often to run that. [`Timeout`] and [`Tracing`] surround both.

mod event;
mod timeout;
mod tracing;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::error::BoxError;
use crate::event::Event;

pub use timeout::Timeout;
pub use tracing::{Traced, Tracing};

/// Surrounds the handling of messages `M` that come to an `R`: of events by default, which come to nothing.
///
/// As a handler, it must be cancel safe: when its caller gives up, its future is dropped at the
/// `await` it is in, together with that of what it surrounds. One middleware may surround several handlers,
/// shared in an [`Arc`], and serves many calls at a time.
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
pub trait Middleware<M = Event, R = ()>: Send + Sync + 'static
where
    M: Send + 'static,
    R: Send + 'static,
{
    /// Handles a message by running `next`, or in its place.
    ///
    /// # Errors
    /// Those of `next`, unless it does something about them, and its own. An error has an event redelivered,
    /// and goes back to whoever sent a command.
    async fn handle(&self, message: M, next: Next<'_, M, R>) -> Result<R, BoxError>;
}

#[async_trait]
impl<M, R, T> Middleware<M, R> for Arc<T>
where
    M: Send + 'static,
    R: Send + 'static,
    T: Middleware<M, R> + ?Sized,
{
    async fn handle(&self, message: M, next: Next<'_, M, R>) -> Result<R, BoxError> {
        (**self).handle(message, next).await
    }
}

/// Where a message ends up: what the innermost middleware surrounds. Handlers of events are endpoints.
///
/// # Examples
/// ```
/// use async_trait::async_trait;
/// use nodestorage::error::BoxError;
/// use nodestorage::middleware::{Endpoint, Next};
///
/// struct Double;
///
/// #[async_trait]
/// impl Endpoint<u32, u32> for Double {
///     async fn call(&self, number: u32) -> Result<u32, BoxError> {
///         Ok(2 * number)
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
/// assert_eq!(Next::new(&Double).run(21).await?, 42);
/// # Ok(()) }
/// ```
#[async_trait]
pub trait Endpoint<M = Event, R = ()>: Send + Sync
where
    M: Send + 'static,
    R: Send + 'static,
{
    /// Handles the message.
    ///
    /// # Errors
    /// Whatever went wrong.
    async fn call(&self, message: M) -> Result<R, BoxError>;
}

/// What a middleware surrounds: the handler, with whatever middleware lies between.
///
/// # Examples
/// ```
/// use nodestorage::Event;
/// use nodestorage::error::BoxError;
/// use nodestorage::middleware::Next;
///
/// /// What a middleware may do: try once more.
/// async fn twice(event: Event, next: Next<'_>) -> Result<(), BoxError> {
///     match next.run(event.clone()).await {
///         Ok(()) => Ok(()),
///         Err(_) => next.run(event).await,
///     }
/// }
/// ```
pub struct Next<'a, M = Event, R = ()> {
    layers: &'a [Arc<dyn Middleware<M, R>>],
    endpoint: &'a dyn Endpoint<M, R>,
}

impl<'a, M: Send + 'static, R: Send + 'static> Next<'a, M, R> {
    /// The end of the chain; for code that runs a middleware itself, such as tests.
    #[must_use]
    pub fn new(endpoint: &'a dyn Endpoint<M, R>) -> Self {
        Self::through(&[], endpoint)
    }

    /// A chain: the first layer sees a message first.
    #[must_use]
    pub fn through(
        layers: &'a [Arc<dyn Middleware<M, R>>],
        endpoint: &'a dyn Endpoint<M, R>,
    ) -> Self {
        Self { layers, endpoint }
    }

    /// Runs it, once per call.
    ///
    /// # Errors
    /// Those of the handler and of the middleware in between.
    pub async fn run(&self, message: M) -> Result<R, BoxError> {
        match self.layers.split_first() {
            Some((first, rest)) => {
                let next = Next::through(rest, self.endpoint);
                first.handle(message, next).await
            }
            None => self.endpoint.call(message).await,
        }
    }
}

impl<M, R> Clone for Next<'_, M, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M, R> Copy for Next<'_, M, R> {}

impl<M, R> fmt::Debug for Next<'_, M, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Next").finish_non_exhaustive()
    }
}
