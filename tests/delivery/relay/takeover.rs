use std::sync::Arc;
use std::time::{Duration, Instant};

use super::store::{Link, Linked};
use super::stores::Stores;
use super::support::*;
use nodestorage::bus::{EventBusExt, MemoryBus, Subscription};
use nodestorage::error::ErrorKind;
use nodestorage::event::Event;
use nodestorage::relay::{Relay, RelayState};
use nodestorage::storage::Delivery;
use nodestorage::storage::backend::Backend;
use nodestorage::testing::bus::Recorder;

pub(super) async fn everything_is_published_in_order_and_a_restart_repeats_nothing(stores: Stores) {
    let (store, bus) = (stores.open().await, TestBus::new());
    commit_many(&store, 3, 1..=20).await;
    let relay = start(&store, &bus);
    let last = commit_many(&store, 3, 21..=40).await;
    relay.flush(last).await.unwrap();
    assert!(relay.position() >= last);
    relay.shutdown().await;
    assert!(
        matches!(relay.state(), RelayState::Stopped(error) if error.kind() == ErrorKind::Closed)
    );
    assert_eq!(bus.published.len(), 120);

    let relay = start(&store, &bus);
    let last = commit_many(&store, 3, 41..=50).await;
    relay.flush(last).await.unwrap();
    relay.shutdown().await;
    assert_eq!(bus.published.len(), 150);
    assert_complete(&bus.published.events(), 3, 50);
}

pub(super) async fn a_memory_bus_subscriber_gets_every_event(stores: Stores) {
    let (store, bus) = (stores.open().await, MemoryBus::new());
    let seen = Recorder::new();
    let recorder = seen.clone();
    bus.subscribe(Subscription::to_all().with_queue(7), move |event: Event| {
        recorder.record(event);
        async {}
    })
    .await
    .unwrap();
    let relay = Relay::new(Arc::clone(&store))
        .with_bus(Arc::new(bus.clone()))
        .with_options(options())
        .start()
        .unwrap();
    let last = commit_many(&store, 5, 1..=50).await;
    relay.flush(last).await.unwrap();
    relay.shutdown().await;
    nodestorage::bus::EventBus::close(&bus).await.unwrap();
    assert_eq!(seen.len(), 250);
    assert_complete(&seen.events(), 5, 50);
}

/// What was committed just before the end is still published.
pub(super) async fn shutting_down_publishes_what_the_log_holds(stores: Stores) {
    for _ in 0..20 {
        let (store, bus) = (stores.open().await, TestBus::new());
        let relay = start(&store, &bus);
        until_following(&relay).await;
        commit_many(&store, 10, 1..=3).await;
        relay.shutdown().await;
        assert_complete(&bus.published.events(), 10, 3);
    }
}

/// The relay dies when everything is published and nothing of it is in the checkpoint.
pub(super) async fn a_crash_between_publish_and_checkpoint_repeats_and_loses_nothing(
    stores: Stores,
) {
    let (store, bus) = (stores.open().await, TestBus::new());
    let link = Linked::new(&store);
    let shared: Arc<dyn Backend> = link.clone();
    let never = options().with_checkpoints(usize::MAX, Duration::from_secs(3_600));
    let relay = start_with(&shared, &bus, never);
    until_following(&relay).await;
    commit_many(&store, 4, 1..=10).await;
    bus.published.wait_for(40).await;
    link.set(Link::Cut);
    relay.shutdown().await;

    let relay = start(&store, &bus);
    let last = commit_many(&store, 4, 11..=12).await;
    relay.flush(last).await.unwrap();
    relay.shutdown().await;
    let events = bus.published.events();
    assert_complete(&events, 4, 12);
    // The first renewal, a third of the lease after the start, may have stored some of it.
    assert!(events.len() >= 48, "{}", events.len());
    let mut ids: Vec<_> = events.iter().map(Event::id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 48, "repetitions have the same ids");
}

pub(super) async fn of_two_relays_one_publishes_and_the_other_takes_over_from_a_dead_one(
    stores: Stores,
) {
    let store = stores.open().await;
    let link = Linked::new(&store);
    let (first, second) = (TestBus::new(), TestBus::new());
    let shared: Arc<dyn Backend> = link.clone();
    let leader = start(&shared, &first);
    until_following(&leader).await;
    let standby = start(&store, &second);
    until(&standby, "waiting", |state| {
        matches!(state, RelayState::WaitingForLease)
    })
    .await;
    let last = commit_many(&store, 3, 1..=10).await;
    leader.flush(last).await.unwrap();
    assert_eq!((first.published.len(), second.published.len()), (30, 0));

    link.set(Link::Cut);
    let died = Instant::now();
    until_following(&standby).await;
    // The lease, a look of the standby, and the delays of a busy machine.
    assert!(died.elapsed() < TTL * 3, "{:?}", died.elapsed());
    let last = commit_many(&store, 3, 11..=20).await;
    standby.flush(last).await.unwrap();
    let all = [first.published.events(), second.published.events()].concat();
    assert_complete(&all, 3, 20);
    assert!(matches!(
        leader.state(),
        RelayState::Retrying(_) | RelayState::WaitingForLease
    ));

    // The dead one comes back, lines up, and takes over in turn, at once since the other one says goodbye.
    link.set(Link::Up);
    until(&leader, "waiting", |state| {
        matches!(state, RelayState::WaitingForLease)
    })
    .await;
    standby.shutdown().await;
    until_following(&leader).await;
    let last = commit_many(&store, 3, 21..=21).await;
    leader.flush(last).await.unwrap();
    let all = [all, second.published.events(), first.published.events()].concat();
    assert_complete(&all, 3, 21);
    leader.shutdown().await;
}

