//! Streams have an end, and nobody's events are dropped for it.

use std::sync::Arc;
use std::time::Duration;

use ::redis::AsyncCommands;
use nodestorage::bus::redis::{RedisBus, WhenFull};
use nodestorage::bus::{EventBus, EventBusExt, StartFrom, Subscription};
use nodestorage::testing::bus::{Recorder, eventually};
use nodestorage::{Error, ErrorKind, Event};
use tokio::sync::Semaphore;

use crate::redis::{Redis, fresh_prefix};
use crate::world::{all_arrive_in_order, events, options, publish, record};

async fn lengths(prefix: &str) -> Vec<u64> {
    let client = ::redis::Client::open(Redis::shared().url()).unwrap();
    let mut raw = client.get_multiplexed_async_connection().await.unwrap();
    let mut lengths = Vec::new();
    for partition in 0..8 {
        lengths.push(
            raw.xlen(format!("{{{prefix}}}:events:{partition}"))
                .await
                .unwrap(),
        );
    }
    lengths
}

async fn small(prefix: &str, when_full: WhenFull) -> RedisBus {
    let options = options(prefix)
        .with_max_length(200)
        .with_when_full(when_full);
    RedisBus::connect(Redis::shared().url(), options)
        .await
        .unwrap()
}

/// A group that stands still: publishing is refused once a partition is full, nothing is lost, and
/// everything goes on when the group does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_bus_refuses_until_the_slowest_group_has_caught_up() {
    let prefix = fresh_prefix();
    let bus = small(&prefix, WhenFull::Refuse).await;
    let (seen, gate) = (Recorder::new(), Arc::new(Semaphore::new(0)));
    let (recorder, turnstile) = (seen.clone(), Arc::clone(&gate));
    let subscription = Subscription::to_all().with_group("slow").with_queue(50);
    bus.subscribe(subscription, move |event: Event| {
        let (recorder, turnstile) = (recorder.clone(), Arc::clone(&turnstile));
        async move {
            let _permit = turnstile.acquire().await?;
            recorder.record(event);
            Ok::<_, tokio::sync::AcquireError>(())
        }
    })
    .await
    .unwrap();
    let all = events(40, 1..=150);
    let mut sent = 0;
    let error = loop {
        match bus.publish(&all[sent..sent + 40]).await {
            Ok(()) => sent += 40,
            Err(error) => break error,
        }
    };
    assert!(!error.is_poison());
    let error = Error::from(error);
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("is full"), "{error}");
    assert!(lengths(&prefix).await.iter().all(|it| *it <= 400));
    gate.add_permits(1);
    publish(&bus, &all[sent..]).await;
    all_arrive_in_order(&seen, &all).await;
    assert!(lengths(&prefix).await.iter().all(|it| *it <= 400));
    bus.close().await.unwrap();
}

/// What all groups have acknowledged makes room; what is left is there for who begins at the beginning.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_events_make_room() {
    let prefix = fresh_prefix();
    let bus = small(&prefix, WhenFull::Refuse).await;
    let seen = Recorder::new();
    record(&bus, Subscription::to_all().with_group("fast"), &seen).await;
    let all = events(40, 1..=150);
    publish(&bus, &all).await;
    all_arrive_in_order(&seen, &all).await;
    let kept: u64 = lengths(&prefix).await.iter().sum();
    assert!(kept < 3_000, "{kept}");
    let late = Recorder::new();
    let subscription = Subscription::to_all()
        .with_group("late")
        .with_start(StartFrom::Beginning);
    record(&bus, subscription, &late).await;
    late.wait_for(usize::try_from(kept).unwrap()).await;
    bus.close().await.unwrap();
}

/// Where the options say so, the oldest events go instead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_oldest_never_refuses() {
    let prefix = fresh_prefix();
    let bus = small(&prefix, WhenFull::DropOldest).await;
    let subscription = Subscription::to_all().with_group("stuck").with_queue(10);
    bus.subscribe(subscription, |_: Event| std::future::pending::<()>())
        .await
        .unwrap();
    for batch in events(40, 1..=150).chunks(40) {
        bus.publish(batch).await.unwrap();
    }
    assert!(lengths(&prefix).await.iter().all(|it| *it <= 400));
}

/// A broadcast of a process that died holds nobody up for long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_broadcast_is_removed() {
    let prefix = fresh_prefix();
    let options = options(&prefix)
        .with_claim_ttl(Duration::from_millis(200))
        .with_broadcast_ttl(Duration::from_millis(400));
    let place = (Redis::shared().url().to_owned(), options.clone());
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let bus = RedisBus::connect(&place.0, place.1).await.unwrap();
            let handler = |_: Event| std::future::pending::<()>();
            bus.subscribe(Subscription::to_all(), handler)
                .await
                .unwrap();
            std::mem::forget(bus);
        });
        // Everything stops at once, as in a process that is killed.
        runtime.shutdown_background();
    })
    .join()
    .unwrap();
    let client = ::redis::Client::open(Redis::shared().url()).unwrap();
    let mut raw = client.get_multiplexed_async_connection().await.unwrap();
    let groups = format!("{{{prefix}}}:groups");
    let count: u64 = raw.scard(&groups).await.unwrap();
    assert_eq!(count, 1);
    let bus = RedisBus::connect(Redis::shared().url(), options)
        .await
        .unwrap();
    eventually("it is removed", || {
        let (mut raw, groups) = (raw.clone(), groups.clone());
        async move { raw.scard::<_, u64>(&groups).await.unwrap() == 0 }
    })
    .await;
    bus.close().await.unwrap();
}
