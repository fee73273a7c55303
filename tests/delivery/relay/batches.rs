use std::time::{Duration, Instant};

use super::stores::Stores;
use super::support::*;
use nodestorage::storage::Delivery;

/// Large events leave in small batches, and one that is larger than the bound alone.
pub(super) async fn batches_are_bounded_in_bytes(stores: Stores) {
    let (store, bus) = (stores.open().await, TestBus::new());
    for version in 1..=20 {
        commit_large(&store, "a", version, 3_000).await;
    }
    for version in 21..=22 {
        commit_large(&store, "a", version, 50_000).await;
    }
    for version in 23..=60 {
        commit_large(&store, "a", version, 10).await;
    }
    let last = commit(&store, "b", 1, &["Fine"]).await;
    let relay = start_with(&store, &bus, options().with_batch_bytes(10_000));
    relay.flush(last).await.unwrap();
    relay.shutdown().await;
    assert_eq!(bus.published.len(), 61);
    let batches = bus.batches.lock().unwrap().clone();
    // Four of 3,000 bytes are beyond 10,000, and a large one ends whatever batch it comes to.
    assert!(
        batches[..5].iter().all(|events| *events <= 4),
        "{batches:?}"
    );
    assert!(batches.len() >= 7, "{batches:?}");
    // Small ones still share a call.
    assert!(*batches.iter().max().unwrap() > 4, "{batches:?}");
}

/// The log is pushed to the relay: nobody waits for its next look, which would take half a second.
pub(super) async fn a_commit_is_published_at_once(stores: Stores) {
    let (store, bus) = (stores.open().await, TestBus::new());
    let relay = start(&store, &bus);
    until_following(&relay).await;
    let mut delays = Vec::new();
    for version in 1..=21 {
        let begin = Instant::now();
        commit(&store, "a", version, &["Fine"]).await;
        bus.published.wait_for(delays.len() + 1).await;
        delays.push(begin.elapsed());
    }
    delays.sort_unstable();
    assert!(delays[10] < Duration::from_millis(150), "{delays:?}");
    relay.shutdown().await;
}
