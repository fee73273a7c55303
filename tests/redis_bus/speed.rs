//! How fast a group catches up, which `scripts/bench` does not measure. By hand, on a quiet machine:
//! `cargo test --release --all-features --test redis_bus -- --ignored --nocapture --test-threads 1 speed`.

use std::time::Instant;

use nodestorage::bus::redis::RedisBus;
use nodestorage::bus::{EventBus, Subscription};
use nodestorage::testing::bus::Recorder;

use crate::redis::{Redis, fresh_prefix};
use crate::world::{events, options, record};

#[ignore = "measures"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_catches_up() {
    let server = Redis::private(&["--appendfsync", "everysec"]);
    let all = events(1_000, 1..=100);
    for workers in [1, 8] {
        let bus = RedisBus::connect(server.url(), options(&fresh_prefix()))
            .await
            .unwrap();
        let subscription = Subscription::to_all().with_group("g").with_workers(workers);
        let seen = Recorder::new();
        let first = record(&bus, subscription.clone(), &seen).await;
        first.unsubscribe().await.unwrap();
        for batch in all.chunks(256) {
            bus.publish(batch).await.unwrap();
        }
        let begin = Instant::now();
        record(&bus, subscription, &seen).await;
        seen.wait_for(all.len()).await;
        println!(
            "{workers} workers: {:.0} events/s read, handled and acknowledged",
            all.len() as f64 / begin.elapsed().as_secs_f64()
        );
        bus.close().await.unwrap();
    }
}
