//! Leases and their checkpoints.

use std::time::Duration;

use bson::rawdoc;
use futures_util::future::join_all;

use super::support::{commit, creation, opened};
use crate::error::ErrorKind;
use crate::storage::backend::{Backend, Cursor, Lease, LeaseRequest};
use crate::testing::TestStore;
use crate::testing::support::{eventually, kind_of};

const LONG: Duration = Duration::from_secs(600);

async fn acquire(backend: &dyn Backend, owner: &str, ttl: Duration) -> crate::Result<Lease> {
    let request = LeaseRequest {
        name: "relay".into(),
        owner: owner.into(),
        ttl,
    };
    backend.acquire_lease(&request).await
}

async fn cursor(backend: &dyn Backend, id: i32) -> Cursor {
    let receipt = commit(backend, &[creation(id)]).await.unwrap();
    Cursor {
        position: receipt.position,
        token: rawdoc! { "a.b": { "$x": [id] } },
    }
}

/// A lease has one owner, who renews it without a new fence; others get `InUse`. Leases of other names
/// are apart.
pub async fn a_lease_has_one_owner(store: &dyn TestStore) {
    let backend = opened(store).await;
    let backend = backend.as_ref();
    let lease = acquire(backend, "a", LONG).await.unwrap();
    assert_eq!((lease.fence.owner.as_str(), lease.checkpoint), ("a", None));
    let again = acquire(backend, "a", LONG).await.unwrap();
    assert_eq!(again.fence, lease.fence);
    assert_eq!(kind_of(acquire(backend, "b", LONG).await), ErrorKind::InUse);
    let other = LeaseRequest {
        name: "relay/2".into(),
        owner: "b".into(),
        ttl: LONG,
    };
    backend.acquire_lease(&other).await.unwrap();
    let owners = join_all((0..16).map(async |n| {
        let request = LeaseRequest {
            name: "race".into(),
            owner: format!("o{n}"),
            ttl: LONG,
        };
        backend.acquire_lease(&request).await
    }));
    let won = owners.await.iter().filter(|lease| lease.is_ok()).count();
    assert_eq!(won, 1, "owners of one lease");
}

/// A lease that was released or ran out goes to the next owner with a higher fence and the checkpoint of
/// the last one; what the former owner does under the old fence is refused or has no effect.
pub async fn a_takeover_raises_the_fence(store: &dyn TestStore) {
    let backend = opened(store).await;
    let backend = backend.as_ref();
    let first = acquire(backend, "a", LONG).await.unwrap();
    let checkpoint = cursor(backend, 1).await;
    backend
        .save_checkpoint(&first.fence, &checkpoint, LONG)
        .await
        .unwrap();
    backend.release_lease(&first.fence).await.unwrap();

    let second = acquire(backend, "b", Duration::from_millis(50))
        .await
        .unwrap();
    assert!(second.fence.number > first.fence.number);
    assert_eq!(second.checkpoint, Some(checkpoint.clone()));
    let late = cursor(backend, 2).await;
    assert_eq!(
        kind_of(backend.save_checkpoint(&first.fence, &late, LONG).await),
        ErrorKind::InUse
    );

    // The second one runs out by itself.
    let mut third = None;
    eventually("the lease runs out", async || {
        third = acquire(backend, "c", LONG).await.ok();
        third.is_some()
    })
    .await;
    let third = third.unwrap();
    assert!(third.fence.number > second.fence.number);
    assert_eq!(third.checkpoint, Some(checkpoint));
    assert_eq!(
        kind_of(backend.save_checkpoint(&second.fence, &late, LONG).await),
        ErrorKind::InUse
    );
    backend.release_lease(&second.fence).await.unwrap();
    assert_eq!(kind_of(acquire(backend, "d", LONG).await), ErrorKind::InUse);
    backend
        .save_checkpoint(&third.fence, &late, LONG)
        .await
        .unwrap();
    assert_eq!(
        acquire(backend, "c", LONG).await.unwrap().checkpoint,
        Some(late)
    );
}

/// The same owner that comes back after its lease ran out gets a higher fence too: somebody may have had
/// it meanwhile.
pub async fn a_lease_that_ran_out_is_a_new_one(store: &dyn TestStore) {
    let backend = opened(store).await;
    let backend = backend.as_ref();
    let first = acquire(backend, "a", Duration::from_millis(20))
        .await
        .unwrap();
    let mut other = None;
    eventually("the lease runs out", async || {
        other = acquire(backend, "b", Duration::from_millis(20)).await.ok();
        other.is_some()
    })
    .await;
    let mut back = None;
    eventually("the lease runs out again", async || {
        back = acquire(backend, "a", LONG).await.ok();
        back.is_some()
    })
    .await;
    let numbers = [first, other.unwrap(), back.unwrap()].map(|lease| lease.fence.number);
    assert!(
        numbers[0] < numbers[1] && numbers[1] < numbers[2],
        "{numbers:?}"
    );
}

/// Saving a checkpoint prolongs the lease.
pub async fn a_checkpoint_prolongs_the_lease(store: &dyn TestStore) {
    let backend = opened(store).await;
    let backend = backend.as_ref();
    let lease = acquire(backend, "a", Duration::from_secs(5)).await.unwrap();
    let checkpoint = cursor(backend, 1).await;
    backend
        .save_checkpoint(&lease.fence, &checkpoint, LONG)
        .await
        .unwrap();
    assert_eq!(kind_of(acquire(backend, "b", LONG).await), ErrorKind::InUse);
    // And shortens it, where it is asked to.
    backend
        .save_checkpoint(&lease.fence, &checkpoint, Duration::from_millis(1))
        .await
        .unwrap();
    eventually("the lease runs out", async || {
        acquire(backend, "b", LONG).await.is_ok()
    })
    .await;
}

/// A checkpoint survives the end of the process.
pub async fn a_checkpoint_is_there_after_reopening(store: &dyn TestStore) {
    let backend = opened(store).await;
    let lease = acquire(backend.as_ref(), "a", LONG).await.unwrap();
    let checkpoint = cursor(backend.as_ref(), 1).await;
    backend
        .save_checkpoint(&lease.fence, &checkpoint, LONG)
        .await
        .unwrap();
    backend.release_lease(&lease.fence).await.unwrap();
    drop(backend);
    let backend = store.reopen().await.unwrap();
    let lease = acquire(backend.as_ref(), "b", LONG).await.unwrap();
    assert_eq!(lease.checkpoint, Some(checkpoint));
}

/// Whether a lease is held can be seen by everyone: while it lives, not before, not after its end, and not
/// after it was given up.
pub async fn it_shows_whether_a_lease_is_held(store: &dyn TestStore) {
    let backend = opened(store).await;
    let backend = backend.as_ref();
    assert!(!backend.is_leased("relay").await.unwrap());
    let lease = acquire(backend, "a", LONG).await.unwrap();
    assert!(backend.is_leased("relay").await.unwrap());
    assert!(!backend.is_leased("relay/2").await.unwrap());
    backend.release_lease(&lease.fence).await.unwrap();
    assert!(!backend.is_leased("relay").await.unwrap());
    acquire(backend, "b", Duration::from_millis(50))
        .await
        .unwrap();
    eventually("it runs out", async || {
        !backend.is_leased("relay").await.unwrap()
    })
    .await;
}
