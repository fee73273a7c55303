//! How fast the bus is beside the client alone; run by hand on a quiet machine, in release mode:
//! `cargo test --release --all-features --test nats_bus -- --ignored speed:: --nocapture --test-threads 1`

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nodestorage::Event;
use nodestorage::bus::{EventBus, EventBusExt, NatsBus, Subscription};
use nodestorage::event::{CloudEvents, EventSerializer};

use crate::nats::{Nats, fresh_prefix};
use crate::world::{events, options};

const ROUNDS: usize = 5;
const EVENTS: usize = 25_600;
/// What a relay publishes at a time.
const BATCH: usize = 256;

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The raw client sends the same bytes in the same batches and waits for the same acknowledgements, all
/// of a batch under way at a time: it keeps no order if something gets lost.
async fn raw(server: &Nats, all: &[(String, Event, Vec<u8>)], prefix: &str) -> f64 {
    let client = async_nats::connect(server.url()).await.unwrap();
    let context = async_nats::jetstream::new(client);
    let stream = async_nats::jetstream::stream::Config {
        name: prefix.to_owned(),
        subjects: vec![format!("{prefix}.>")],
        ..Default::default()
    };
    context.create_stream(stream).await.unwrap();
    let begin = Instant::now();
    for batch in all.chunks(BATCH) {
        let mut sent = Vec::with_capacity(BATCH);
        for (subject, event, bytes) in batch {
            let mut headers = async_nats::HeaderMap::new();
            headers.insert("Nats-Msg-Id", event.id().to_string());
            headers.insert("content-type", "application/cloudevents+json");
            let subject = format!("{prefix}.{subject}");
            let bytes = bytes.clone().into();
            let publish = context.publish_with_headers(subject, headers, bytes);
            sent.push(publish.await.unwrap());
        }
        for acknowledgement in sent {
            acknowledgement.await.unwrap();
        }
    }
    all.len() as f64 / begin.elapsed().as_secs_f64()
}

async fn through_the_bus(server: &Nats, all: &[Event]) -> f64 {
    let options = options(&fresh_prefix()).with_max_bytes(Some(1 << 30));
    let bus = NatsBus::connect(server.url(), options).await.unwrap();
    let begin = Instant::now();
    for batch in all.chunks(BATCH) {
        bus.publish(batch).await.unwrap();
    }
    let speed = all.len() as f64 / begin.elapsed().as_secs_f64();
    bus.close().await.unwrap();
    speed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn publishing_beside_the_raw_client() {
    let server = Nats::private("");
    for documents in [1_000, 100, 1] {
        let versions = (EVENTS / documents) as u64;
        let all = events(documents as u64, 1..=versions);
        let prepared: Vec<_> = all
            .iter()
            .map(|event| {
                let id = event.aggregate_id();
                let subject = format!("users.UserUpdated.{id}.{}", event.version().get() % 8);
                let bytes = CloudEvents.serialize(event).unwrap();
                (subject, event.clone(), bytes)
            })
            .collect();
        let mut speeds = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            speeds[0].push(raw(&server, &prepared, &fresh_prefix()).await);
            speeds[1].push(through_the_bus(&server, &all).await);
        }
        let [raw, bus] = speeds.map(median);
        println!(
            "{documents} documents: raw client {raw:.0}/s, bus {bus:.0}/s, {:.2}",
            bus / raw
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn from_publishing_to_the_handler() {
    let server = Nats::private("");
    let bus = NatsBus::connect(server.url(), options(&fresh_prefix()))
        .await
        .unwrap();
    let begun: Arc<Mutex<HashMap<_, Instant>>> = Arc::default();
    let times: Arc<Mutex<Vec<f64>>> = Arc::default();
    let (starts, ends) = (Arc::clone(&begun), Arc::clone(&times));
    let subscription = Subscription::to_all().with_group("g").with_workers(8);
    bus.subscribe(subscription, move |event: Event| {
        let start = starts.lock().unwrap().remove(&event.id()).unwrap();
        ends.lock()
            .unwrap()
            .push(start.elapsed().as_secs_f64() * 1e3);
        async {}
    })
    .await
    .unwrap();
    let all = events(100, 1..=100);
    // Until the partitions are owned.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut ticks = tokio::time::interval(Duration::from_millis(1));
    for event in &all {
        ticks.tick().await;
        begun.lock().unwrap().insert(event.id(), Instant::now());
        let (bus, event) = (bus.clone(), event.clone());
        tokio::spawn(async move { bus.publish(&[event]).await.unwrap() });
    }
    crate::world::eventually("all arrive", || times.lock().unwrap().len() == all.len()).await;
    let mut times = times.lock().unwrap().clone();
    times.sort_by(f64::total_cmp);
    let at = |part: f64| times[(times.len() as f64 * part) as usize];
    println!(
        "1,000 events/s: p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms",
        at(0.5),
        at(0.99),
        at(0.999)
    );
    bus.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn a_group_that_catches_up() {
    let server = Nats::private("");
    let options = options(&fresh_prefix()).with_max_bytes(Some(1 << 30));
    let bus = NatsBus::connect(server.url(), options).await.unwrap();
    let all = events(1_000, 1..=50);
    let seen = crate::world::Seen::default();
    let first = Subscription::to_all().with_group("g").with_workers(8);
    let handle = seen.subscribe(&bus, first.clone()).await;
    handle.unsubscribe().await.unwrap();
    for batch in all.chunks(BATCH) {
        bus.publish(batch).await.unwrap();
    }
    let begin = Instant::now();
    seen.subscribe(&bus, first).await;
    crate::world::eventually("all arrive", || seen.len() >= all.len()).await;
    println!(
        "handled {:.0} events/s",
        all.len() as f64 / begin.elapsed().as_secs_f64()
    );
    bus.close().await.unwrap();
}
