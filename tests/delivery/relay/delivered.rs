use std::sync::Arc;
use std::time::Duration;

use super::store::{Link, Linked};
use super::stores::Stores;
use super::support::*;
use nodestorage::error::ErrorKind;
use nodestorage::relay::RelayState;
use nodestorage::storage::Delivery;
use nodestorage::storage::backend::Backend;

pub(super) async fn a_version_is_delivered_when_the_bus_has_confirmed_it(stores: Stores) {
    let (store, bus) = (stores.open().await, TestBus::new());
    let relay = start(&store, &bus);
    until_following(&relay).await;
    bus.shut_gate();
    let position = commit(&store, "a", 1, &["Fine"]).await;
    let waiting = tokio::spawn({
        let relay = relay.clone();
        async move { relay.delivered(&key("a"), 1.into(), position).await }
    });
    while bus.calls() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(!waiting.is_finished());
    bus.open_gate();
    waiting.await.unwrap().unwrap();
    assert_eq!(bus.published.len(), 1);
    // Asked again, and for a version without events.
    relay
        .delivered(&key("a"), 1.into(), position)
        .await
        .unwrap();
    let position = commit(&store, "a", 2, &[]).await;
    relay
        .delivered(&key("a"), 2.into(), position)
        .await
        .unwrap();
    relay.shutdown().await;
    let error = relay.flush(position).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}

pub(super) async fn a_thousand_waiters_each_get_their_answer_and_dropped_ones_leave_nothing(
    stores: Stores,
) {
    let (store, bus) = (stores.open().await, TestBus::new());
    let relay = start(&store, &bus);
    let mut waiting = tokio::task::JoinSet::new();
    for n in 0..1_000_u64 {
        let (relay, store) = (relay.clone(), Arc::clone(&store));
        waiting.spawn(async move {
            let id = format!("u{}", n % 100);
            let position = commit(&store, &format!("{id}-{n}"), 1, &["Fine"]).await;
            let key = key(&format!("{id}-{n}"));
            let answer = relay.delivered(&key, 1.into(), position);
            if n % 3 == 0 {
                let _ = tokio::time::timeout(Duration::from_millis(n % 5), answer).await;
                Ok(())
            } else {
                answer.await
            }
        });
    }
    for answer in waiting.join_all().await {
        answer.unwrap();
    }
    relay.shutdown().await;
    assert_eq!(bus.published.len(), 1_000);
}

pub(super) async fn waiting_ends_when_the_relay_does(stores: Stores) {
    let (store, bus) = (stores.open().await, TestBus::new());
    bus.set_up(false);
    let relay = start(&store, &bus);
    let position = commit(&store, "a", 1, &["Fine"]).await;
    let waiting = tokio::spawn({
        let relay = relay.clone();
        async move { relay.delivered(&key("a"), 1.into(), position).await }
    });
    until(&relay, "retrying", |state| {
        matches!(state, RelayState::Retrying(_))
    })
    .await;
    relay.shutdown().await;
    assert_eq!(
        waiting.await.unwrap().unwrap_err().kind(),
        ErrorKind::Closed
    );
}

/// The process that waits has a relay, but another process's relay holds the lease.
pub(super) async fn a_relay_in_another_process_confirms_too(stores: Stores) {
    let (store, bus, idle) = (stores.open().await, TestBus::new(), TestBus::new());
    bus.set_poison("Bad", true);
    let publishing = start(&store, &bus);
    until_following(&publishing).await;
    let link = Linked::new(&store);
    let shared: Arc<dyn Backend> = link.clone();
    let here = start(&shared, &idle);
    until(&here, "waiting", |state| {
        matches!(state, RelayState::WaitingForLease)
    })
    .await;

    let position = commit(&store, "a", 1, &["Fine"]).await;
    here.delivered(&key("a"), 1.into(), position).await.unwrap();
    assert_eq!(bus.published.len(), 1);
    here.flush(position).await.unwrap();

    let position = commit(&store, "a", 2, &["Bad"]).await;
    let after = commit(&store, "b", 1, &["Fine"]).await;
    let error = here
        .delivered(&key("a"), 2.into(), position)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadLettered);
    here.delivered(&key("b"), 1.into(), after).await.unwrap();
    assert_eq!(
        here.flush(after).await.unwrap_err().kind(),
        ErrorKind::DeadLettered
    );
    assert_eq!(
        here.release(&key("a")).await.unwrap_err().kind(),
        ErrorKind::InUse
    );
    assert_eq!(here.dead_letters(None, 5).await.unwrap().len(), 1);

    // A question that is open when the other relay ends is answered by this one.
    bus.shut_gate();
    let position = commit(&store, "c", 1, &["Fine"]).await;
    let waiting = tokio::spawn({
        let here = here.clone();
        async move { here.delivered(&key("c"), 1.into(), position).await }
    });
    link.set(Link::Up);
    publishing.shutdown().await;
    waiting.await.unwrap().unwrap();
    assert_eq!(idle.names(), ["Fine c@1.0"]);
    here.shutdown().await;
    assert!(idle.published.len() == 1);
}
