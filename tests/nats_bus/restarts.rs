//! Servers that are killed and come back.

use nodestorage::bus::{EventBus, NatsBus, StartFrom, Subscription};

use crate::nats::{Nats, fresh_prefix};
use crate::world::{Seen, events, eventually, options, publish};

/// Twice, in the middle of publishing and handling, with kill -9 and in good order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_restarts_lose_nothing_and_keep_the_order() {
    let server = Nats::private("");
    let prefix = fresh_prefix();
    let connect = || NatsBus::connect(server.url(), options(&prefix));
    let (publisher, first, second) = (
        connect().await.unwrap(),
        connect().await.unwrap(),
        connect().await.unwrap(),
    );
    let seen = Seen::default();
    let subscription = Subscription::to_all().with_group("g").with_workers(4);
    seen.subscribe(&first, subscription.clone()).await;
    seen.subscribe(&second, subscription).await;
    let all = events(25, 1..=200);
    let publishing = tokio::spawn({
        let (publisher, all) = (publisher.clone(), all.clone());
        async move { publish(&publisher, &all).await }
    });
    eventually("events arrive", || seen.different() > 500).await;
    server.kill();
    server.restart();
    let after = seen.different();
    eventually("more events arrive", || seen.different() > after + 500).await;
    server.stop();
    server.restart();
    let failures = publishing.await.unwrap();
    let repeated = seen.check(&all).await;
    eprintln!("{failures} calls repeated, {repeated} events handled again");
    for bus in [publisher, first, second] {
        bus.close().await.unwrap();
    }
}

/// What was confirmed is there for a group that comes after the server was killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_confirmed_survives_a_killed_server() {
    let server = Nats::private("");
    let prefix = fresh_prefix();
    let bus = NatsBus::connect(server.url(), options(&prefix))
        .await
        .unwrap();
    let all = events(10, 1..=50);
    publish(&bus, &all).await;
    server.kill();
    drop(bus);
    server.restart();
    let bus = NatsBus::connect(server.url(), options(&prefix))
        .await
        .unwrap();
    let seen = Seen::default();
    let subscription = Subscription::to_all().with_start(StartFrom::Beginning);
    seen.subscribe(&bus, subscription).await;
    assert_eq!(seen.check(&all).await, 0);
    bus.close().await.unwrap();
}