/// The owner is paused in the middle of its work, and wakes when another relay has long taken over. What
/// it had in flight may be repeated, its checkpoint is refused, and it publishes nothing more.
pub(super) async fn a_paused_owner_that_wakes_after_a_takeover_steps_back(stores: Stores) {
    let store = stores.open().await;
    let link = Linked::new(&store);
    let (first, second) = (TestBus::new(), TestBus::new());
    let shared: Arc<dyn Backend> = link.clone();
    let paused = start(&shared, &first);
    until_following(&paused).await;
    let last = commit_many(&store, 2, 1..=5).await;
    paused.flush(last).await.unwrap();

    first.shut_gate();
    link.set(Link::Held);
    commit_many(&store, 2, 6..=6).await;
    let other = start(&store, &second);
    until_following(&other).await;
    let last = commit_many(&store, 2, 7..=10).await;
    other.flush(last).await.unwrap();
    let checkpoint = store.read_checkpoint("relay").await.unwrap().unwrap();

    link.set(Link::Up);
    first.open_gate();
    until(&paused, "waiting", |state| {
        matches!(state, RelayState::WaitingForLease)
    })
    .await;
    let kept = store.read_checkpoint("relay").await.unwrap().unwrap();
    assert!(kept.position >= checkpoint.position);
    let woken = first.published.events();
    assert!(
        woken.len() <= 12,
        "only what was in flight: {:?}",
        names(&woken)
    );
    assert_complete(&[woken, second.published.events()].concat(), 2, 10);
    paused.shutdown().await;
    other.shutdown().await;
}

/// A publish that takes longer than the lease does not cost the lease.
pub(super) async fn a_slow_bus_keeps_the_lease(stores: Stores) {
    let (store, bus, idle) = (stores.open().await, TestBus::new(), TestBus::new());
    let relay = start(&store, &bus);
    until_following(&relay).await;
    let standby = start(&store, &idle);
    bus.shut_gate();
    let last = commit_many(&store, 1, 1..=3).await;
    let begin = Instant::now();
    while begin.elapsed() < TTL * 3 {
        assert!(!matches!(standby.state(), RelayState::Following));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    bus.open_gate();
    relay.flush(last).await.unwrap();
    assert_eq!((bus.published.len(), idle.published.len()), (3, 0));
    standby.shutdown().await;
    relay.shutdown().await;
}

pub(super) async fn a_bus_that_never_answers_holds_up_the_end_until_the_deadline(stores: Stores) {
    let (store, bus) = (stores.open().await, TestBus::new());
    let relay = start(&store, &bus);
    until_following(&relay).await;
    bus.shut_gate();
    commit_many(&store, 1, 1..=1).await;
    while bus.calls() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let begin = Instant::now();
    relay.shutdown().await;
    let took = begin.elapsed();
    assert!(
        took >= Duration::from_millis(300) && took < Duration::from_secs(5),
        "{took:?}"
    );
    // Not confirmed, so it comes again.
    bus.open_gate();
    let relay = start(&store, &bus);
    bus.published.wait_for(1).await;
    relay.shutdown().await;
}

pub(super) async fn dropping_the_last_handle_ends_the_relay(stores: Stores) {
    let (store, bus) = (stores.open().await, TestBus::new());
    let relay = start(&store, &bus);
    until_following(&relay).await;
    let mut state = relay.state_changes();
    drop(relay);
    let stopped = state.wait_for(|state| matches!(state, RelayState::Stopped(_)));
    tokio::time::timeout(Duration::from_secs(20), stopped)
        .await
        .unwrap()
        .unwrap();
    // It gave up its lease as well.
    let relay = start(&store, &bus);
    until_following(&relay).await;
    relay.shutdown().await;
}

pub(super) async fn a_relay_that_makes_no_sense_is_refused(stores: Stores) {
    let kind = |relay: Relay| relay.start().map(drop).unwrap_err().kind();
    assert_eq!(
        kind(Relay::new(stores.open().await)),
        ErrorKind::InvalidConfig
    );
    let relay = Relay::new(stores.open().await).with_bus(Arc::new(MemoryBus::new()));
    let relay = relay.with_options(options().with_lease_ttl(Duration::ZERO));
    assert_eq!(kind(relay), ErrorKind::InvalidConfig);
}
