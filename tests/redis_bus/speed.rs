//! How fast it is. Not run by default: `cargo test --release --all-features --test redis_bus -- --ignored
//! --nocapture --test-threads 1 speed`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nodestorage::Event;
use nodestorage::bus::redis::RedisBus;
use nodestorage::bus::{EventBus, EventBusExt, Subscription};
use nodestorage::event::{CloudEvents, EventSerializer};
use nodestorage::testing::bus::{Recorder, sample_event};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::redis::{Redis, fresh_prefix};
use crate::world::{events, options, record};

/// About what an event of a small document is.
fn sample(count: u64) -> Vec<Event> {
    (0..count)
        .map(|n| {
            let mut parts =
                sample_event("UserUpdated", &format!("u{}", n % 1_000), n / 1_000 + 1).into_parts();
            parts.data =
                json!({ "email": "john.doe@example.com", "name": "x".repeat(200), "n": n });
            Event::from_parts(parts)
        })
        .collect()
}

/// The same bytes by the driver alone, pipelined, awaiting the same acknowledgement.
async fn raw(server: &Redis, batches: &[Vec<Event>]) -> Duration {
    let client = ::redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let prefix = fresh_prefix();
    let payloads: Vec<Vec<(String, String, Vec<u8>)>> = batches
        .iter()
        .map(|batch| {
            let bytes = |(n, event): (usize, &Event)| {
                let key = format!("{{{prefix}}}:events:{}", n % 8);
                (
                    key,
                    event.id().to_string(),
                    CloudEvents.serialize(event).unwrap(),
                )
            };
            batch.iter().enumerate().map(bytes).collect()
        })
        .collect();
    let begin = Instant::now();
    for batch in &payloads {
        let mut pipeline = ::redis::pipe();
        for (key, id, payload) in batch {
            pipeline
                .cmd("XADD")
                .arg(key)
                .arg("*")
                .arg("id")
                .arg(id)
                .arg("event")
                .arg(payload);
        }
        let _ids: Vec<String> = pipeline.query_async(&mut connection).await.unwrap();
    }
    begin.elapsed()
}

async fn through_the_bus(server: &Redis, batches: &[Vec<Event>]) -> Duration {
    let bus = RedisBus::connect(server.url(), options(&fresh_prefix()))
        .await
        .unwrap();
    let begin = Instant::now();
    for batch in batches {
        bus.publish(batch).await.unwrap();
    }
    let took = begin.elapsed();
    bus.close().await.unwrap();
    took
}

#[ignore = "measures"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishing_against_the_raw_client() {
    for (name, fsync) in [("no", "no"), ("everysec", "everysec"), ("always", "always")] {
        let server = Redis::private(&["--appendfsync", fsync]);
        for size in [1_usize, 64, 256] {
            let count = if size == 1 { 4_000 } else { 40_000 };
            let all = sample(count);
            let batches: Vec<Vec<Event>> = all.chunks(size).map(<[Event]>::to_vec).collect();
            let mut ratios = Vec::new();
            let mut rates = Vec::new();
            for _ in 0..5 {
                let (raw, bus) = (
                    raw(&server, &batches).await,
                    through_the_bus(&server, &batches).await,
                );
                ratios.push(raw.as_secs_f64() / bus.as_secs_f64());
                rates.push(count as f64 / bus.as_secs_f64());
            }
            ratios.sort_by(f64::total_cmp);
            rates.sort_by(f64::total_cmp);
            println!(
                "appendfsync {name}, batches of {size}: {:.0} events/s, {:.2} of the raw client",
                rates[2], ratios[2]
            );
        }
    }
}

#[ignore = "measures"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consuming() {
    let server = Redis::private(&["--appendfsync", "everysec"]);
    for workers in [1, 8] {
        let bus = RedisBus::connect(server.url(), options(&fresh_prefix()))
            .await
            .unwrap();
        let subscription = Subscription::to_all().with_group("g").with_workers(workers);
        let seen = Recorder::new();
        let first = record(&bus, subscription.clone(), &seen).await;
        first.unsubscribe().await.unwrap();
        for batch in sample(100_000).chunks(256) {
            bus.publish(batch).await.unwrap();
        }
        let begin = Instant::now();
        record(&bus, subscription, &seen).await;
        seen.wait_for(100_000).await;
        let took = begin.elapsed();
        println!(
            "{workers} workers: {:.0} events/s read, handled and acknowledged",
            100_000.0 / took.as_secs_f64()
        );
        bus.close().await.unwrap();
    }
}

#[ignore = "measures"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_publishing_to_the_handler() {
    let server = Redis::private(&["--appendfsync", "everysec"]);
    let bus = RedisBus::connect(server.url(), options(&fresh_prefix()))
        .await
        .unwrap();
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    bus.subscribe(
        Subscription::to_all().with_workers(4),
        move |event: Event| {
            let _ = sender.send((event.id(), Instant::now()));
            async {}
        },
    )
    .await
    .unwrap();
    let mut waits = Vec::new();
    for event in events(50, 1..=20) {
        let begin = Instant::now();
        bus.publish(std::slice::from_ref(&event)).await.unwrap();
        let (_, end) = receiver.recv().await.unwrap();
        waits.push(end - begin);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    waits.sort_unstable();
    println!(
        "p50 {:?}, p99 {:?}",
        waits[waits.len() / 2],
        waits[waits.len() * 99 / 100]
    );
}

/// A group that stands still, while a million events go by: this process holds no more than its queue.
#[ignore = "measures"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_with_a_stalled_group() {
    let server = Redis::private(&["--appendfsync", "no"]);
    let options = options(&fresh_prefix()).with_max_length(5_000);
    let bus = RedisBus::connect(server.url(), options).await.unwrap();
    let gate = Arc::new(Semaphore::new(0));
    bus.subscribe(
        Subscription::to_all().with_group("stuck"),
        move |_: Event| {
            let gate = Arc::clone(&gate);
            async move { gate.acquire().await.map(drop) }
        },
    )
    .await
    .unwrap();
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status
            .lines()
            .find(|it| it.starts_with("VmRSS"))
            .unwrap()
            .to_owned();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    let mut sent = 0;
    let mut refused = 0;
    let all = sample(10_000);
    let mut sizes = Vec::new();
    for round in 0..100 {
        for batch in all.chunks(256) {
            match bus.publish(batch).await {
                Ok(()) => sent += batch.len(),
                Err(_) => refused += batch.len(),
            }
        }
        if round % 20 == 19 {
            sizes.push(resident());
        }
    }
    println!("{sent} stored, {refused} refused, resident kB over time: {sizes:?}");
}
