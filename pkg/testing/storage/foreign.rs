//! Other programs that write the same documents, and what the log makes of it.

use bson::{RawDocumentBuf, doc, rawdoc};

use crate::document::{DocumentKey, ExpectedVersion};
use crate::error::ErrorKind;
use crate::event::ChangeKind;
use crate::storage::backend::EntryKind::{self, Adopted, Created, Deleted, Updated};
use crate::storage::{RetryPolicy, Storage, UpdateOptions};
use crate::testing::support::{Counter, User, foreign, kind_of, load_raw, open};
use crate::testing::{CheckedLog, TestStore, check_log};

fn key() -> DocumentKey {
    DocumentKey::new("counters", "c")
}

fn counter(value: i64, version: impl Into<Option<i64>>) -> RawDocumentBuf {
    let mut document = rawdoc! { "_id": "c", "value": value };
    if let Some(version) = version.into() {
        document.append(bson::raw::cstr!("version"), version);
    }
    document
}

/// Increments the counter so many times.
async fn increment(storage: &Storage, times: usize) {
    for _ in 0..times {
        storage
            .update("counters", "c", Counter::incremented)
            .await
            .unwrap();
    }
}

/// One increment on what another program left behind; then the log must be in order, with one adopted
/// entry that holds exactly what was found.
async fn increment_on(storage: &Storage, found: Option<RawDocumentBuf>, value: i64) -> CheckedLog {
    let mut seen = None;
    let change = storage.update("counters", "c", |counter: Option<Counter>| {
        seen = Some(counter.is_some());
        Counter::incremented(counter)
    });
    let change = change.await.unwrap();
    // A run before may have seen what this process knew itself.
    assert_eq!(seen, Some(found.is_some()), "what the run that counted saw");
    assert_eq!(change.after().unwrap(), Some(Counter { value }));
    let log = check_log(storage.backend().as_ref(), &key()).await;
    let adopted: Vec<_> = log
        .entries
        .iter()
        .filter(|entry| entry.kind == Adopted)
        .collect();
    assert_eq!(adopted.len(), 1, "exactly one adopted entry");
    assert_eq!(adopted[0].after, found, "it holds what was found");
    assert_eq!(log.entries.last().unwrap().version, change.version());
    // And none more with the next change.
    increment(storage, 1).await;
    let again = check_log(storage.backend().as_ref(), &key()).await;
    assert_eq!(again.entries.len(), log.entries.len() + 1);
    log
}

fn shape(log: &CheckedLog) -> Vec<(u64, EntryKind)> {
    log.entries
        .iter()
        .map(|entry| (entry.version.get(), entry.kind))
        .collect()
}

/// A document that was there before the storage, without a version field, reads as version 0 and is
/// adopted as version 1 by its first change.
pub async fn a_document_without_a_version_is_adopted(store: &dyn TestStore) {
    let storage = open(store).await;
    let found = counter(4, None);
    foreign(store).await.put(&key(), found.clone()).await;
    let read = storage.load::<Counter>("counters", "c").await.unwrap();
    assert_eq!((read.value, read.version().get()), (4, 0));
    let log = increment_on(&storage, Some(found), 5).await;
    assert_eq!(shape(&log), [(1, Adopted), (2, Updated)]);
}

/// A document with a version that the log has never seen is adopted at one above it.
pub async fn a_document_that_was_never_logged_is_adopted(store: &dyn TestStore) {
    let storage = open(store).await;
    let found = counter(4, 7);
    foreign(store).await.put(&key(), found.clone()).await;
    let log = increment_on(&storage, Some(found), 5).await;
    assert_eq!(shape(&log), [(8, Adopted), (9, Updated)]);
}

/// A document whose version another program raised is adopted at one above it, once however far it
/// was raised.
pub async fn a_raised_version_is_adopted(store: &dyn TestStore) {
    let storage = open(store).await;
    increment(&storage, 2).await;
    let found = counter(40, 9);
    foreign(store).await.put(&key(), found.clone()).await;
    let log = increment_on(&storage, Some(found), 41).await;
    assert_eq!(
        shape(&log),
        [(1, Created), (2, Updated), (10, Adopted), (11, Updated)]
    );
}

