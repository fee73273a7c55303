use std::sync::Arc;

use super::store::{Link, Linked};
use super::stores::Stores;
use super::support::*;
use nodestorage::bus::{EventBus, MemoryBus};
use nodestorage::error::ErrorKind;
use nodestorage::relay::{Relay, RelayState};
use nodestorage::storage::Delivery;
use nodestorage::storage::backend::Backend;
use nodestorage::testing::bus::eventually;

pub(super) async fn while_the_bus_is_down_commits_go_on_and_the_backlog_drains_afterwards(
    stores: Stores,
) {
    let (store, bus) = (stores.open().await, TestBus::new());
    bus.set_up(false);
    let relay = start(&store, &bus);
    let last = commit_many(&store, 5, 1..=30).await;
    until(&relay, "retrying", |state| {
        matches!(state, RelayState::Retrying(error) if error.kind() == ErrorKind::Unavailable)
    })
    .await;
    // Far more attempts than a poison event gets.
    let calls = bus.calls();
    eventually("it keeps trying", || async { bus.calls() > calls + 10 }).await;
    assert!(bus.published.is_empty());
    bus.set_up(true);
    relay.flush(last).await.unwrap();
    until_following(&relay).await;
    assert_eq!(bus.published.len(), 150);
    assert_complete(&bus.published.events(), 5, 30);
    assert!(relay.dead_letters(None, 1).await.unwrap().is_empty());
    relay.shutdown().await;
}

pub(super) async fn a_store_that_goes_away_and_comes_back_loses_nothing(stores: Stores) {
    let (store, bus) = (stores.open().await, TestBus::new());
    let link = Linked::new(&store);
    let shared: Arc<dyn Backend> = link.clone();
    let relay = start(&shared, &bus);
    until_following(&relay).await;
    for round in 0..3 {
        link.set(Link::Cut);
        commit_many(&store, 3, round * 10 + 1..=round * 10 + 10).await;
        until(&relay, "retrying", |state| {
            matches!(state, RelayState::Retrying(_))
        })
        .await;
        link.set(Link::Up);
        until_following(&relay).await;
    }
    eventually("all arrive", || async {
        bus.published
            .events()
            .iter()
            .any(|event| event.version() == 30)
    })
    .await;
    let last = commit_many(&store, 3, 31..=31).await;
    relay.flush(last).await.unwrap();
    assert_complete(&bus.published.events(), 3, 31);
    relay.shutdown().await;
}

pub(super) async fn a_bus_that_is_down_delays_the_others_but_nobody_misses_anything(
    stores: Stores,
) {
    let (store, well, ill) = (stores.open().await, TestBus::new(), TestBus::new());
    ill.set_up(false);
    let relay = Relay::new(Arc::clone(&store))
        .with_bus(Arc::clone(&well) as Arc<dyn EventBus>)
        .with_bus(Arc::clone(&ill) as Arc<dyn EventBus>)
        .with_options(options())
        .start()
        .unwrap();
    commit(&store, "u0", 1, &["Updated"]).await;
    well.published.wait_for(1).await;
    let last = commit_many(&store, 1, 2..=20).await;
    ill.set_up(true);
    relay.flush(last).await.unwrap();
    assert_eq!(
        well.names(),
        ill.names(),
        "and the one that confirmed got no repetition"
    );
    relay.shutdown().await;
}

