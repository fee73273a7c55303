//! Processes that end, or seem to end, in the middle of a transaction.

use std::process::Command;
use std::time::{Duration, Instant};

use bson::{Document, doc};
use nodestorage::storage::backend::{Backend, CommitFailure, LeaseRequest};
use nodestorage::storage::mongodb::{MongoBackend, MongoOptions};

use crate::world::{World, create, soon, turn, update, url, user, world};

const URL: &str = "NODESTORAGE_TEST_WRITER_URL";

/// Lets the next insert of a client take its time; returns how often the fail point was met before.
async fn slow_insert(world: &World, app: &str, time: Duration) -> i64 {
    let command = doc! {
        "configureFailPoint": "failCommand",
        "mode": { "times": 1 },
        "data": {
            "failCommands": ["insert"],
            "appName": app,
            "blockConnection": true,
            "blockTimeMS": time.as_millis() as i64,
        },
    };
    let admin = world.client.database("admin");
    let reply = admin.run_command(command).await.unwrap();
    match reply.get("count") {
        Some(bson::Bson::Int32(count)) => i64::from(*count),
        Some(bson::Bson::Int64(count)) => *count,
        other => panic!("{other:?}"),
    }
}

async fn is_in_insert(world: &World, met_before: i64) {
    let command = doc! {
        "waitForFailPoint": "failCommand",
        "timesEntered": met_before + 1,
        "maxTimeMS": 20_000,
    };
    let admin = world.client.database("admin");
    admin.run_command(command).await.unwrap();
}

/// A process is killed between the update of its documents and the end of their transaction, which holds
/// them on the server for a minute from then on.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_process_held_is_writable_within_five_seconds() {
    let world = world().await;
    let _turn = turn().await;
    let keys: Vec<_> = (0..10).map(user).collect();
    let created: Vec<_> = keys.iter().map(|key| create(key, 0)).collect();
    world.backend.commit(&created, soon()).await.unwrap();
    let app = format!("killed-{}", &*world.name);
    let met = slow_insert(&world, &app, Duration::from_millis(300)).await;
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "dead_writers::writes_until_killed", "--ignored"])
        .env(URL, url(&world.name, &format!("appName={app}")))
        .spawn()
        .unwrap();
    is_in_insert(&world, met).await;
    child.kill().unwrap();
    child.wait().unwrap();
    let killed = Instant::now();
    let units: Vec<_> = keys.iter().map(|key| update(key, 1, 2)).collect();
    let mut conflicts = 0;
    while let Err(failure) = world.backend.commit(&units, soon()).await {
        assert!(
            matches!(failure, CommitFailure::Conflict { .. }),
            "{failure:?}"
        );
        conflicts += 1;
        assert!(killed.elapsed() < Duration::from_secs(5), "still locked");
    }
    assert!(killed.elapsed() < Duration::from_secs(5));
    assert!(conflicts > 0, "the documents were never locked");
    // The dead one is off the list.
    let writers = world
        .database()
        .collection::<Document>("nodestorage.writers");
    assert_eq!(writers.count_documents(doc! {}).await.unwrap(), 1);
    assert_eq!(world.log_entries().await, 20);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the work of what_a_killed_process_held_is_writable_within_five_seconds, in its process"]
async fn writes_until_killed() {
    let url = std::env::var(URL).expect("run by the test that kills it");
    let backend = MongoBackend::connect(&url, MongoOptions::default())
        .await
        .unwrap();
    let units: Vec<_> = (0..10).map(|n| update(&user(n), 1, 666)).collect();
    let outcome = backend.commit(&units, soon()).await;
    panic!("was to be killed before: {outcome:?}");
}