/// A document that was restored to a version behind the log is adopted at one above the log.
pub async fn a_document_restored_behind_the_log_is_adopted(store: &dyn TestStore) {
    let storage = open(store).await;
    increment(&storage, 3).await;
    let found = counter(1, 1);
    foreign(store).await.put(&key(), found.clone()).await;
    let log = increment_on(&storage, Some(found), 2).await;
    assert_eq!(
        shape(&log),
        [
            (1, Created),
            (2, Updated),
            (3, Updated),
            (4, Adopted),
            (5, Updated)
        ]
    );
}

/// A document whose version field was removed is adopted at one above the log.
pub async fn a_document_stripped_of_its_version_is_adopted(store: &dyn TestStore) {
    let storage = open(store).await;
    increment(&storage, 2).await;
    let found = counter(20, None);
    foreign(store).await.put(&key(), found.clone()).await;
    let log = increment_on(&storage, Some(found), 21).await;
    assert_eq!(
        shape(&log),
        [(1, Created), (2, Updated), (3, Adopted), (4, Updated)]
    );
}

/// A document that another program deleted is adopted as gone, and created anew after that.
pub async fn a_foreign_deletion_is_adopted(store: &dyn TestStore) {
    let storage = open(store).await;
    increment(&storage, 2).await;
    foreign(store).await.delete(&key()).await;
    assert!(
        storage
            .find::<Counter>("counters", "c")
            .await
            .unwrap()
            .is_none()
    );
    let log = increment_on(&storage, None, 1).await;
    assert_eq!(
        shape(&log),
        [(1, Created), (2, Updated), (3, Adopted), (4, Created)]
    );
}

/// A document that came back after the storage had deleted it is adopted.
pub async fn a_document_that_came_back_is_adopted(store: &dyn TestStore) {
    let storage = open(store).await;
    increment(&storage, 2).await;
    storage.delete("counters", "c").await.unwrap();
    let found = counter(2, 3);
    foreign(store).await.put(&key(), found.clone()).await;
    let log = increment_on(&storage, Some(found), 3).await;
    assert_eq!(
        shape(&log),
        [
            (1, Created),
            (2, Updated),
            (3, Deleted),
            (4, Adopted),
            (5, Updated)
        ]
    );
}

/// Deleting a document that another program changed adopts it first, so that nothing it held is lost.
pub async fn deleting_a_foreign_document_adopts_it_first(store: &dyn TestStore) {
    let storage = open(store).await;
    let found = counter(4, None);
    foreign(store).await.put(&key(), found.clone()).await;
    let change = storage.delete("counters", "c").await.unwrap();
    assert_eq!(
        (change.kind(), change.version().get()),
        (ChangeKind::Deleted, 2)
    );
    let log = check_log(storage.backend().as_ref(), &key()).await;
    assert_eq!(shape(&log), [(1, Adopted), (2, Deleted)]);
    assert_eq!(log.entries[0].after, Some(found));
}

/// A change that writes nothing adopts nothing: unchanged and rejected leave document and log alone.
pub async fn what_writes_nothing_adopts_nothing(store: &dyn TestStore) {
    let storage = open(store).await;
    let found = counter(4, None);
    foreign(store).await.put(&key(), found.clone()).await;
    let same = storage.update("counters", "c", |counter: Option<Counter>| counter.unwrap());
    assert_eq!(same.await.unwrap().kind(), ChangeKind::Unchanged);
    let rejected = storage.update("counters", "c", |_: Option<Counter>| {
        Err::<Counter, _>("no")
    });
    assert_eq!(rejected.await.unwrap_err().rejected(), Some(&"no"));
    assert_eq!(load_raw(&storage, &key()).await, Some(found));
    let log = crate::testing::support::log_of(&storage, &key()).await;
    assert!(log.is_empty());
}

