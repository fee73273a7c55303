//! What the fault tests share.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use nodestorage::bus::redis::{RedisBus, RedisBusOptions};
use nodestorage::bus::{EventBus, EventBusExt, Subscription, SubscriptionHandle};
use nodestorage::testing::bus::{Recorder, eventually, sample_event};
use nodestorage::{Error, ErrorKind, Event};

/// Options of a bus whose members are missed soon.
pub(crate) fn options(prefix: &str) -> RedisBusOptions {
    RedisBusOptions::new()
        .with_prefix(prefix)
        .with_claim_ttl(Duration::from_secs(2))
        .with_timeout(Duration::from_secs(2))
}

pub(crate) async fn connect(url: &str, prefix: &str) -> RedisBus {
    RedisBus::connect(url, options(prefix)).await.unwrap()
}

/// `versions` events of each of `documents` documents, interleaved.
pub(crate) fn events(documents: u64, versions: std::ops::RangeInclusive<u64>) -> Vec<Event> {
    versions
        .flat_map(|version| {
            (0..documents).map(move |n| sample_event("UserUpdated", &format!("u{n}"), version))
        })
        .collect()
}

pub(crate) async fn record(
    bus: &RedisBus,
    subscription: Subscription,
    seen: &Recorder,
) -> SubscriptionHandle {
    let recorder = seen.clone();
    bus.subscribe(subscription, move |event: Event| {
        recorder.record(event);
        async {}
    })
    .await
    .unwrap()
}

/// Publishes as a relay does: again, from what is not confirmed, until the bus takes it.
pub(crate) async fn publish(bus: &RedisBus, events: &[Event]) {
    let begin = Instant::now();
    let mut rest = events;
    while !rest.is_empty() {
        let batch = &rest[..rest.len().min(32)];
        match bus.publish(batch).await {
            Ok(()) => rest = &rest[batch.len()..],
            Err(error) => {
                rest = &rest[error.confirmed()..];
                let error = Error::from(error);
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
                assert!(begin.elapsed() < Duration::from_secs(60), "{error}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

/// Waits until everything has arrived, and checks that each document's events were first seen in order.
pub(crate) async fn all_arrive_in_order(seen: &Recorder, expected: &[Event]) {
    let firsts = || {
        let mut known = std::collections::HashSet::new();
        let mut events = seen.events();
        events.retain(|event| known.insert(event.id()));
        events
    };
    eventually("everything arrives", || async {
        firsts().len() >= expected.len()
    })
    .await;
    let firsts = firsts();
    assert_eq!(firsts.len(), expected.len());
    let mut last: HashMap<String, u64> = HashMap::new();
    for event in firsts {
        let last = last.entry(event.document().to_string()).or_default();
        assert_eq!(event.version().get(), *last + 1, "{}", event.document());
        *last += 1;
    }
}
