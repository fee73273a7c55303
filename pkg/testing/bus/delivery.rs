use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::support::{assert_same_order, grouped, in_collection, interleaved, must, publish};
use super::{Harness, Recorder, Verdict, sample_event};
use crate::bus::{EventBusExt, StartFrom, Subscription};
use crate::error::ErrorKind;
use crate::event::{Event, Metadata};

/// Nobody listening is no reason to refuse an event.
pub async fn publishing_without_a_subscriber_succeeds(harness: impl Harness) -> Verdict {
    let bus = harness().await;
    must(bus.publish(&[]).await);
    publish(&bus, &interleaved(3, 3)).await;
    Verdict::Passed
}

/// With one worker the whole batch arrives in the order it was published: over all documents where the
/// bus promises that, for each of them in any case.
pub async fn a_batch_arrives_in_order(harness: impl Harness) -> Verdict {
    let bus = harness().await;
    let seen = Recorder::new();
    let recorder = seen.clone();
    must(
        bus.subscribe(Subscription::to_all(), move |event: Event| {
            recorder.record(event);
            async {}
        })
        .await,
    );
    let events = interleaved(40, 5);
    must(bus.publish(&events).await);
    seen.wait_for_exactly(&events).await;
    if bus.capabilities().total_order {
        assert_eq!(seen.events(), events);
    }
    Verdict::Passed
}

/// Publishers that publish at the same time do not mix up the documents of each other.
pub async fn concurrent_publishers_keep_each_document_in_order(harness: impl Harness) -> Verdict {
    let bus = harness().await;
    let seen = Recorder::new();
    let recorder = seen.clone();
    let subscription = Subscription::to_all().with_workers(4).with_queue(50);
    must(
        bus.subscribe(subscription, move |event: Event| {
            recorder.record(event);
            async {}
        })
        .await,
    );
    let batches: Vec<Vec<Event>> = (0..8)
        .map(|publisher| {
            (1..=100)
                .map(|version| sample_event("UserUpdated", &format!("u{publisher}"), version))
                .collect()
        })
        .collect();
    let mut publishers = tokio::task::JoinSet::new();
    for batch in batches.clone() {
        let bus = Arc::clone(&bus);
        publishers.spawn(async move { publish(&bus, &batch).await });
    }
    publishers.join_all().await;
    seen.wait_for_exactly(&batches.concat()).await;
    Verdict::Passed
}

/// Every field of the envelope and every kind of payload comes out as it went in.
pub async fn metadata_and_payloads_arrive_unchanged(harness: impl Harness) -> Verdict {
    let bus = harness().await;
    let seen = Recorder::new();
    let recorder = seen.clone();
    must(
        bus.subscribe(Subscription::to_all(), move |event: Event| {
            recorder.record(event);
            async {}
        })
        .await,
    );
    let metadata = Metadata::new()
        .with_correlation("c-1")
        .with_causation("e-1")
        .with_actor("사용자")
        .with_tenant("t")
        .with_trace(
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            Some("congo=t61rcWkgMzE".into()),
        )
        .with_extra("note", "line\nbreak \"quoted\" ünïcode");
    let payloads = [
        Value::Null,
        json!(true),
        json!(-1),
        json!(i64::MAX),
        json!(0.1),
        json!(1.0),
        json!(""),
        json!("🦀 \u{0} \u{7f} \\ / \""),
        json!([]),
        json!({}),
        json!({"": null, "a.b": {"$x": [1, "2", [3.5, false]]}, "키": "값"}),
        json!("x".repeat(1_000_000)),
    ];
    let events: Vec<_> = payloads
        .into_iter()
        .enumerate()
        .map(|(n, data)| {
            let id = format!("u {n}/*>.~#ß");
            let mut parts = in_collection("app.users", "User Was-Seen.", &id, 3).into_parts();
            parts.data = data;
            parts.schema = 4;
            parts.index = 2;
            parts.metadata = metadata.clone();
            Event::from_parts(parts)
        })
        .collect();
    must(bus.publish(&events).await);
    seen.wait_for_exactly(&events).await;
    for event in seen.events() {
        assert!(events.contains(&event), "{} has changed", event.document());
    }
    Verdict::Passed
}

