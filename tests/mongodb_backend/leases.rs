use std::time::{Duration, Instant};

use bson::{Document, doc, rawdoc};
use nodestorage::ErrorKind;
use nodestorage::storage::backend::{
    Backend, CommitFailure, Cursor, Lease, LeaseRequest, Position,
};
use nodestorage::storage::mongodb::MongoBackend;

use crate::world::{World, create, soon, user, world};

const LONG: Duration = Duration::from_secs(600);

async fn acquire(backend: &MongoBackend, owner: &str) -> nodestorage::Result<Lease> {
    let request = LeaseRequest {
        name: "relay".into(),
        owner: owner.into(),
        ttl: LONG,
    };
    backend.acquire_lease(&request).await
}

/// Lets the lease run out without waiting for it.
async fn expire(world: &World) {
    let leases = world
        .database()
        .collection::<Document>("nodestorage.leases");
    let past = bson::DateTime::from_millis(1);
    leases
        .update_one(doc! {}, doc! { "$set": { "until": past } })
        .await
        .unwrap();
}

fn cursor(n: u32) -> Cursor {
    Cursor {
        position: Position::new(n, n),
        token: rawdoc! { "$odd.name": i64::from(n) },
    }
}

#[tokio::test]
async fn a_takeover_raises_the_fence_and_refuses_the_old_owner() {
    let world = world().await;
    let first = acquire(&world.backend, "$me").await.unwrap();
    assert_eq!((first.fence.number, first.checkpoint), (1, None));
    assert_eq!(
        acquire(&world.backend, "you").await.unwrap_err().kind(),
        ErrorKind::InUse
    );
    let again = acquire(&world.backend, "$me").await.unwrap();
    assert_eq!(again.fence, first.fence);
    world
        .backend
        .save_checkpoint(&first.fence, &cursor(1), LONG)
        .await
        .unwrap();
    expire(&world).await;
    let second = acquire(&world.backend, "you").await.unwrap();
    assert_eq!(second.fence.number, 2);
    assert_eq!(second.checkpoint, Some(cursor(1)));
    let late = world
        .backend
        .save_checkpoint(&first.fence, &cursor(2), LONG)
        .await;
    assert_eq!(late.unwrap_err().kind(), ErrorKind::InUse);
    world.backend.release_lease(&first.fence).await.unwrap();
    world
        .backend
        .save_checkpoint(&second.fence, &cursor(3), LONG)
        .await
        .unwrap();
    world.backend.release_lease(&second.fence).await.unwrap();
    let third = acquire(&world.backend, "you").await.unwrap();
    assert_eq!((third.fence.number, third.checkpoint), (3, Some(cursor(3))));
}

#[tokio::test]
async fn a_saved_checkpoint_prolongs_the_lease() {
    let world = world().await;
    let lease = acquire(&world.backend, "me").await.unwrap();
    expire(&world).await;
    world
        .backend
        .save_checkpoint(&lease.fence, &cursor(1), LONG)
        .await
        .unwrap();
    assert_eq!(
        acquire(&world.backend, "you").await.unwrap_err().kind(),
        ErrorKind::InUse
    );
}

#[tokio::test]
async fn a_lease_runs_out_on_the_servers_clock() {
    let world = world().await;
    let request = |owner: &str| LeaseRequest {
        name: "short".into(),
        owner: owner.into(),
        ttl: Duration::from_millis(300),
    };
    world.backend.acquire_lease(&request("me")).await.unwrap();
    let started = Instant::now();
    while world.backend.acquire_lease(&request("you")).await.is_err() {
        assert!(started.elapsed() < Duration::from_secs(20));
    }
    assert!(started.elapsed() >= Duration::from_millis(200));
}

#[tokio::test]
async fn of_many_first_requests_one_is_granted() {
    let world = world().await;
    let owners: Vec<_> = (0..8).map(|n| n.to_string()).collect();
    let requests = owners.iter().map(|owner| acquire(&world.backend, owner));
    let outcomes = futures_util::future::join_all(requests).await;
    assert_eq!(
        outcomes.iter().filter(|outcome| outcome.is_ok()).count(),
        1,
        "{outcomes:?}"
    );
}

#[tokio::test]
async fn a_commit_under_a_lost_fence_is_refused() {
    let world = world().await;
    let first = acquire(&world.backend, "me").await.unwrap();
    let mut unit = create(&user("a"), 1);
    unit.fence = Some(first.fence.clone());
    world.commit(unit).await.unwrap();
    expire(&world).await;
    acquire(&world.backend, "you").await.unwrap();
    let mut unit = create(&user("b"), 1);
    unit.fence = Some(first.fence);
    let units = [create(&user("c"), 1), unit];
    match world.backend.commit(&units, soon()).await {
        Err(CommitFailure::Refused { unit: 1, error }) => {
            assert_eq!(error.kind(), ErrorKind::InUse)
        }
        other => panic!("{other:?}"),
    }
    assert!(world.stored("b").await.is_none());
}