/// However long a transaction takes: while its process says that it is alive, it goes through.
#[tokio::test]
async fn the_sessions_of_a_living_process_are_never_ended() {
    let world = world().await;
    let _turn = turn().await;
    let key = user("a");
    world.commit(create(&key, 0)).await.unwrap();
    let app = format!("slow-{}", &*world.name);
    let slow = world.another(&format!("appName={app}")).await;
    // Longer than a process counts as alive without saying so.
    let met = slow_insert(&world, &app, Duration::from_millis(4_500)).await;
    let units = [update(&key, 1, 1)];
    let commit = slow.commit(&units, soon());
    let others = async {
        is_in_insert(&world, met).await;
        let mut conflicts = 0;
        while world.load("a").await.head.unwrap().version == 1 {
            // Writes the same document, and so looks for dead processes again and again.
            let outcome = world.commit(update(&key, 1, 2)).await;
            assert!(outcome.is_err(), "the living one was pushed aside");
            conflicts += 1;
        }
        conflicts
    };
    let (outcome, conflicts) = tokio::join!(commit, others);
    outcome.unwrap();
    assert!(conflicts > 0);
    assert_eq!(world.stored("a").await.unwrap().get_i32("n").unwrap(), 1);
}

/// A process that was paused for too long is taken for dead. Its transaction fails, and nothing is lost.
#[tokio::test]
async fn a_process_wrongly_taken_for_dead_loses_nothing_and_goes_on() {
    let world = world().await;
    let _turn = turn().await;
    let key = user("a");
    world.commit(create(&key, 0)).await.unwrap();
    let app = format!("paused-{}", &*world.name);
    let paused = world.another(&format!("appName={app}")).await;
    let met = slow_insert(&world, &app, Duration::from_secs(10)).await;
    let units = [update(&key, 1, 1)];
    let commit = paused.commit(&units, soon());
    let others = async {
        is_in_insert(&world, met).await;
        let writers = world
            .database()
            .collection::<Document>("nodestorage.writers");
        let deadline = soon();
        loop {
            let past = doc! { "$set": { "until": bson::DateTime::from_millis(0) } };
            writers.update_many(doc! {}, past).await.unwrap();
            if world.commit(update(&key, 1, 2)).await.is_ok() {
                break;
            }
            assert!(Instant::now() < deadline, "still locked");
        }
    };
    let (outcome, ()) = tokio::join!(commit, others);
    assert!(
        matches!(
            outcome,
            Err(CommitFailure::Failed(_) | CommitFailure::Conflict { .. })
        ),
        "{outcome:?}"
    );
    assert_eq!(world.stored("a").await.unwrap().get_i32("n").unwrap(), 2);
    paused.commit(&[update(&key, 2, 3)], soon()).await.unwrap();
    assert_eq!(world.log_entries().await, 3);
}

/// Writes outside a transaction do not fail on what one holds: the server lets them wait.
#[tokio::test]
async fn a_lease_that_a_dead_process_held_is_granted_within_five_seconds() {
    let world = world().await;
    let request = LeaseRequest {
        name: "relay".into(),
        owner: "me".into(),
        ttl: Duration::from_secs(30),
    };
    world.backend.acquire_lease(&request).await.unwrap();
    let mut session = world.client.start_session().await.unwrap();
    session.start_transaction().await.unwrap();
    let leases = world
        .database()
        .collection::<Document>("nodestorage.leases");
    leases
        .update_one(doc! {}, doc! { "$set": { "uses": 1 } })
        .session(&mut session)
        .await
        .unwrap();
    let writers = world
        .database()
        .collection::<Document>("nodestorage.writers");
    let dead = doc! {
        "_id": bson::Uuid::new(),
        "sessions": [session.id().get("id").unwrap().clone()],
        "until": bson::DateTime::from_millis(0),
    };
    writers.insert_one(dead).await.unwrap();
    let started = Instant::now();
    world.backend.acquire_lease(&request).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(session.commit_transaction().await.is_err());
}

#[tokio::test]
async fn a_closed_backend_is_off_the_list_of_writers() {
    let world = world().await;
    let writers = world
        .database()
        .collection::<Document>("nodestorage.writers");
    assert_eq!(writers.count_documents(doc! {}).await.unwrap(), 0);
    world.commit(create(&user("a"), 1)).await.unwrap();
    assert_eq!(writers.count_documents(doc! {}).await.unwrap(), 1);
    world.backend.close().await;
    assert_eq!(writers.count_documents(doc! {}).await.unwrap(), 0);
}