pub(super) async fn a_poison_event_holds_back_its_document_only_until_it_is_released(
    stores: Stores,
) {
    let (store, bus) = (stores.open().await, TestBus::new());
    bus.set_poison("Bad", true);
    let relay = start(&store, &bus);
    commit(&store, "a", 1, &["Fine", "Bad", "Fine"]).await;
    commit(&store, "b", 1, &["Fine"]).await;
    commit(&store, "a", 2, &["Fine"]).await;
    commit(&store, "b", 2, &["Fine", "Fine"]).await;
    let last = commit(&store, "a", 3, &[]).await;
    assert_eq!(
        relay.flush(last).await.unwrap_err().kind(),
        ErrorKind::DeadLettered
    );
    assert_eq!(
        bus.names(),
        ["Fine a@1.0", "Fine b@1.0", "Fine b@2.0", "Fine b@2.1"]
    );

    let letters = relay.dead_letters(None, 10).await.unwrap();
    assert_eq!(letters.len(), 1);
    let letter = &letters[0];
    assert_eq!(
        (&letter.document, letter.version.get(), letter.index),
        (&key("a"), 1, 1)
    );
    assert_eq!((letter.event_type.as_str(), letter.attempts), ("Bad", 3));
    assert_eq!(letter.error, "event is too large: bytes");
    assert_eq!(relay.parked_documents(), 1);

    // Released too early it fails again and stays.
    let error = relay.release(&key("a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadLettered);
    assert_eq!(relay.parked_documents(), 1);
    assert_eq!(
        relay.release(&key("b")).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );

    bus.set_poison("Bad", false);
    let seen = bus.published.len();
    assert_eq!(relay.release_all().await.unwrap(), 1);
    let expected = ["Fine a@1.0", "Bad a@1.1", "Fine a@1.2", "Fine a@2.0"];
    assert_eq!(bus.names()[seen..], expected);
    assert!(relay.dead_letters(None, 10).await.unwrap().is_empty());
    relay.flush(last).await.unwrap();
    let last = commit(&store, "a", 4, &["Fine"]).await;
    relay.delivered(&key("a"), 4.into(), last).await.unwrap();
    assert_eq!(bus.names().last().unwrap(), "Fine a@4.0");
    relay.shutdown().await;
}

pub(super) async fn discarding_gives_up_the_failed_event_alone(stores: Stores) {
    let (store, bus) = (stores.open().await, TestBus::new());
    bus.set_poison("Bad", true);
    bus.set_poison("Worse", true);
    let relay = start(&store, &bus);
    commit(&store, "a", 1, &["Bad", "Fine"]).await;
    commit(&store, "a", 2, &["Fine"]).await;
    let last = commit(&store, "a", 3, &["Fine", "Worse"]).await;
    let error = relay
        .delivered(&key("a"), 2.into(), last)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadLettered);
    eventually("the document is parked", || async {
        relay.parked_documents() == 1
    })
    .await;

    // It goes on to the next event that fails.
    let error = relay.discard(&key("a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadLettered);
    let letters = relay.dead_letters(None, 10).await.unwrap();
    assert_eq!(
        (letters.len(), letters[0].event_type.as_str()),
        (1, "Worse")
    );
    assert_eq!(bus.names(), ["Fine a@1.1", "Fine a@2.0", "Fine a@3.0"]);
    relay.discard(&key("a")).await.unwrap();
    relay.flush(last).await.unwrap();
    assert!(!bus.names().iter().any(|name| name.starts_with("Bad")));
    assert_eq!(relay.parked_documents(), 0);
    relay.shutdown().await;
}

pub(super) async fn a_closed_bus_or_store_stops_the_relay(stores: Stores) {
    let (store, bus) = (stores.open().await, MemoryBus::new());
    let relay = Relay::new(Arc::clone(&store))
        .with_bus(Arc::new(bus.clone()))
        .with_options(options())
        .start()
        .unwrap();
    until_following(&relay).await;
    bus.close().await.unwrap();
    let last = commit(&store, "a", 1, &["Fine"]).await;
    until(&relay, "stopped", |state| {
        matches!(state, RelayState::Stopped(_))
    })
    .await;
    assert_eq!(
        relay.flush(last).await.unwrap_err().kind(),
        ErrorKind::Closed
    );
    assert_eq!(
        relay.release(&key("a")).await.unwrap_err().kind(),
        ErrorKind::Closed
    );

    let bus = TestBus::new();
    let relay = start(&store, &bus);
    bus.published.wait_for(1).await;
    store.close().await;
    until(&relay, "stopped", |state| {
        matches!(state, RelayState::Stopped(_))
    })
    .await;
    relay.shutdown().await;
}

/// One bus is away while the other one refuses an event: what is before the event in its document
/// reaches both before anything is parked.
pub(super) async fn nothing_is_parked_before_every_bus_has_what_came_earlier(stores: Stores) {
    let (store, away, strict) = (stores.open().await, TestBus::new(), TestBus::new());
    away.set_up(false);
    strict.set_poison("Bad", true);
    commit(&store, "a", 1, &["Fine"]).await;
    commit(&store, "a", 2, &["Bad"]).await;
    let last = commit(&store, "b", 1, &["Fine"]).await;
    let relay = Relay::new(Arc::clone(&store))
        .with_bus(Arc::clone(&away) as Arc<dyn EventBus>)
        .with_bus(Arc::clone(&strict) as Arc<dyn EventBus>)
        .with_options(options())
        .start()
        .unwrap();
    eventually("it tries many times", || async { strict.calls() > 20 }).await;
    assert_eq!(relay.parked_documents(), 0);
    away.set_up(true);
    let error = relay.flush(last).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadLettered);
    strict.set_poison("Bad", false);
    relay.release(&key("a")).await.unwrap();
    assert_eq!(strict.names(), ["Fine a@1.0", "Fine b@1.0", "Bad a@2.0"]);
    let first = |name: &str| away.names().iter().position(|seen| seen == name);
    assert!(first("Fine a@1.0") < first("Bad a@2.0"));
    relay.shutdown().await;
}

/// An entry whose events cannot be rendered is set aside like an event that cannot be published.
pub(super) async fn an_unreadable_entry_parks_its_document(stores: Stores) {
    let (store, bus) = (stores.open().await, TestBus::new());
    commit(&store, "a", 1, &["Fine"]).await;
    commit_unreadable(&store, "a", 2).await;
    commit(&store, "a", 3, &["Fine"]).await;
    let last = commit(&store, "b", 1, &["Fine"]).await;
    let relay = start(&store, &bus);
    assert_eq!(
        relay.flush(last).await.unwrap_err().kind(),
        ErrorKind::DeadLettered
    );
    assert_eq!(bus.names(), ["Fine a@1.0", "Fine b@1.0"]);
    let letters = relay.dead_letters(None, 10).await.unwrap();
    assert_eq!(
        (letters[0].version.get(), letters[0].event_type.as_str()),
        (2, "Odd")
    );
    assert_eq!(
        relay.release(&key("a")).await.unwrap_err().kind(),
        ErrorKind::DeadLettered
    );
    relay.discard(&key("a")).await.unwrap();
    assert_eq!(bus.names(), ["Fine a@1.0", "Fine b@1.0", "Fine a@3.0"]);
    relay.shutdown().await;
}
