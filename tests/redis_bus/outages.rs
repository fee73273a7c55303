//! The server dies, stands still, and connections break.

use std::time::Duration;

use nodestorage::bus::Subscription;
use nodestorage::testing::bus::Recorder;

use crate::proxy::Proxy;
use crate::redis::{Redis, fresh_prefix};
use crate::world::{all_arrive_in_order, connect, events, publish, record};

fn subscription() -> Subscription {
    Subscription::to_all()
        .with_group("everything")
        .with_workers(4)
}

/// Publishes in the background while `disturb` has its way.
async fn disturbed(
    publisher: nodestorage::bus::RedisBus,
    versions: u64,
    disturb: impl Future<Output = ()>,
) -> Vec<nodestorage::Event> {
    let all = events(20, 1..=versions);
    let publishing = tokio::spawn({
        let all = all.clone();
        async move {
            for batch in all.chunks(40) {
                publish(&publisher, batch).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    });
    disturb.await;
    publishing.await.unwrap();
    all
}

/// With an append-only file that is synchronised with every write, nothing confirmed is lost and
/// order holds, over two kills in the middle of the stream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_is_killed_twice_in_mid_stream_and_nothing_is_lost() {
    let server = Redis::private(&[]);
    let prefix = fresh_prefix();
    let (publisher, consumer) = (
        connect(server.url(), &prefix).await,
        connect(server.url(), &prefix).await,
    );
    let seen = Recorder::new();
    record(&consumer, subscription(), &seen).await;
    let broadcast = Recorder::new();
    record(&consumer, Subscription::to_all(), &broadcast).await;
    let all = disturbed(publisher, 200, async {
        for part in [500, 1_500] {
            seen.wait_for(part).await;
            server.kill();
            tokio::time::sleep(Duration::from_millis(100)).await;
            tokio::task::block_in_place(|| server.restart());
        }
    })
    .await;
    all_arrive_in_order(&seen, &all).await;
    all_arrive_in_order(&broadcast, &all).await;
}

/// Connections break again and again, in the middle of whatever they carry.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_break_all_the_time_and_nothing_is_lost() {
    let server = Redis::private(&["--appendfsync", "no"]);
    let proxy = Proxy::start(server.port()).await;
    let url = format!("redis://127.0.0.1:{}/", proxy.port());
    let prefix = fresh_prefix();
    let (publisher, consumer) = (connect(&url, &prefix).await, connect(&url, &prefix).await);
    let seen = Recorder::new();
    record(&consumer, subscription(), &seen).await;
    let all = disturbed(publisher, 200, async {
        for _ in 0..30 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            proxy.cut_all();
        }
    })
    .await;
    all_arrive_in_order(&seen, &all).await;
}

/// A server that answers nobody for longer than claims last: owners give up, and come back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stands_still_is_waited_for() {
    let server = Redis::private(&["--appendfsync", "no"]);
    let prefix = fresh_prefix();
    let (publisher, consumer) = (
        connect(server.url(), &prefix).await,
        connect(server.url(), &prefix).await,
    );
    let seen = Recorder::new();
    record(&consumer, subscription(), &seen).await;
    let all = disturbed(publisher, 60, async {
        seen.wait_for(200).await;
        server.pause();
        tokio::time::sleep(Duration::from_secs(3)).await;
        server.resume();
    })
    .await;
    all_arrive_in_order(&seen, &all).await;
}