/// Expected versions see what other programs wrote.
pub async fn expected_versions_see_foreign_writes(store: &dyn TestStore) {
    let storage = open(store).await;
    increment(&storage, 1).await;
    foreign(store).await.put(&key(), counter(50, 5)).await;
    let expecting = |version: u64| UpdateOptions::new().with_expected(version);
    let write = |counter, _: &mut _| Counter::incremented(counter);
    let stale = storage
        .update_with("counters", "c", expecting(1), write)
        .await;
    assert_eq!(
        stale.unwrap_err().version_conflict().unwrap().actual,
        Some(5.into())
    );
    let right = storage
        .update_with("counters", "c", expecting(5), write)
        .await;
    assert_eq!(right.unwrap().version(), 7);
    foreign(store).await.delete(&key()).await;
    let absent = UpdateOptions::new().with_expected(ExpectedVersion::MustNotExist);
    let created = storage
        .update_with("counters", "c", absent, write)
        .await
        .unwrap();
    assert_eq!(
        (created.kind(), created.version().get()),
        (ChangeKind::Created, 9)
    );
    check_log(storage.backend().as_ref(), &key()).await;
}

/// A foreign write between the closure's run and its commit is noticed: the closure runs again on what
/// was written, and no write is lost.
pub async fn a_foreign_write_during_an_update_is_not_lost(store: &dyn TestStore) {
    let storage = open(store).await;
    increment(&storage, 1).await;
    let writer = foreign(store).await;
    // What the other program leaves behind, and what the second run must see.
    let interruptions = [
        (Some(counter(10, 2)), Some(10)),
        (Some(counter(20, 30)), Some(20)),
        (Some(counter(30, None)), Some(30)),
        (None, None),
    ];
    for (left, expected) in interruptions {
        let mut seen = Vec::new();
        let update = storage.update_async(
            "counters",
            "c",
            UpdateOptions::new(),
            |found: Option<Counter>, context| {
                seen.push(found.as_ref().map(|counter| counter.value));
                let (writer, left) = (writer.clone(), left.clone());
                async move {
                    if context.attempt() == 1 {
                        match left {
                            Some(document) => writer.put(&key(), document).await,
                            None => writer.delete(&key()).await,
                        }
                    }
                    Counter::incremented(found)
                }
            },
        );
        let change = update.await.unwrap();
        assert_eq!(seen.len(), 2, "{seen:?}");
        assert_eq!(seen[1], expected);
        let value = change.after().unwrap().unwrap().value;
        assert_eq!(value, expected.unwrap_or(0) + 1);
        check_log(storage.backend().as_ref(), &key()).await;
    }
}

/// Another program that uses the same compare and swap, and the storage, count together without losing
/// one increment.
pub async fn a_foreign_writer_with_the_same_compare_and_swap_loses_nothing(store: &dyn TestStore) {
    let storage = open(store).await;
    increment(&storage, 1).await;
    let incrementing = {
        let storage = storage.clone();
        tokio::spawn(async move { increment(&storage, 50).await })
    };
    // A unit of one document without a log entry is a compare and swap on the version.
    let backend = store.backend().await.unwrap();
    let mut done = 0;
    while done < 20 {
        let loaded = backend
            .load(&[key()])
            .await
            .unwrap()
            .remove(0)
            .document
            .unwrap();
        let value = loaded.get_i64("value").unwrap() + 1;
        let version = loaded.get_i64("version").unwrap();
        let unit = crate::storage::backend::Unit {
            writes: vec![crate::storage::backend::DocumentWrite {
                key: key(),
                condition: crate::storage::backend::Condition::Version((version as u64).into()),
                document: Some(counter(value, version + 1)),
            }],
            ..Default::default()
        };
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        done += usize::from(backend.commit(&[unit], deadline).await.is_ok());
    }
    incrementing.await.unwrap();
    increment(&storage, 1).await;
    let value = storage
        .load::<Counter>("counters", "c")
        .await
        .unwrap()
        .value;
    assert_eq!(value, 1 + 50 + 20 + 1);
    check_log(storage.backend().as_ref(), &key()).await;
}

