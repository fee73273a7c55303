//! Subscriptions and streams through outages and damage.

use std::time::Duration;

use futures_util::TryStreamExt;

use super::seen::{increment, open_faulty, subscribe};
use crate::error::ErrorKind;
use crate::history::{LogSubscription, LogSubscriptionState};
use crate::storage::backend::{Position, TailFrom};
use crate::testing::support::kind_of;
use crate::testing::{Fault, TestStore, eventually};

/// Outages of the log and of the checkpoint are waited out, and nothing is left out.
pub async fn a_subscription_waits_outages_out(store: &dyn TestStore) {
    let (storage, faulty) = open_faulty(store).await;
    increment(&storage, 2).await;
    faulty.fail_with([
        Fault::Lease(ErrorKind::Unavailable),
        Fault::Tail(ErrorKind::Timeout),
    ]);
    let often = LogSubscription::new().with_checkpoints(1, Duration::ZERO);
    let (subscription, seen) = subscribe(&storage, "s", often.clone());
    seen.until_at_least(&[1, 2]).await;
    faulty.fail_with([
        Fault::Tail(ErrorKind::Unavailable),
        Fault::Tail(ErrorKind::Unavailable),
        Fault::Lease(ErrorKind::Unavailable),
    ]);
    increment(&storage, 3).await;
    seen.until_at_least(&[1, 2, 3, 4, 5]).await;
    eventually("the faults have come up", || async {
        faulty.faults_left() == 0
    })
    .await;
    subscription.shutdown().await;
    increment(&storage, 1).await;
    let (next, seen) = subscribe(&storage, "s", often);
    seen.until_at_least(&[6]).await;
    next.shutdown().await;
}

/// What trying again does not mend ends a subscription, with its reason, and a stream.
pub async fn damage_ends_subscriptions_and_streams(store: &dyn TestStore) {
    let (storage, faulty) = open_faulty(store).await;
    increment(&storage, 1).await;
    faulty.fail_with([Fault::Tail(ErrorKind::Corrupt)]);
    let (subscription, seen) = subscribe(&storage, "s", LogSubscription::new());
    let mut states = subscription.state_changes();
    let stopped = states.wait_for(|state| matches!(state, LogSubscriptionState::Stopped(_)));
    assert_eq!(
        stopped.await.unwrap().error().unwrap().kind(),
        ErrorKind::Corrupt
    );
    assert!(seen.versions().is_empty());
    let handled = subscription.handled(Position::new(1, 1)).await;
    assert_eq!(kind_of(handled), ErrorKind::Corrupt);

    faulty.fail_with([
        Fault::Tail(ErrorKind::Unavailable),
        Fault::Tail(ErrorKind::Corrupt),
    ]);
    let mut log = storage.log(TailFrom::Beginning);
    assert_eq!(kind_of(log.try_next().await), ErrorKind::Corrupt);
    assert!(log.try_next().await.unwrap().is_none());
    // The lease was given up: nobody waits for its end.
    let (next, seen) = subscribe(&storage, "s", LogSubscription::new());
    seen.until(&[1]).await;
    next.shutdown().await;
}
