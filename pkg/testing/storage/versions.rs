//! Version numbers and expected versions.

use bson::{RawBsonRef, rawdoc};
use futures_util::future::join_all;

use crate::document::{DocumentKey, ExpectedVersion, Version};
use crate::error::ErrorKind;
use crate::event::ChangeKind;
use crate::storage::{CollectionSpec, UpdateOptions};
use crate::testing::support::{Counter, User, foreign, kind_of, load_raw, open, open_with};
use crate::testing::{TestStore, check_log};

fn expecting(expected: impl Into<ExpectedVersion>) -> UpdateOptions {
    UpdateOptions::new().with_expected(expected)
}

/// The version starts at 1 and rises by exactly one per change; changes that write nothing use up none.
pub async fn versions_start_at_one_and_rise_by_one(store: &dyn TestStore) {
    let storage = open(store).await;
    let counters = storage.collection::<Counter>("counters");
    for round in 1..=5_u64 {
        let change = counters.update("c", Counter::incremented).await.unwrap();
        assert_eq!(change.version(), round);
        let same = counters
            .update("c", |counter| counter.unwrap())
            .await
            .unwrap();
        assert_eq!(same.version(), round);
        assert_eq!(counters.load("c").await.unwrap().version(), round);
    }
    let key = DocumentKey::new("counters", "c");
    let stored = load_raw(&storage, &key).await.unwrap();
    assert_eq!(stored.get("version").unwrap(), Some(RawBsonRef::Int64(5)));
    let log = check_log(storage.backend().as_ref(), &key).await;
    assert_eq!(log.versions(), [1, 2, 3, 4, 5]);
}

/// A document that is deleted and created again continues its numbering, however often.
pub async fn numbering_continues_after_deletion(store: &dyn TestStore) {
    let storage = open(store).await;
    let users = storage.collection::<User>("users");
    for round in 0..3_u64 {
        let created = users.update("u1", |user| {
            assert_eq!(user, None);
            User::new("Ann")
        });
        let created = created.await.unwrap();
        assert_eq!(created.kind(), ChangeKind::Created);
        assert_eq!(created.version(), 2 * round + 1);
        assert_eq!(users.delete("u1").await.unwrap().version(), 2 * round + 2);
        assert_eq!(
            users.delete("u1").await.unwrap().kind(),
            ChangeKind::Unchanged
        );
    }
    let log = check_log(storage.backend().as_ref(), &DocumentKey::new("users", "u1")).await;
    assert_eq!(log.versions(), [1, 2, 3, 4, 5, 6]);
}

/// The expectations any, exact, must-exist and must-not-exist hold or fail as they say, on a missing,
/// an existing and a deleted document.
pub async fn each_expectation_accepts_what_it_says(store: &dyn TestStore) {
    use ExpectedVersion::{Any, Exact, MustExist, MustNotExist};
    let storage = open(store).await;
    let users = storage.collection::<User>("users");
    let exact = |version| Exact(Version::new(version));
    // What is stored, and then each expectation with whether it holds.
    let cases = [
        (
            "missing",
            vec![
                (exact(0), false),
                (exact(1), false),
                (MustExist, false),
                (MustNotExist, true),
                (Any, true),
            ],
        ),
        (
            "existing",
            vec![
                (exact(0), false),
                (exact(2), false),
                (MustNotExist, false),
                (exact(1), true),
                (MustExist, true),
                (Any, true),
            ],
        ),
        (
            "deleted",
            vec![(exact(2), false), (MustExist, false), (MustNotExist, true)],
        ),
    ];
    for (state, expectations) in cases {
        for (number, (expected, holds)) in expectations.into_iter().enumerate() {
            let id = format!("{state}-{number}");
            if state != "missing" {
                users.update(&id, |_| User::new("Ann")).await.unwrap();
            }
            if state == "deleted" {
                users.delete(&id).await.unwrap();
            }
            let mut runs = 0;
            let result = users.update_with(&id, expecting(expected), |_, _| {
                runs += 1;
                User::new("Bob")
            });
            let result = result.await;
            let what = format!("{expected:?} on a {state} document");
            match result {
                Ok(_) => assert!(holds, "{what}"),
                Err(error) => {
                    assert!(!holds, "{what}: {error:?}");
                    assert_eq!(
                        (error.kind(), runs),
                        (ErrorKind::VersionConflict, 0),
                        "{what}"
                    );
                }
            }
            check_log(storage.backend().as_ref(), &DocumentKey::new("users", &id)).await;
        }
    }
}

/// A stale expected version fails with `VersionConflict { expected, actual }`, without running the
/// closure and without a retry; deletions are guarded in the same way.
pub async fn a_stale_expected_version_fails_with_both_versions(store: &dyn TestStore) {
    let storage = open(store).await;
    let counters = storage.collection::<Counter>("counters");
    for _ in 0..3 {
        counters.update("c", Counter::incremented).await.unwrap();
    }
    let error = counters
        .update_with("c", expecting(2), |_, _| -> Counter {
            panic!("the closure ran")
        })
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::VersionConflict);
    let conflict = error
        .version_conflict()
        .expect("a conflict says which versions");
    assert_eq!(conflict.expected, ExpectedVersion::Exact(Version::new(2)));
    assert_eq!(conflict.actual, Some(Version::new(3)));
    assert!(error.to_string().contains("counters/c"), "{error}");
    let deletion = storage.delete_with("counters", "c", expecting(2)).await;
    assert_eq!(kind_of(deletion), ErrorKind::VersionConflict);
    let deletion = storage.delete_with("counters", "c", expecting(3)).await;
    assert_eq!(deletion.unwrap().version(), 4);
    let error = counters
        .update_with("c", expecting(4), |_, _| Counter::default())
        .await
        .unwrap_err();
    assert_eq!(error.version_conflict().unwrap().actual, None);
    check_log(
        storage.backend().as_ref(),
        &DocumentKey::new("counters", "c"),
    )
    .await;
}

