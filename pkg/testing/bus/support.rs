use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bson::DateTime;
use serde_json::json;
use uuid::Uuid;

use super::Verdict;
use crate::bus::{EventBus, RedeliveryPolicy, Subscription};
use crate::document::{DocumentKey, Version};
use crate::event::{Event, EventId, EventParts, Metadata};

/// How long a case waits for what must happen; a broker may take this long to miss a dead member.
const DEADLINE: Duration = Duration::from_secs(30);

/// An event about a document of the collection `users`, with an id that follows from the arguments.
#[must_use]
pub fn sample_event(event_type: &str, id: &str, version: u64) -> Event {
    in_collection("users", event_type, id, version)
}

pub(super) fn in_collection(collection: &str, event_type: &str, id: &str, version: u64) -> Event {
    let document = DocumentKey::new(collection, id);
    let version = Version::new(version);
    Event::from_parts(EventParts {
        id: EventId::derive(Uuid::from_u128(7), &document, version, 0),
        event_type: event_type.into(),
        aggregate_type: "User".into(),
        document,
        version,
        index: 0,
        time: DateTime::from_millis(1_700_000_000_000),
        schema: 1,
        data: json!({ "version": version.get() }),
        metadata: Metadata::default(),
    })
}

/// `versions` events of each of `documents` documents, interleaved.
pub(super) fn interleaved(documents: u64, versions: u64) -> Vec<Event> {
    (1..=versions)
        .flat_map(|version| {
            (0..documents).map(move |n| sample_event("UserUpdated", &format!("u{n}"), version))
        })
        .collect()
}

/// A retry policy with waits short enough for a test.
pub(super) fn quick(attempts: u32) -> RedeliveryPolicy {
    RedeliveryPolicy::new()
        .with_attempts(attempts)
        .with_delays(Duration::from_millis(1), Duration::from_millis(5))
}

/// What a case is reported with where subscriptions share nothing.
pub(super) const NO_GROUPS: Verdict = Verdict::NotApplicable("able to share events in groups");

/// In a group where the bus has groups, else on its own: for cases that hold for both.
pub(super) fn grouped(bus: &Arc<dyn EventBus>, name: &str, alone: Subscription) -> Subscription {
    if bus.capabilities().groups {
        alone.with_group(name)
    } else {
        alone
    }
}

pub(super) async fn publish(bus: &Arc<dyn EventBus>, events: &[Event]) {
    for batch in events.chunks(64) {
        if let Err(error) = bus.publish(batch).await {
            fail(&format!("publish failed: {error:?}"));
        }
    }
}

/// Polls a condition until it holds.
///
/// # Panics
/// When it does not hold within half a minute, naming it.
pub async fn eventually<F, Fut>(what: &str, mut holds: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let begin = Instant::now();
    while !holds().await {
        if begin.elapsed() > DEADLINE {
            fail(&format!("not within {DEADLINE:?}: {what}"));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Fails the running case.
#[allow(clippy::panic)]
pub(super) fn fail(what: &str) -> ! {
    panic!("{what}")
}

/// Collects what handlers saw.
#[derive(Debug, Clone, Default)]
pub struct Recorder(Arc<Mutex<Vec<Event>>>);

impl Recorder {
    /// A recorder that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an event.
    pub fn record(&self, event: Event) {
        self.events_mut().push(event);
    }

    /// What was recorded so far, in order.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.events_mut().clone()
    }

    /// How much was recorded so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events_mut().len()
    }

    /// Whether nothing was recorded so far.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn events_mut(&self) -> std::sync::MutexGuard<'_, Vec<Event>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until this many events were recorded.
    ///
    /// # Panics
    /// When they do not come within half a minute.
    pub async fn wait_for(&self, count: usize) {
        eventually(&format!("{count} events arrive"), || async {
            self.len() >= count
        })
        .await;
    }

    /// Waits for `expected` and nothing else, each event once, every document's in the order given.
    pub(super) async fn wait_for_exactly(&self, expected: &[Event]) {
        self.wait_for(expected.len()).await;
        let seen = self.events();
        assert_eq!(seen.len(), expected.len(), "number of events");
        assert_same_order(&seen, expected);
    }
}

/// Every document's events are those of `expected` in the same order.
pub(super) fn assert_same_order(seen: &[Event], expected: &[Event]) {
    let mut documents: Vec<_> = expected.iter().map(Event::document).collect();
    documents.sort_unstable();
    documents.dedup();
    assert_eq!(seen.len(), expected.len(), "number of events");
    for document in documents {
        let of = |events: &[Event]| -> Vec<(u64, EventId)> {
            events
                .iter()
                .filter(|event| event.document() == document)
                .map(|event| (event.version().get(), event.id()))
                .collect()
        };
        assert_eq!(of(seen), of(expected), "events of {document}");
    }
}

/// `Ok` values of calls that a case needs to succeed.
pub(super) fn must<T, E: std::fmt::Debug>(result: Result<T, E>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => fail(&format!("failed: {error:?}")),
    }
}
