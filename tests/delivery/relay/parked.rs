//! Documents that are held back.

use std::sync::Arc;
use std::time::Duration;

use super::store::{Link, Linked};
use super::stores::Stores;
use super::support::*;
use nodestorage::bus::RedeliveryPolicy;
use nodestorage::error::ErrorKind;
use nodestorage::relay::RelayState;
use nodestorage::storage::Delivery;
use nodestorage::storage::backend::Backend;
use nodestorage::testing::bus::eventually;

pub(super) async fn parked_documents_survive_a_takeover(stores: Stores) {
    let (store, bus) = (stores.open().await, TestBus::new());
    bus.set_poison("Bad", true);
    let link = Linked::new(&store);
    let shared: Arc<dyn Backend> = link.clone();
    // No checkpoint: the next relay meets the poison again, and must not publish what is behind it.
    let never = options().with_checkpoints(usize::MAX, Duration::from_secs(3_600));
    let relay = start_with(&shared, &bus, never);
    commit(&store, "a", 1, &["Fine"]).await;
    commit(&store, "a", 2, &["Bad"]).await;
    commit(&store, "a", 3, &["Fine"]).await;
    eventually("the document is parked", || async {
        relay.parked_documents() == 1
    })
    .await;
    link.set(Link::Cut);
    relay.shutdown().await;

    bus.set_poison("Bad", false);
    let relay = start(&store, &bus);
    let last = commit(&store, "a", 4, &["Fine"]).await;
    let other = commit(&store, "b", 1, &["Fine"]).await;
    relay.delivered(&key("b"), 1.into(), other).await.unwrap();
    let error = relay
        .delivered(&key("a"), 4.into(), last)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadLettered);
    assert!(
        bus.names()
            .iter()
            .all(|name| name == "Fine a@1.0" || name == "Fine b@1.0")
    );
    let seen = bus.published.len();
    relay.release(&key("a")).await.unwrap();
    assert_eq!(
        bus.names()[seen..],
        ["Bad a@2.0", "Fine a@3.0", "Fine a@4.0"]
    );
    relay.shutdown().await;
}

pub(super) async fn too_many_parked_documents_stop_the_relay_until_there_is_room(stores: Stores) {
    let (store, bus) = (stores.open().await, TestBus::new());
    bus.set_poison("Bad", true);
    let relay = start_with(&store, &bus, options().with_max_parked(2));
    for id in ["a", "b", "c"] {
        commit(&store, id, 1, &["Bad"]).await;
    }
    let last = commit(&store, "d", 1, &["Fine"]).await;
    until(&relay, "stopped", |state| {
        matches!(state, RelayState::Stopped(error) if error.kind() == ErrorKind::DeadLettered)
    })
    .await;
    assert!(bus.published.is_empty());
    let error = relay
        .delivered(&key("d"), 1.into(), last)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    let error = relay.flush(last).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);

    relay.discard(&key("a")).await.unwrap();
    bus.published.wait_for(1).await;
    assert_eq!(bus.names(), ["Fine d@1.0"]);
    until_following(&relay).await;
    assert_eq!(relay.parked_documents(), 2);
    relay.shutdown().await;
}

/// A new leader reads them page by page.
pub(super) async fn many_parked_documents_are_all_loaded(stores: Stores) {
    // More than one page.
    const DOCUMENTS: usize = 1_050;
    let (store, bus) = (stores.open().await, TestBus::new());
    bus.set_poison("Bad", true);
    // Nobody else wants the lease, and thousands of writes take as long as the machine lets them.
    let quick = options()
        .with_lease_ttl(Duration::from_secs(10))
        .with_attempts(RedeliveryPolicy::new().with_attempts(1));
    let relay = start_with(&store, &bus, quick.clone());
    commit_each(&store, DOCUMENTS, "Bad").await;
    // Each is a transaction of its own, so all together take as long as they take.
    loop {
        let parked = relay.parked_documents();
        if parked == DOCUMENTS {
            break;
        }
        eventually("more are parked", || async {
            relay.parked_documents() > parked
        })
        .await;
    }
    relay.shutdown().await;
    let relay = start_with(&store, &bus, quick);
    until_following(&relay).await;
    assert_eq!(relay.parked_documents(), DOCUMENTS);
    bus.set_poison("Bad", false);
    assert_eq!(relay.release_all().await.unwrap(), DOCUMENTS);
    assert_eq!(bus.published.len(), DOCUMENTS);
    relay.shutdown().await;
}

/// The bound that is the default: one more than ten thousand, and the relay stops and says why.
pub(super) async fn ten_thousand_parked_documents_stop_the_relay(stores: Stores) {
    const DOCUMENTS: usize = 10_000;
    let (store, bus) = (stores.open().await, TestBus::new());
    bus.set_poison("Bad", true);
    commit_each(&store, DOCUMENTS + 1, "Bad").await;
    let last = commit(&store, "well", 1, &["Fine"]).await;
    let quick = options()
        .with_lease_ttl(Duration::from_secs(10))
        .with_attempts(RedeliveryPolicy::new().with_attempts(1));
    assert_eq!(quick.max_parked, DOCUMENTS);
    let relay = start_with(&store, &bus, quick);
    let mut state = relay.state_changes();
    let stopped = state.wait_for(|state| matches!(state, RelayState::Stopped(_)));
    let stopped = tokio::time::timeout(Duration::from_secs(120), stopped).await;
    let error = match &*stopped.unwrap().unwrap() {
        RelayState::Stopped(error) => error.to_string(),
        other => panic!("{other:?}"),
    };
    let expected = "10000 documents are parked behind dead letters: release or discard some";
    assert_eq!(error, expected);
    assert_eq!(relay.parked_documents(), DOCUMENTS);
    let error = relay.flush(last).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    // Stopped, it still holds the lease and takes orders; with room it goes on.
    relay.discard(&key("u0")).await.unwrap();
    bus.published.wait_for(1).await;
    assert_eq!(bus.names(), ["Fine well@1.0"]);
    until_following(&relay).await;
    relay.shutdown().await;
}
