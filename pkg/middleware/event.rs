//! Events as messages.

use tracing::Span;
use tracing::field::Empty;

use super::Traced;
use crate::event::Event;

impl Traced for Event {
    fn span(&self) -> Span {
        let metadata = self.metadata();
        tracing::info_span!(
            target: "nodestorage::bus",
            "handle_event",
            event_type = self.event_type(),
            document = %self.document(),
            version = self.version().get(),
            index = self.index(),
            event = %self.id(),
            correlation = metadata.correlation.as_deref(),
            causation = metadata.causation.as_deref(),
            traceparent = metadata.traceparent.as_deref(),
            tracestate = metadata.tracestate.as_deref(),
            outcome = Empty,
        )
    }

    fn label(&self) -> String {
        format!("event {}", self.id())
    }
}
