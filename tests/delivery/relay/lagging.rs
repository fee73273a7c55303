use std::sync::Arc;
use std::time::Duration;

use super::stores::Stores;
use super::support::*;
use bson::DateTime;
use nodestorage::clock::Clock;
use nodestorage::relay::RelayState;
use nodestorage::storage::Delivery;
use nodestorage::testing::bus::eventually;

/// Five seconds after everything that these tests commit.
#[derive(Debug)]
struct Later;

impl Clock for Later {
    fn now(&self) -> DateTime {
        DateTime::from_millis(1_700_000_005_000)
    }
}

pub(super) async fn a_relay_says_how_far_it_is_behind(stores: Stores) {
    let ((store, elsewhere), bus) = (stores.open_twice().await, TestBus::new());
    let later = || options().with_clock(Arc::new(Later));
    let relay = start_with(&store, &bus, later());
    until_following(&relay).await;
    let last = commit_many(&store, 3, 1..=4).await;
    relay.flush(last).await.unwrap();
    eventually("the log is passed", || async {
        relay.lag().await.unwrap().entries == 0
    })
    .await;
    assert_eq!(relay.lag().await.unwrap().age, Duration::ZERO);

    bus.set_up(false);
    let last = commit_many(&store, 3, 5..=14).await;
    until(&relay, "retrying", |state| {
        matches!(state, RelayState::Retrying(_))
    })
    .await;
    let lag = relay.lag().await.unwrap();
    assert_eq!((lag.entries, lag.age), (30, Duration::from_secs(5)));
    // One that only stands by says the same, from the checkpoint.
    let standby = start_with(&elsewhere, &bus, later());
    let lag = standby.lag().await.unwrap();
    assert_eq!((lag.entries, lag.age), (30, Duration::from_secs(5)));

    bus.set_up(true);
    relay.flush(last).await.unwrap();
    eventually("it has caught up", || async {
        standby.lag().await.unwrap().entries == 0
    })
    .await;
    standby.shutdown().await;
    relay.shutdown().await;
}
