//! What a subscriber of `tracing` gets to see.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::instrument::WithSubscriber;
use tracing::span::{Attributes, Id, Record};
use tracing::{Metadata, Subscriber};

use super::super::*;
use crate::bus::samples::event;
use crate::bus::{EventHandler, EventHandlerExt};

type Fields = BTreeMap<String, String>;

/// Keeps the fields of the spans of [`Tracing`], and which of them a handler runs in.
#[derive(Clone, Default)]
struct Spans {
    seen: Arc<Mutex<BTreeMap<u64, Fields>>>,
    entered: Arc<Mutex<Vec<u64>>>,
    next: Arc<AtomicU64>,
}

struct Read<'a>(&'a mut Fields);

impl Visit for Read<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }
}

impl Subscriber for Spans {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_span() && metadata.target() == "nodestorage::bus"
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let number = self.next.fetch_add(1, Ordering::SeqCst) + 1;
        let mut fields = Fields::from([("span".to_owned(), span.metadata().name().to_owned())]);
        span.record(&mut Read(&mut fields));
        self.seen.lock().unwrap().insert(number, fields);
        Id::from_u64(number)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        let mut seen = self.seen.lock().unwrap();
        values.record(&mut Read(seen.get_mut(&span.into_u64()).unwrap()));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &tracing::Event<'_>) {}

    fn enter(&self, span: &Id) {
        self.entered.lock().unwrap().push(span.into_u64());
    }

    fn exit(&self, _: &Id) {
        self.entered.lock().unwrap().pop();
    }
}

#[tokio::test]
async fn the_span_names_the_event_and_where_it_came_from() {
    let spans = Spans::default();
    let entered = Arc::clone(&spans.entered);
    let handler = move |event: Event| {
        let entered = Arc::clone(&entered);
        async move {
            // Also after an await.
            tokio::task::yield_now().await;
            assert_eq!(entered.lock().unwrap().len(), 1);
            if event.version() == 2 {
                return Err("secret");
            }
            Ok(())
        }
    };
    let handler = handler.with(Tracing::new());
    let mut parts = event("UserCreated", 1).into_parts();
    parts.metadata = crate::event::Metadata::new()
        .with_correlation("request 7")
        .with_trace(
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            None,
        );
    let traced = Event::from_parts(parts);
    let id = traced.id().to_string();
    async {
        handler.handle(traced).await.unwrap();
        handler.handle(event("UserRenamed", 2)).await.unwrap_err();
    }
    .with_subscriber(spans.clone())
    .await;

    let seen: Vec<Fields> = spans.seen.lock().unwrap().values().cloned().collect();
    let expected = [
        ("span", "handle_event"),
        ("event_type", "UserCreated"),
        ("document", "users/u1"),
        ("version", "1"),
        ("index", "0"),
        ("event", id.as_str()),
        ("correlation", "request 7"),
        (
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
        ("outcome", "handled"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(seen[0], Fields::from(expected));
    assert_eq!(seen[1]["outcome"], "failed");
    assert!(seen[1].values().all(|value| !value.contains("secret")));
    assert!(!seen[1].contains_key("correlation") && seen.len() == 2);
}
