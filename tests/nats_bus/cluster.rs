//! Three servers that keep every event three times.

use std::time::Instant;

use async_nats::jetstream;
use nodestorage::Event;
use nodestorage::bus::nats::NatsBusOptions;
use nodestorage::bus::{EventBus, EventBusExt, NatsBus, StartFrom, Subscription};

use crate::nats::{Nats, fresh_prefix};
use crate::world::{DEADLINE, Seen, check_order, events, eventually, options, publish};

/// As soon as the servers have found each other and chosen a leader.
async fn connect(nodes: &[Nats], options: &NatsBusOptions) -> NatsBus {
    let urls: Vec<_> = nodes.iter().map(Nats::url).collect();
    let begin = Instant::now();
    loop {
        match NatsBus::connect(&urls.join(","), options.clone()).await {
            Ok(bus) => return bus,
            Err(error) => {
                assert!(
                    error.is_retryable() && begin.elapsed() < DEADLINE,
                    "{error:?}"
                );
            }
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

/// While leaders are chosen, a server does not answer or knows nothing of the stream.
async fn subscribe(bus: &NatsBus, subscription: Subscription, seen: &Seen) {
    let begin = Instant::now();
    loop {
        let recorder = seen.clone();
        let subscribed = bus.subscribe(subscription.clone(), move |event: Event| {
            recorder.record(event);
            async {}
        });
        match subscribed.await {
            Ok(_) => return,
            Err(error) => assert!(
                error.is_retryable() && begin.elapsed() < DEADLINE,
                "{error:?}"
            ),
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

/// Which server leads the stream of events.
async fn leader(nodes: &[Nats], stream: &str) -> usize {
    let urls: Vec<_> = nodes.iter().map(Nats::url).collect();
    let client = async_nats::connect(urls).await.unwrap();
    let context = jetstream::new(client);
    let begin = Instant::now();
    loop {
        if let Ok(stream) = context.get_stream(stream).await
            && let Some(cluster) = &stream.cached_info().cluster
            && let Some(leader) = &cluster.leader
        {
            return leader.trim_start_matches("node").parse().unwrap();
        }
        assert!(begin.elapsed() < DEADLINE, "no leader");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

/// Killed while events are published and handled, and again another one once the first is back: nothing that was
/// confirmed is lost, and documents keep their order, for those who were there and for who comes later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_of_three_loses_nothing() {
    let nodes = Nats::cluster::<3>();
    let stream = "CLUSTERED";
    let options = options(&fresh_prefix())
        .with_stream(stream)
        .with_replicas(3);
    let publisher = connect(&nodes, &options).await;
    let member = connect(&nodes, &options).await;
    let seen = Seen::default();
    let subscription = Subscription::to_all().with_group("g").with_workers(4);
    subscribe(&member, subscription, &seen).await;
    let all = events(20, 1..=60);
    let publishing = tokio::spawn({
        let (publisher, all) = (publisher.clone(), all.clone());
        async move { publish(&publisher, &all).await }
    });
    for part in [200, 700] {
        eventually("events arrive", || seen.different() >= part).await;
        let leader = leader(&nodes, stream).await;
        nodes[leader].kill();
        eventually("events arrive without it", || {
            seen.different() >= part + 200
        })
        .await;
        tokio::task::block_in_place(|| nodes[leader].restart());
    }
    let failures = publishing.await.unwrap();
    let repeated = seen.check(&all).await;
    eprintln!("{failures} calls repeated, {repeated} events handled again");
    let later = Seen::default();
    let subscription = Subscription::to_all().with_start(StartFrom::Beginning);
    subscribe(&member, subscription, &later).await;
    later.check(&all).await;
    check_order(&later.events(), &all);
    member.close().await.unwrap();
    publisher.close().await.unwrap();
}
