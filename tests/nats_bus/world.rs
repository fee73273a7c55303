//! Events, who publishes them in spite of everything, and who checks what came of it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nodestorage::Event;
use nodestorage::bus::nats::NatsBusOptions;
use nodestorage::bus::{EventBus, EventBusExt, NatsBus, Subscription, SubscriptionHandle};
use nodestorage::testing::bus::sample_event;

/// How long something may take on a machine with other things to do.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Claims that run out soon enough for a test, and requests that give up soon enough for a fault.
pub(crate) fn options(prefix: &str) -> NatsBusOptions {
    NatsBusOptions::new()
        .with_prefix(prefix)
        .with_max_bytes(Some(64 << 20))
        .with_claim_ttl(Duration::from_secs(2))
        .with_request_timeout(Duration::from_secs(2))
}

/// `versions` events of each of `documents` documents, interleaved.
pub(crate) fn events(documents: u64, versions: std::ops::RangeInclusive<u64>) -> Vec<Event> {
    versions
        .flat_map(|version| {
            (0..documents).map(move |n| sample_event("UserUpdated", &format!("u{n}"), version))
        })
        .collect()
}

/// Publishes as a relay does: what is not confirmed again, until it is.
pub(crate) async fn publish(bus: &NatsBus, events: &[Event]) -> usize {
    let (begin, mut failures) = (Instant::now(), 0);
    for batch in events.chunks(64) {
        let mut rest = batch;
        while let Err(error) = bus.publish(rest).await {
            assert!(!error.is_poison(), "{error:?}");
            assert!(begin.elapsed() < DEADLINE, "{error:?}");
            failures += 1;
            rest = &rest[error.confirmed()..];
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    failures
}

/// What handlers saw, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen(Arc<Mutex<Vec<Event>>>);

impl Seen {
    pub(crate) fn record(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// How many different events.
    pub(crate) fn different(&self) -> usize {
        let seen = self.0.lock().unwrap();
        seen.iter().map(Event::id).collect::<HashSet<_>>().len()
    }

    /// Subscribes a member whose handler only records.
    pub(crate) async fn subscribe(
        &self,
        bus: &NatsBus,
        subscription: Subscription,
    ) -> SubscriptionHandle {
        let seen = self.clone();
        let subscribed = bus.subscribe(subscription, move |event: Event| {
            seen.record(event);
            async {}
        });
        subscribed.await.unwrap()
    }

    /// Waits for all of `expected`. None may be missing and every document's must be in order; one that
    /// was seen before may come again. Returns how many did.
    pub(crate) async fn check(&self, expected: &[Event]) -> usize {
        let begin = Instant::now();
        while self.different() < expected.len() {
            if begin.elapsed() > DEADLINE {
                let seen: HashSet<_> = self.events().iter().map(Event::id).collect();
                let missing = expected.iter().filter(|event| !seen.contains(&event.id()));
                let missing: Vec<_> = missing
                    .map(|event| format!("{}@{}", event.aggregate_id(), event.version()))
                    .collect();
                panic!("{} events missing: {missing:?}", missing.len());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        check_order(&self.events(), expected)
    }
}

/// See [`Seen::check`].
pub(crate) fn check_order(seen: &[Event], expected: &[Event]) -> usize {
    let mut ids = HashSet::new();
    let mut by_document: HashMap<_, Vec<_>> = HashMap::new();
    let mut repeated = 0;
    for event in seen {
        if ids.insert(event.id()) {
            let versions = by_document.entry(event.document().clone()).or_default();
            versions.push(event.version());
        } else {
            repeated += 1;
        }
    }
    assert_eq!(ids, expected.iter().map(Event::id).collect::<HashSet<_>>());
    for (document, versions) in by_document {
        let breaks: Vec<_> = versions.windows(2).filter(|it| it[0] > it[1]).collect();
        assert!(breaks.is_empty(), "{document}: {breaks:?}");
    }
    repeated
}

pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(
            begin.elapsed() < DEADLINE,
            "not within {DEADLINE:?}: {what}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
