//! Many events of one document in one call.

use std::time::Duration;

use nodestorage::Event;
use nodestorage::bus::{EventBus, EventBusExt, NatsBus, RedeliveryPolicy, Subscription};
use nodestorage::testing::bus::sample_event;

use crate::nats::{Nats, fresh_prefix};
use crate::world::{Seen, events, eventually, options, publish};

/// One document's events go as one atomic batch; a repetition of some of them does not store any twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hot_document_is_published_in_order_and_once() {
    let bus = NatsBus::connect(Nats::shared().url(), options(&fresh_prefix()))
        .await
        .unwrap();
    let seen = Seen::default();
    seen.subscribe(&bus, Subscription::to_all().with_group("g"))
        .await;
    // More than one batch of the server, and other documents between.
    let all = events(3, 1..=500);
    bus.publish(&all[..900]).await.unwrap();
    bus.publish(&all[300..]).await.unwrap();
    bus.publish(&all).await.unwrap();
    assert_eq!(seen.check(&all).await, 0);
    bus.close().await.unwrap();
}

/// One document's event fails for so long that more comes after it than a new owner walks through: it
/// gets the event when its time is up, and before the document's next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_far_behind_is_handed_over_in_order() {
    let options = options(&fresh_prefix()).with_ack_wait(Duration::from_secs(6));
    let bus = NatsBus::connect(Nats::shared().url(), options.with_max_bytes(Some(1 << 30)))
        .await
        .unwrap();
    let slow = RedeliveryPolicy::new().with_delays(DAY, DAY);
    let subscription = Subscription::to_all()
        .with_group("g")
        .with_workers(8)
        .with_retry(slow);
    let handled = Seen::default();
    let recorder = handled.clone();
    let first = bus
        .subscribe(subscription.clone(), move |event: Event| {
            let fails = event.aggregate_id().to_string() == "late";
            if !fails {
                recorder.record(event);
            }
            async move { if fails { Err("not today") } else { Ok(()) } }
        })
        .await
        .unwrap();
    let late = [
        sample_event("UserUpdated", "late", 1),
        sample_event("UserUpdated", "late", 2),
    ];
    publish(&bus, &late[..1]).await;
    let between = events(256, 1..=400);
    for batch in between.chunks(256) {
        bus.publish(batch).await.unwrap();
    }
    eventually("the others are handled", || {
        handled.different() == between.len()
    })
    .await;
    first.abort();
    let seen = Seen::default();
    seen.subscribe(&bus, subscription).await;
    publish(&bus, &late[1..]).await;
    seen.check(&late).await;
    bus.close().await.unwrap();
}

const DAY: Duration = Duration::from_secs(86_400);