/// An expected version that was right when the closure ran, but not when its result was to be
/// committed, fails with the version that was committed instead.
pub async fn an_expected_version_is_decided_on_committed_state(store: &dyn TestStore) {
    let storage = open(store).await;
    let counters = storage.collection::<Counter>("counters");
    counters.update("c", Counter::incremented).await.unwrap();
    let mut runs = 0;
    let overtaken = storage.update_async("counters", "c", expecting(1), |counter, _| {
        runs += 1;
        let counters = counters.clone();
        async move {
            counters.update("c", Counter::incremented).await.unwrap();
            Counter::incremented(counter)
        }
    });
    let error = overtaken.await.unwrap_err();
    assert_eq!((error.kind(), runs), (ErrorKind::VersionConflict, 1));
    assert_eq!(
        error.version_conflict().unwrap().actual,
        Some(Version::new(2))
    );
    assert_eq!(counters.load("c").await.unwrap().value, 2);
    let log = check_log(
        storage.backend().as_ref(),
        &DocumentKey::new("counters", "c"),
    )
    .await;
    assert_eq!(log.versions(), [1, 2]);
}

/// Of 32 writers at one expected version exactly one wins; the others get `VersionConflict` with the
/// version that won.
pub async fn one_of_many_writers_at_one_expected_version_wins(store: &dyn TestStore) {
    let storage = open(store).await;
    let key = DocumentKey::new("users", "u1");
    for round in 0..5_u64 {
        let expected = match round {
            0 => ExpectedVersion::MustNotExist,
            _ => ExpectedVersion::Exact(Version::new(round)),
        };
        let writers = (0..32).map(|writer| {
            let storage = storage.clone();
            tokio::spawn(async move {
                let write =
                    move |_: Option<User>, _: &mut _| User::new(&format!("{round}-{writer}"));
                storage
                    .update_with("users", "u1", expecting(expected), write)
                    .await
            })
        });
        let mut winners = Vec::new();
        for result in join_all(writers).await {
            match result.unwrap() {
                Ok(change) => winners.push(change.after().unwrap().unwrap().name),
                Err(error) => {
                    let conflict = error.version_conflict();
                    let conflict = conflict.unwrap_or_else(|| panic!("{error:?}"));
                    assert_eq!(conflict.actual, Some(Version::new(round + 1)));
                }
            }
        }
        assert_eq!(winners.len(), 1, "winners of round {round}");
        let stored = storage.load::<User>("users", "u1").await.unwrap();
        assert_eq!(
            (&stored.name, stored.version().get()),
            (&winners[0], round + 1)
        );
    }
    let log = check_log(storage.backend().as_ref(), &key).await;
    assert_eq!(log.versions(), [1, 2, 3, 4, 5]);
}

/// The version field may have another name, for one collection or for all; a field called `version` is
/// then one of the application's own.
pub async fn the_version_field_may_have_another_name(store: &dyn TestStore) {
    let storage = open_with(store, |builder| {
        builder
            .version_field("rev")
            .collection(CollectionSpec::new("notes").with_version_field("edition"))
    })
    .await;
    for (collection, field) in [("users", "rev"), ("notes", "edition")] {
        let key = DocumentKey::new(collection, 1);
        for round in 1..=2 {
            let write = |_| bson::doc! { "version": "mine", "round": round };
            let change = storage.update(collection, 1, write).await.unwrap();
            assert_eq!(change.version(), round as u64);
        }
        let mut expected = rawdoc! { "_id": 1, "version": "mine", "round": 2 };
        expected.append(bson::raw::CString::try_from(field).unwrap(), 2_i64);
        assert_eq!(load_raw(&storage, &key).await, Some(expected));
        check_log(storage.backend().as_ref(), &key).await;
        let stale = UpdateOptions::new().with_expected(1);
        let stale = storage
            .update_with(collection, 1, stale, |_, _| bson::doc! {})
            .await;
        assert_eq!(kind_of(stale), ErrorKind::VersionConflict);
    }
}

/// A version field that holds no version (text, a fraction, a negative number) is `Corrupt` with the
/// document's name; nothing is written over it.
pub async fn a_version_field_without_a_version_is_corrupt(store: &dyn TestStore) {
    let storage = open(store).await;
    let writer = foreign(store).await;
    let odd = [
        rawdoc! { "_id": 1, "version": "7" },
        rawdoc! { "_id": 2, "version": 1.5 },
        rawdoc! { "_id": 3, "version": -1 },
        rawdoc! { "_id": 4, "version": null },
    ];
    for (id, document) in (1..).zip(odd) {
        let key = DocumentKey::new("users", id);
        writer.put(&key, document.clone()).await;
        let error = storage
            .update("users", id, |_| User::new("Ann"))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains(&key.to_string()), "{error}");
        assert_eq!(load_raw(&storage, &key).await, Some(document));
    }
}