/// One subscriber is stuck in its first event; the other is done with all of them, and once the first
/// moves again it misses none.
pub async fn a_slow_subscriber_does_not_hold_up_the_others(harness: impl Harness) -> Verdict {
    let bus = harness().await;
    let (slow, fast) = (Recorder::new(), Recorder::new());
    let gate = Arc::new(Semaphore::new(0));
    let (recorder, turnstile) = (slow.clone(), Arc::clone(&gate));
    let subscription = Subscription::to_all().with_queue(500);
    must(
        bus.subscribe(subscription.clone(), move |event: Event| {
            let (recorder, turnstile) = (recorder.clone(), Arc::clone(&turnstile));
            async move {
                turnstile.acquire().await?.forget();
                recorder.record(event);
                Ok::<_, tokio::sync::AcquireError>(())
            }
        })
        .await,
    );
    let recorder = fast.clone();
    must(
        bus.subscribe(subscription, move |event: Event| {
            recorder.record(event);
            async {}
        })
        .await,
    );
    let events = interleaved(5, 80);
    publish(&bus, &events).await;
    fast.wait_for_exactly(&events).await;
    assert!(slow.is_empty());
    gate.add_permits(events.len());
    slow.wait_for_exactly(&events).await;
    Verdict::Passed
}

/// What a relay repeats after a crash is recognised by the event id.
pub async fn an_event_id_published_twice_reaches_a_group_once(harness: impl Harness) -> Verdict {
    let bus = harness().await;
    if !bus.capabilities().deduplicates {
        return Verdict::NotApplicable("able to deduplicate");
    }
    let seen = Recorder::new();
    let recorder = seen.clone();
    let subscription = grouped(&bus, "once", Subscription::to_all());
    must(
        bus.subscribe(subscription, move |event: Event| {
            recorder.record(event);
            async {}
        })
        .await,
    );
    let events = interleaved(4, 10);
    publish(&bus, &events).await;
    publish(&bus, &events).await;
    let last = sample_event("UserDeleted", "last", 1);
    publish(&bus, std::slice::from_ref(&last)).await;
    let expected = [events, vec![last]].concat();
    seen.wait_for_exactly(&expected).await;
    Verdict::Passed
}

/// A bus that keeps past events delivers them; one that does not refuses to pretend.
pub async fn starting_from_the_beginning(harness: impl Harness) -> Verdict {
    let bus = harness().await;
    let events = interleaved(2, 5);
    publish(&bus, &events).await;
    let seen = Recorder::new();
    let recorder = seen.clone();
    let subscription = Subscription::to_all()
        .with_group("late")
        .with_start(StartFrom::Beginning);
    let result = bus
        .subscribe(subscription, move |event: Event| {
            recorder.record(event);
            async {}
        })
        .await;
    if !bus.capabilities().from_beginning {
        let kind = result.err().map(|error| error.kind());
        assert_eq!(kind, Some(ErrorKind::Unsupported));
        return Verdict::NotApplicable("able to start from the beginning");
    }
    must(result);
    seen.wait_for_exactly(&events).await;
    Verdict::Passed
}

async fn order_with(harness: impl Harness, workers: usize) -> Verdict {
    let bus = harness().await;
    let seen = Recorder::new();
    let recorder = seen.clone();
    let subscription = grouped(
        &bus,
        "ordered",
        Subscription::to_all().with_workers(workers),
    );
    must(
        bus.subscribe(subscription, move |event: Event| {
            let recorder = recorder.clone();
            async move {
                // Different for every event, so that workers overtake each other.
                let micros = event.version().get() * 37 % 211;
                tokio::time::sleep(Duration::from_micros(micros)).await;
                recorder.record(event);
            }
        })
        .await,
    );
    let events = interleaved(20, 30);
    publish(&bus, &events).await;
    seen.wait_for(events.len()).await;
    assert_same_order(&seen.events(), &events);
    Verdict::Passed
}

/// The simplest consumer.
pub async fn order_per_document_with_one_worker(harness: impl Harness) -> Verdict {
    order_with(harness, 1).await
}

/// Workers share the documents, not the events of one.
pub async fn order_per_document_with_eight_workers(harness: impl Harness) -> Verdict {
    order_with(harness, 8).await
}
