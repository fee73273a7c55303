//! Documents that a unit only read must still be as they were, whoever else commits meanwhile.

use bson::{Document, doc};
use nodestorage::document::Version;
use nodestorage::storage::backend::{Backend, CommitFailure, Condition};

use crate::world::{create, soon, update, user, world};

const ONE: Condition = Condition::Version(Version::new(1));

#[tokio::test]
async fn of_two_units_with_crossed_checks_exactly_one_commits() {
    let world = world().await;
    let other = world.another("").await;
    for round in 0..20 {
        let (a, b) = (user(format!("a{round}")), user(format!("b{round}")));
        world.commit(create(&a, 1)).await.unwrap();
        world.commit(create(&b, 1)).await.unwrap();
        let mut left = update(&a, 1, 2);
        left.checks = vec![(b.clone(), ONE)];
        let mut right = update(&b, 1, 2);
        right.checks = vec![(a.clone(), ONE)];
        let (left, right) = ([left], [right]);
        let (left, right) = tokio::join!(
            world.backend.commit(&left, soon()),
            other.commit(&right, soon())
        );
        // With luck both fail; both together would be write skew.
        let committed = usize::from(left.is_ok()) + usize::from(right.is_ok());
        assert!(committed <= 1, "round {round}: {left:?} {right:?}");
        for failure in [left.err(), right.err()].into_iter().flatten() {
            assert!(
                matches!(failure, CommitFailure::Conflict { .. }),
                "{failure:?}"
            );
        }
    }
}

#[tokio::test]
async fn of_two_units_that_each_need_the_others_document_absent_exactly_one_commits() {
    let world = world().await;
    let other = world.another("").await;
    let mut successes = 0;
    for round in 0..20 {
        let (a, b) = (user(format!("a{round}")), user(format!("b{round}")));
        let mut left = create(&a, 1);
        left.checks = vec![(b.clone(), Condition::Absent)];
        let mut right = create(&b, 1);
        right.checks = vec![(a.clone(), Condition::Absent)];
        let (left, right) = ([left], [right]);
        let (left, right) = tokio::join!(
            world.backend.commit(&left, soon()),
            other.commit(&right, soon())
        );
        let committed = usize::from(left.is_ok()) + usize::from(right.is_ok());
        assert!(committed <= 1, "round {round}: {left:?} {right:?}");
        successes += committed;
    }
    assert!(successes > 0);
    // No trace of the keys that were held.
    assert_eq!(world.log_entries().await, successes as u64);
}

#[tokio::test]
async fn checks_leave_the_bytes_alone_and_fail_on_a_changed_document() {
    let world = world().await;
    let users = world.database().collection::<Document>("users");
    let documents = [
        doc! { "_id": 1, "version": 1_i32, "n": 1 },
        doc! { "_id": 2, "version": 1_i64, "n": 1 },
        doc! { "_id": 3, "version": 1.0, "n": 1 },
        doc! { "_id": 4, "version": i32::MAX, "n": 1 },
        doc! { "_id": 5, "n": 1 },
        doc! { "_id": 6, "version": 0, "n": 1 },
    ];
    users.insert_many(&documents).await.unwrap();
    let conditions = [
        ONE,
        ONE,
        ONE,
        Condition::Version(Version::new(i32::MAX as u64)),
        Condition::Unversioned,
        Condition::Version(Version::NONE),
    ];
    let mut unit = create(&user("writer"), 1);
    unit.checks = (1..).map(user).zip(conditions).collect();
    unit.checks.push((user("nobody"), Condition::Absent));
    world.commit(unit.clone()).await.unwrap();
    for document in &documents {
        let stored = world
            .stored(document.get_i32("_id").unwrap())
            .await
            .unwrap();
        assert_eq!(stored.as_bytes(), document.to_vec().unwrap());
    }
    for (id, condition) in [
        (1, Condition::Version(Version::new(2))),
        (1, Condition::Unversioned),
        (1, Condition::Absent),
        (5, ONE),
        (9, ONE),
        (9, Condition::Unversioned),
    ] {
        let mut unit = create(&user("late"), 1);
        unit.checks = vec![(user(id), condition)];
        match world.commit(unit).await {
            Err(CommitFailure::Conflict { suspects, .. }) => assert_eq!(suspects, [0]),
            other => panic!("{id} {condition:?}: {other:?}"),
        }
    }
    assert!(world.stored("late").await.is_none());
}

#[tokio::test]
async fn thirty_two_writers_at_one_version_have_one_winner() {
    let world = world().await;
    let key = user("a");
    world.commit(create(&key, 0)).await.unwrap();
    let units: Vec<_> = (0..32).map(|n| [update(&key, 1, n)]).collect();
    let commits = units.iter().map(|unit| world.backend.commit(unit, soon()));
    let outcomes = futures_util::future::join_all(commits).await;
    let winners: Vec<_> = (0..32).filter(|n| outcomes[*n].is_ok()).collect();
    assert_eq!(winners.len(), 1);
    for failure in outcomes.into_iter().filter_map(Result::err) {
        assert!(
            matches!(failure, CommitFailure::Conflict { .. }),
            "{failure:?}"
        );
    }
    let stored = world.stored("a").await.unwrap();
    assert_eq!(stored.get_i32("n").unwrap(), winners[0] as i32);
    assert_eq!(world.log_entries().await, 2);
}

#[tokio::test]
async fn a_dropped_commit_leaves_nothing_locked() {
    let world = world().await;
    let key = user("a");
    world.commit(create(&key, 0)).await.unwrap();
    let mut version = 1;
    // Cut off at every number of polls, which is in every statement.
    for polls in 1..40 {
        let unit = [update(&key, version, polls)];
        let mut commit = Box::pin(world.backend.commit(&unit, soon()));
        let mut left = polls;
        std::future::poll_fn(|context| {
            left -= 1;
            let ready = commit.as_mut().poll(context).is_ready();
            if ready || left == 0 {
                std::task::Poll::Ready(())
            } else {
                std::task::Poll::Pending
            }
        })
        .await;
        drop(commit);
        // The next writer must get through: at once, or as soon as the server has aborted.
        let deadline = soon();
        loop {
            let loaded = world.load("a").await;
            let found = loaded.head.unwrap().version.get();
            let document = loaded.document.unwrap();
            assert_eq!(document.get_i64("version").unwrap(), found as i64);
            let next = update(&key, found, -1);
            if world.backend.commit(&[next], deadline).await.is_ok() {
                version = found + 1;
                break;
            }
            assert!(
                std::time::Instant::now() < deadline,
                "locked after {polls} polls"
            );
        }
    }
}
