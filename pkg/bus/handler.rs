use std::future::Future;

use async_trait::async_trait;

use crate::error::BoxError;
use crate::event::Event;

/// Handles the events of a subscription.
///
/// Closures `Fn(Event) -> impl Future` are handlers if the future's output is `()` or
/// `Result<(), E>` with any error. Types implement the trait themselves.
///
/// A handler may see an event more than once: after an error, a panic, or the death of a process that
/// had handled but not acknowledged it. Events of the same document never run at the same time within
/// a group, so a handler drops what is not above the last `(version, index)` it saw.
///
/// A handler must be cancel safe: when its subscription is aborted, or a drain deadline passes, its
/// future is dropped at the `await` it is in, and the event is handed to another member. It must not
/// wait for what waits for it: ending its own subscription, or publishing to its own bus when that
/// could find its own queue full.
///
/// # Examples
/// ```
/// use async_trait::async_trait;
/// use nodestorage::Event;
/// use nodestorage::bus::EventHandler;
/// use nodestorage::error::BoxError;
///
/// struct Mailer { from: String }
///
/// #[async_trait]
/// impl EventHandler for Mailer {
///     async fn handle(&self, event: Event) -> Result<(), BoxError> {
///         println!("{} writes to {}", self.from, event.aggregate_id());
///         Ok(())
///     }
/// }
/// ```
#[async_trait]
pub trait EventHandler: Send + Sync + 'static {
    /// Handles one event; returning `Ok` acknowledges it.
    ///
    /// # Errors
    /// Any error has the event redelivered after a backoff, and put into the dead letters after the last
    /// attempt of the subscription's [`RedeliveryPolicy`](super::RedeliveryPolicy).
    async fn handle(&self, event: Event) -> Result<(), BoxError>;
}

#[async_trait]
impl<F, Fut, R> EventHandler for F
where
    F: Fn(Event) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = R> + Send,
    R: HandlerOutcome,
{
    async fn handle(&self, event: Event) -> Result<(), BoxError> {
        self(event).await.into_result()
    }
}

/// What a handler closure may come to: `()`, or a `Result<(), E>`.
pub trait HandlerOutcome {
    /// The result it stands for.
    ///
    /// # Errors
    /// The closure's own error.
    fn into_result(self) -> Result<(), BoxError>;
}

impl HandlerOutcome for () {
    fn into_result(self) -> Result<(), BoxError> {
        Ok(())
    }
}

impl<E: Into<BoxError>> HandlerOutcome for Result<(), E> {
    fn into_result(self) -> Result<(), BoxError> {
        self.map_err(Into::into)
    }
}
