//! Subscriptions of one name, and owners that come too late.

use std::sync::Mutex;
use std::time::Duration;

use futures_util::StreamExt;

use super::seen::{increment, open_faulty, subscribe};
use crate::error::ErrorKind;
use crate::history::{LogSubscription, LogSubscriptionState};
use crate::storage::backend::{Cursor, Lease, LeaseRequest, TailFrom, TailItem};
use crate::testing::support::{kind_of, open};
use crate::testing::{Fault, TestStore, eventually};

/// Of two subscriptions with one name one works; when it ends, or its handle is dropped, the other goes
/// on behind it.
pub async fn subscriptions_of_one_name_take_turns(store: &dyn TestStore) {
    let storage = open(store).await;
    increment(&storage, 2).await;
    let (first, seen_first) = subscribe(&storage, "s", LogSubscription::new());
    seen_first.until(&[1, 2]).await;
    let (second, seen_second) = subscribe(&storage, "s", LogSubscription::new());
    let mut states = second.state_changes();
    let waits =
        |state: &LogSubscriptionState| matches!(state, LogSubscriptionState::WaitingForLease);
    states.wait_for(waits).await.unwrap();
    first.shutdown().await;
    second.started().await.unwrap();
    increment(&storage, 1).await;
    seen_second.until_at_least(&[3]).await;
    let (third, seen_third) = subscribe(&storage, "s", LogSubscription::new());
    drop(second);
    third.started().await.unwrap();
    increment(&storage, 1).await;
    seen_third.until_at_least(&[4]).await;
    third.shutdown().await;
}

/// An owner whose lease ended and was granted to another is refused: its checkpoint, its renewal under
/// the old fence, and its release have no effect.
pub async fn a_stale_checkpoint_owner_is_refused(store: &dyn TestStore) {
    let storage = open(store).await;
    increment(&storage, 2).await;
    let backend = storage.backend();
    let mut cursors: Vec<Cursor> = Vec::new();
    let mut tail = backend.tail(TailFrom::Beginning);
    while cursors.len() < 2 {
        if let TailItem::Entry { cursor, .. } = tail.next().await.unwrap().unwrap() {
            cursors.push(cursor);
        }
    }
    let request = |owner: &str, millis: u64| LeaseRequest {
        name: "subscription/s".into(),
        owner: owner.into(),
        ttl: Duration::from_millis(millis),
    };
    let stale = backend.acquire_lease(&request("a", 20)).await.unwrap();
    assert_eq!(stale.checkpoint, None);
    let fresh: Mutex<Option<Lease>> = Mutex::default();
    eventually("the lease ends", || async {
        let granted = backend.acquire_lease(&request("b", 60_000)).await;
        *fresh.lock().unwrap() = granted.ok();
        fresh.lock().unwrap().is_some()
    })
    .await;
    let fresh = fresh.into_inner().unwrap().unwrap();
    assert!(fresh.fence.number > stale.fence.number);
    let ttl = Duration::from_secs(60);
    backend
        .save_checkpoint(&fresh.fence, &cursors[0], ttl)
        .await
        .unwrap();
    let refused = backend
        .save_checkpoint(&stale.fence, &cursors[1], ttl)
        .await;
    assert_eq!(kind_of(refused), ErrorKind::InUse);
    let refused = backend.acquire_lease(&request("a", 20)).await;
    assert_eq!(kind_of(refused), ErrorKind::InUse);
    backend.release_lease(&stale.fence).await.unwrap();
    let renewed = backend.acquire_lease(&request("b", 60_000)).await.unwrap();
    assert_eq!(renewed.fence, fresh.fence);
    assert_eq!(renewed.checkpoint.as_ref(), Some(&cursors[0]));
    backend.release_lease(&fresh.fence).await.unwrap();

    let (next, seen) = subscribe(&storage, "s", LogSubscription::new());
    seen.until_at_least(&[2]).await;
    next.shutdown().await;
}

/// A subscription whose checkpoint is refused, as that of an owner that was paused past its lease, lines
/// up again and continues at the stored checkpoint: it repeats at most, and in order.
pub async fn a_subscription_that_lost_its_lease_continues(store: &dyn TestStore) {
    let (storage, faulty) = open_faulty(store).await;
    increment(&storage, 2).await;
    let few = LogSubscription::new().with_checkpoints(3, Duration::from_secs(3_600));
    let (subscription, seen) = subscribe(&storage, "s", few);
    seen.until(&[1, 2]).await;
    subscription.started().await.unwrap();
    faulty.fail_with([Fault::Lease(ErrorKind::InUse)]);
    increment(&storage, 6).await;
    eventually("the newest is handled", || async {
        seen.versions().contains(&8)
    })
    .await;
    subscription.shutdown().await;
    assert_eq!(faulty.faults_left(), 0);
    let versions = seen.versions();
    let mut newest = 0;
    for version in &versions {
        assert!(*version <= newest + 1, "{versions:?}");
        newest = newest.max(*version);
    }
    assert!(versions.len() > 8, "{versions:?}");
}
