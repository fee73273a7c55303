//! A stream without room.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nodestorage::bus::{
    EventBus, EventBusExt, NatsBus, RedeliveryPolicy, Subscription, SubscriptionState,
};
use nodestorage::error::ErrorKind;
use nodestorage::event::{Event, EventParts};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use nodestorage::testing::bus::sample_event;

use crate::nats::{Nats, fresh_prefix};
use crate::world::{DEADLINE, Seen, events, options, publish};

/// What a group has not handled is not dropped: publishing fails. What all have handled makes room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_stream_refuses_until_its_groups_have_caught_up() {
    let prefix = fresh_prefix();
    let options = options(&prefix).with_max_bytes(Some(400_000));
    let bus = NatsBus::connect(Nats::shared().url(), options)
        .await
        .unwrap();
    let (seen, gate) = (Seen::default(), Arc::new(Semaphore::new(0)));
    let (recorder, turnstile) = (seen.clone(), Arc::clone(&gate));
    let subscription = Subscription::to_all().with_group("slow").with_workers(4);
    bus.subscribe(subscription, move |event: Event| {
        let (recorder, turnstile) = (recorder.clone(), Arc::clone(&turnstile));
        async move {
            turnstile.acquire().await?.forget();
            recorder.record(event);
            Ok::<_, tokio::sync::AcquireError>(())
        }
    })
    .await
    .unwrap();
    let all = events(20, 1..=200);
    let mut published = 0;
    let error = loop {
        match bus.publish(&all[published..published + 100]).await {
            Ok(()) => published += 100,
            Err(error) => break error,
        }
        assert!(published < all.len() - 100, "the stream takes everything");
    };
    assert!(!error.is_poison());
    published += error.confirmed();
    assert_eq!(error.error().kind(), ErrorKind::Unavailable, "{error:?}");
    // It stays so as long as nothing was handled.
    assert!(bus.publish(&all[published..published + 50]).await.is_err());
    gate.add_permits(all.len());
    let (begin, rest) = (Instant::now(), &all[published..]);
    publish(&bus, rest).await;
    assert!(begin.elapsed() < DEADLINE);
    assert_eq!(seen.check(&all).await, 0);
    bus.close().await.unwrap();
}

/// Nobody waits for the events of a bus without groups.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_without_groups_makes_room_by_itself() {
    let options = options(&fresh_prefix())
        .with_max_bytes(Some(200_000))
        .with_request_timeout(Duration::from_secs(10));
    let bus = NatsBus::connect(Nats::shared().url(), options)
        .await
        .unwrap();
    for batch in events(20, 1..=200).chunks(64) {
        bus.publish(batch).await.unwrap();
    }
    bus.close().await.unwrap();
}

/// Like those of the others, but large.
fn large_event(event_type: &str, id: &str, bytes: usize) -> Event {
    let like = sample_event(event_type, id, 1);
    Event::from_parts(EventParts {
        data: "x".repeat(bytes).into(),
        ..like.into_parts()
    })
}

/// Dead letters leave room for what keeps groups alive: the subscription stalls, and goes on when there is room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_that_fill_the_state_stall_their_subscription_and_no_other() {
    let options = options(&fresh_prefix()).with_max_state_bytes(Some(16 << 20));
    let bus = NatsBus::connect(Nats::shared().url(), options)
        .await
        .unwrap();
    let failing = Subscription::to("Large").with_group("failing");
    let failing = failing.with_retry(RedeliveryPolicy::new().with_attempts(1));
    let handle = bus.subscribe(failing, |_: Event| async { Err::<(), _>("no") });
    let handle = handle.await.unwrap();
    let seen = Seen::default();
    seen.subscribe(&bus, Subscription::to_all().with_group("other"))
        .await;
    // Each of them 700 kB.
    let mut all = Vec::new();
    for n in 0..30 {
        let event = large_event("Large", &format!("u{n}"), 700_000);
        publish(&bus, std::slice::from_ref(&event)).await;
        all.push(event);
    }
    let mut state = handle.state_changes();
    let stalled = |state: &SubscriptionState| matches!(state, SubscriptionState::Stalled { .. });
    timeout(DEADLINE, state.wait_for(stalled))
        .await
        .unwrap()
        .unwrap();
    let letters = handle.dead_letters(100).await.unwrap();
    assert!((15..25).contains(&letters.len()), "{}", letters.len());
    // Claims are renewed meanwhile, so the other group goes on.
    assert_eq!(seen.check(&all).await, 0);
    let ids: Vec<_> = letters.iter().map(|letter| letter.id).collect();
    assert_eq!(handle.discard(&ids).await.unwrap(), ids.len());
    let running = |state: &SubscriptionState| *state == SubscriptionState::Running;
    timeout(DEADLINE, state.wait_for(running))
        .await
        .unwrap()
        .unwrap();
    bus.close().await.unwrap();
}
