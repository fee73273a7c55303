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
