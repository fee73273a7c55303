use std::time::{Duration, Instant};

use bson::doc;
use nodestorage::ErrorKind;
use nodestorage::storage::backend::{Backend, CommitFailure};

use crate::world::{create, fail, soon, turn, update, user, world};

#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_counted_once() {
    let world = world().await;
    let _turn = turn().await;
    let app = format!("lost-{}", &*world.name);
    let backend = world.another(&format!("appName={app}")).await;
    let key = user("a");
    world.commit(create(&key, 0)).await.unwrap();
    for (round, times) in (1..).zip([1, 2, 3, 5]) {
        // The connection breaks before the command runs, more often than the driver retries.
        let lost = doc! { "failCommands": ["commitTransaction"], "closeConnection": true };
        fail(&world.client, &app, times, lost).await;
        backend
            .commit(&[update(&key, round, 1)], soon())
            .await
            .unwrap();
        assert_eq!(world.load("a").await.head.unwrap().version, round + 1);
    }
    assert_eq!(world.log_entries().await, 5);
}

#[tokio::test]
async fn a_commit_that_went_through_and_was_not_confirmed_is_counted_once() {
    let world = world().await;
    let _turn = turn().await;
    let app = format!("unconfirmed-{}", &*world.name);
    let backend = world.another(&format!("appName={app}")).await;
    let key = user("a");
    world.commit(create(&key, 0)).await.unwrap();
    // After 91 the driver takes the server for lost until its next heartbeat, up to ten seconds later.
    for (round, (code, times)) in (1..).zip([(64, 1), (64, 4), (91, 1)]) {
        let unconfirmed = doc! {
            "failCommands": ["commitTransaction"],
            "writeConcernError": { "code": code, "errmsg": "not confirmed" },
        };
        fail(&world.client, &app, times, unconfirmed).await;
        backend
            .commit(&[update(&key, round, 1)], soon())
            .await
            .unwrap();
        assert_eq!(world.load("a").await.head.unwrap().version, round + 1);
    }
    assert_eq!(world.log_entries().await, 4);
}

#[tokio::test]
async fn an_outcome_that_stays_unknown_is_said_at_the_deadline() {
    let world = world().await;
    let _turn = turn().await;
    let app = format!("unknown-{}", &*world.name);
    let backend = world.another(&format!("appName={app}")).await;
    let unconfirmed = doc! {
        "failCommands": ["commitTransaction"],
        "writeConcernError": { "code": 64, "errmsg": "not confirmed" },
    };
    fail(&world.client, &app, 10_000, unconfirmed).await;
    let started = Instant::now();
    let deadline = started + Duration::from_millis(600);
    let failure = backend
        .commit(&[create(&user("a"), 1)], deadline)
        .await
        .unwrap_err();
    assert!(matches!(failure, CommitFailure::Unknown(_)), "{failure:?}");
    assert_eq!(failure.into_error().kind(), ErrorKind::CommitUnknown);
    assert!(started.elapsed() < Duration::from_secs(5));
    let off = doc! { "configureFailPoint": "failCommand", "mode": "off" };
    world
        .client
        .database("admin")
        .run_command(off)
        .await
        .unwrap();
    // It was committed, as it happens.
    assert!(world.stored("a").await.is_some());
}

#[tokio::test]
async fn a_transaction_that_the_server_dropped_wrote_nothing_and_says_so() {
    let world = world().await;
    let _turn = turn().await;
    let app = format!("dropped-{}", &*world.name);
    let backend = world.another(&format!("appName={app}")).await;
    for command in ["insert", "commitTransaction"] {
        let gone = doc! {
            "failCommands": [command],
            "errorCode": 251, "errorLabels": ["TransientTransactionError"],
        };
        fail(&world.client, &app, 1, gone).await;
        let failure = backend
            .commit(&[create(&user("a"), 1)], soon())
            .await
            .unwrap_err();
        assert!(
            matches!(failure, CommitFailure::Conflict { .. }),
            "{command}: {failure:?}"
        );
        assert!(world.stored("a").await.is_none());
    }
    // The fail point only says that the transaction is gone; the next one in its session ends it.
    backend
        .commit(&[create(&user("a"), 1)], soon())
        .await
        .unwrap();
}

#[tokio::test]
async fn failures_of_statements_are_told_apart() {
    let world = world().await;
    let _turn = turn().await;
    let app = format!("codes-{}", &*world.name);
    let backend = world.another(&format!("appName={app}")).await;
    for (code, kind) in [
        (112, None),
        (24, None),
        (246, None),
        (14031, Some(ErrorKind::StorageFull)),
        (50, Some(ErrorKind::Timeout)),
        (13, Some(ErrorKind::InvalidConfig)),
        // The last ones: the driver takes the server for lost until its next heartbeat.
        (10107, Some(ErrorKind::Unavailable)),
        (91, Some(ErrorKind::Unavailable)),
    ] {
        fail(
            &world.client,
            &app,
            1,
            doc! { "failCommands": ["insert"], "errorCode": code },
        )
        .await;
        let failure = backend
            .commit(&[create(&user("a"), 1)], soon())
            .await
            .unwrap_err();
        match (kind, &failure) {
            (None, CommitFailure::Conflict { .. }) => {}
            (Some(kind), CommitFailure::Failed(error)) => assert_eq!(error.kind(), kind, "{code}"),
            _ => panic!("{code}: {failure:?}"),
        }
    }
    fail(
        &world.client,
        &app,
        1,
        doc! { "failCommands": ["insert"], "closeConnection": true },
    )
    .await;
    match backend
        .commit(&[create(&user("a"), 1)], soon())
        .await
        .unwrap_err()
    {
        CommitFailure::Failed(error) => assert_eq!(error.kind(), ErrorKind::Unavailable),
        other => panic!("{other:?}"),
    }
    // Whatever was left behind is gone: nobody is locked out.
    world.commit(create(&user("a"), 1)).await.unwrap();
    assert_eq!(world.log_entries().await, 1);
}

#[tokio::test]
async fn a_deadline_in_the_middle_of_a_statement_writes_nothing_and_locks_nothing() {
    let world = world().await;
    let _turn = turn().await;
    let app = format!("slow-{}", &*world.name);
    let backend = world.another(&format!("appName={app}")).await;
    let slow = doc! { "failCommands": ["insert"], "blockConnection": true, "blockTimeMS": 1_500 };
    fail(&world.client, &app, 2, slow).await;
    let deadline = Instant::now() + Duration::from_millis(200);
    match backend
        .commit(&[create(&user("a"), 1)], deadline)
        .await
        .unwrap_err()
    {
        CommitFailure::Failed(error) => assert_eq!(error.kind(), ErrorKind::Timeout),
        other => panic!("{other:?}"),
    }
    let deadline = soon();
    while world
        .backend
        .commit(&[create(&user("a"), 1)], deadline)
        .await
        .is_err()
    {
        assert!(Instant::now() < deadline, "still locked");
    }
}

#[tokio::test]
async fn reads_survive_a_broken_connection() {
    let world = world().await;
    let _turn = turn().await;
    let app = format!("reads-{}", &*world.name);
    let backend = world.another(&format!("appName={app}")).await;
    world.commit(create(&user("a"), 1)).await.unwrap();
    fail(
        &world.client,
        &app,
        1,
        doc! { "failCommands": ["find"], "closeConnection": true },
    )
    .await;
    assert!(
        backend.load(&[user("a")]).await.unwrap()[0]
            .document
            .is_some()
    );
}
