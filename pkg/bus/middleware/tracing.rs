use async_trait::async_trait;
use tracing::Instrument;
use tracing::field::Empty;

use super::{Middleware, Next};
use crate::error::BoxError;
use crate::event::Event;

/// Handles each event in a span of its own, `handle_event`, at level info with the target
/// `nodestorage::bus`.
///
/// Fields: `event_type`, `document`, `version`, `index`, `event` (the id); from the metadata, where set,
/// `correlation`, `causation`, `traceparent` and `tracestate`; and `outcome`, `handled` or `failed`, once
/// the handler has returned. It stays empty when the handler panics or is dropped. Neither payload nor
/// error is recorded: what is in them is the application's.
///
/// A layer that exports spans links them to the trace that caused the change by `traceparent`, in the
/// form of W3C Trace Context.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tracing;

impl Tracing {
    /// Spans for every event.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

#[async_trait]
impl Middleware for Tracing {
    async fn handle(&self, event: Event, next: Next<'_>) -> Result<(), BoxError> {
        let metadata = event.metadata();
        let span = tracing::info_span!(
            target: "nodestorage::bus",
            "handle_event",
            event_type = event.event_type(),
            document = %event.document(),
            version = event.version().get(),
            index = event.index(),
            event = %event.id(),
            correlation = metadata.correlation.as_deref(),
            causation = metadata.causation.as_deref(),
            traceparent = metadata.traceparent.as_deref(),
            tracestate = metadata.tracestate.as_deref(),
            outcome = Empty,
        );
        let result = next.run(event).instrument(span.clone()).await;
        let outcome = if result.is_ok() { "handled" } else { "failed" };
        span.record("outcome", outcome);
        result
    }
}

#[cfg(test)]
mod tests;
