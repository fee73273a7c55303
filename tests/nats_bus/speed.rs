//! How fast a group catches up, which `scripts/bench` does not measure. By hand, on a quiet machine:
//! `cargo test --release --all-features --test nats_bus -- --ignored --nocapture --test-threads 1 speed`.

use std::time::Instant;

use nodestorage::bus::{EventBus, NatsBus, Subscription};

use crate::nats::{Nats, fresh_prefix};
use crate::world::{Seen, events, eventually, options};

#[ignore = "measures"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_catches_up() {
    let server = Nats::private("");
    let options = options(&fresh_prefix()).with_max_bytes(Some(1 << 30));
    let bus = NatsBus::connect(server.url(), options).await.unwrap();
    let all = events(1_000, 1..=50);
    let seen = Seen::default();
    let first = Subscription::to_all().with_group("g").with_workers(8);
    let handle = seen.subscribe(&bus, first.clone()).await;
    handle.unsubscribe().await.unwrap();
    for batch in all.chunks(256) {
        bus.publish(batch).await.unwrap();
    }
    let begin = Instant::now();
    seen.subscribe(&bus, first).await;
    eventually("all arrive", || seen.len() >= all.len()).await;
    println!(
        "handled {:.0} events/s",
        all.len() as f64 / begin.elapsed().as_secs_f64()
    );
    bus.close().await.unwrap();
}
