use async_trait::async_trait;
use tracing::{Instrument, Span};

use super::{Middleware, Next};
use crate::error::BoxError;

/// Handles each message in a span of its own, at level info.
///
/// | message | span | target |
/// |---|---|---|
/// | event | `handle_event` | `nodestorage::bus` |
/// | command | `handle_command` | `nodestorage::command` |
///
/// Fields of an event: `event_type`, `document`, `version`, `index`, `event` (the id); of a command:
/// `command`, `document`, `command_id`. Of both, from the metadata, where set:
/// `correlation`, `causation`, `traceparent` and `tracestate`; and `outcome`, `handled` or `failed`, once
/// the handler has returned. It stays empty when the handler panics or is dropped. Neither payload nor
/// error is recorded: what is in them is the application's.
///
/// A layer that exports spans links them to the trace that caused the change by `traceparent`, in the
/// form of W3C Trace Context.
///
/// # Examples
/// ```
/// use nodestorage::Event;
/// use nodestorage::bus::EventHandlerExt;
/// use nodestorage::middleware::Tracing;
///
/// let handler = |event: Event| async move { println!("{}", event.event_type()) };
/// let handler = handler.with(Tracing::new());
/// # let _ = handler;
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Tracing;

impl Tracing {
    /// Spans for every message.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

/// A message that can say what it is in spans and errors, without its payload. Events and commands can.
///
/// # Examples
/// ```
/// use nodestorage::middleware::Traced;
///
/// fn what_hangs(message: &impl Traced) -> String {
///     format!("{} is not done yet", message.label())
/// }
/// ```
pub trait Traced {
    /// The span in which it is handled, with an empty field `outcome`.
    fn span(&self) -> Span;

    /// What it is and which: `event 0190…`.
    fn label(&self) -> String;
}

#[async_trait]
impl<M, R> Middleware<M, R> for Tracing
where
    M: Traced + Send + 'static,
    R: Send + 'static,
{
    async fn handle(&self, message: M, next: Next<'_, M, R>) -> Result<R, BoxError> {
        let span = message.span();
        let result = next.run(message).instrument(span.clone()).await;
        let outcome = if result.is_ok() { "handled" } else { "failed" };
        span.record("outcome", outcome);
        result
    }
}
