//! Connections that break.

use nodestorage::bus::{EventBus, NatsBus, Subscription};

use crate::nats::{Nats, fresh_prefix};
use crate::proxy::Proxy;
use crate::world::{Seen, events, eventually, options, publish};

/// Those of the publisher and of the members, again and again: publishes, deliveries and
/// acknowledgements get lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_connections_lose_nothing_and_keep_the_order() {
    let proxy = Proxy::start(Nats::shared().port()).await;
    let url = format!("nats://127.0.0.1:{}", proxy.port());
    let prefix = fresh_prefix();
    let connect = || async {
        let bus = NatsBus::connect(&url, options(&prefix)).await;
        bus.unwrap()
    };
    let (publisher, member) = (connect().await, connect().await);
    let seen = Seen::default();
    let subscription = Subscription::to_all().with_group("g").with_workers(4);
    seen.subscribe(&member, subscription).await;
    let all = events(25, 1..=240);
    let publishing = tokio::spawn({
        let (publisher, all) = (publisher.clone(), all.clone());
        async move { publish(&publisher, &all).await }
    });
    for round in 1..=10 {
        eventually("events arrive", || seen.different() >= round * 500).await;
        proxy.cut_all();
    }
    let failures = publishing.await.unwrap();
    let repeated = seen.check(&all).await;
    eprintln!("{failures} calls repeated, {repeated} events handled again");
    publisher.close().await.unwrap();
    member.close().await.unwrap();
}