/// The integers `1`, `1i64` and the double `1.0` are one id, whichever of them another program stored;
/// the stored `_id` stays as it is.
pub async fn the_three_ones_are_one_id(store: &dyn TestStore) {
    let storage = open(store).await;
    let writer = foreign(store).await;
    let ids = [
        rawdoc! { "_id": 1_i32 },
        rawdoc! { "_id": 1_i64 },
        rawdoc! { "_id": 1.0 },
    ];
    for (number, id) in ids.into_iter().enumerate() {
        let collection = format!("numbers{number}");
        let key = DocumentKey::new(collection.as_str(), 1);
        let mut document = id.clone();
        document.append(bson::raw::cstr!("value"), 1_i64);
        writer.put(&key, document).await;
        storage
            .update(&collection, 1_i32, Counter::incremented)
            .await
            .unwrap();
        storage
            .update(&collection, 1_i64, Counter::incremented)
            .await
            .unwrap();
        let found = storage.load::<Counter>(&collection, 1_i64).await.unwrap();
        assert_eq!((found.value, found.version().get()), (3, 3));
        let stored = load_raw(&storage, &key).await.unwrap();
        assert_eq!(stored.get("_id").unwrap(), id.get("_id").unwrap());
        check_log(storage.backend().as_ref(), &key).await;
    }
}

/// A unique index of the user's own fails only the update that breaks it, with `Constraint` and without
/// a retry, nothing of it is written, and others go on.
pub async fn a_foreign_unique_index_refuses_its_own_caller_only(store: &dyn TestStore) {
    let storage = open(store).await;
    storage
        .update("users", "u1", |_| User {
            name: "Ann".into(),
            email: "ann".into(),
        })
        .await
        .unwrap();
    let writer = store.foreign().expect("a case for foreign writers");
    writer.create_unique_index("users", "email").await.unwrap();
    refused_alone(
        &storage,
        User {
            name: "Bob".into(),
            email: "ann".into(),
        },
    )
    .await;
}

/// A validator of the user's own does the same.
pub async fn a_foreign_validator_refuses_its_own_caller_only(store: &dyn TestStore) {
    let storage = open(store).await;
    let ann = doc! { "name": "Ann", "email": "ann", "checked": true };
    storage
        .update("users", "u1", |_| ann.clone())
        .await
        .unwrap();
    let writer = store.foreign().expect("a case for foreign writers");
    writer.require_field("users", "checked").await.unwrap();
    refused_alone(
        &storage,
        User {
            name: "Bob".into(),
            email: "bob".into(),
        },
    )
    .await;
}

/// Writing `bad` is refused, while another document of the collection is written.
async fn refused_alone(storage: &Storage, bad: User) {
    let mut runs = 0;
    let refused = storage.update("users", "bad", |_| {
        runs += 1;
        bad.clone()
    });
    let good = storage.update("users", "u1", |user: Option<bson::Document>| {
        let mut user = user.unwrap();
        user.insert("name", "Cid");
        user
    });
    let (refused, good) = tokio::join!(refused, good);
    let error = refused.unwrap_err();
    assert_eq!(
        (error.kind(), runs),
        (ErrorKind::Constraint, 1),
        "{error:?}"
    );
    assert!(error.to_string().contains("users"), "{error}");
    assert!(
        !format!("{error:?}").contains("Bob"),
        "no document body in {error:?}"
    );
    assert_eq!(good.unwrap().version(), 2);
    for (id, entries) in [("bad", 0), ("u1", 2)] {
        let log = check_log(storage.backend().as_ref(), &DocumentKey::new("users", id)).await;
        assert_eq!(log.entries.len(), entries, "{id}");
    }
    let never = UpdateOptions::new().with_retry(RetryPolicy::never());
    let again = storage
        .update_with("users", "bad", never, |_, _| bad.clone())
        .await;
    assert_eq!(kind_of(again), ErrorKind::Constraint);
}
