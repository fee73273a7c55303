use std::time::Instant;

use bson::raw::cstr;
use bson::{Document, RawDocumentBuf, doc, rawdoc};
use nodestorage::document::{DocumentKey, Version};
use nodestorage::storage::backend::{
    Backend, CommitFailure, Condition, EntryKind, LogRange, Record, RecordWrite, Unit,
};
use nodestorage::{CollectionSpec, ErrorKind, Index};

use crate::world::{
    content, create, delete, entry, odd_documents, put_document, soon, update, user, world,
};

#[tokio::test]
async fn document_and_entry_appear_together() {
    let world = world().await;
    let key = user("a");
    let first = world.commit(create(&key, 1)).await.unwrap();
    let second = world.commit(update(&key, 1, 2)).await.unwrap();
    assert!(second.position > first.position);
    let loaded = world.load("a").await;
    assert_eq!(loaded.document, Some(content(&key, 2, 2)));
    assert_eq!(loaded.head.unwrap().version, Version::new(2));
    world.commit(delete(&key, 2)).await.unwrap();
    let loaded = world.load("a").await;
    assert_eq!(loaded.document, None);
    assert_eq!(loaded.head.unwrap().kind, EntryKind::Deleted);
    let range = LogRange {
        key,
        from: Version::new(1),
        to: Version::MAX,
        until: None,
        newest_first: false,
        limit: 10,
    };
    let log = world.backend.read_log(&range).await.unwrap();
    let versions: Vec<_> = log.iter().map(|entry| entry.version.get()).collect();
    assert_eq!(versions, [1, 2, 3]);
    assert!(
        log.windows(2)
            .all(|pair| pair[0].position < pair[1].position)
    );
    let until = LogRange {
        until: Some(log[1].position),
        newest_first: true,
        ..range
    };
    let log = world.backend.read_log(&until).await.unwrap();
    assert_eq!(
        log.iter()
            .map(|entry| entry.version.get())
            .collect::<Vec<_>>(),
        [2, 1]
    );
}

#[tokio::test]
async fn the_receipt_is_not_before_the_entries() {
    let world = world().await;
    let key = user("a");
    let receipt = world.commit(create(&key, 1)).await.unwrap();
    let range = LogRange {
        key,
        from: Version::new(1),
        to: Version::new(1),
        until: Some(receipt.position),
        newest_first: false,
        limit: 1,
    };
    assert_eq!(world.backend.read_log(&range).await.unwrap().len(), 1);
}

#[tokio::test]
async fn odd_documents_are_stored_byte_for_byte_when_created_and_when_replaced() {
    let world = world().await;
    let key = user(1);
    let spec = CollectionSpec::new("users");
    world.backend.open_collection(&spec).await.unwrap();
    let mut version = 0;
    for (name, document) in odd_documents() {
        let unit = put_document(&key, Condition::Absent, version + 1, &document);
        world
            .commit(unit)
            .await
            .unwrap_or_else(|e| panic!("creating {name}: {e:?}"));
        let stored = world.stored(1).await.unwrap();
        assert_eq!(stored.as_bytes(), document.as_bytes(), "created: {name}");
        assert_eq!(
            world.load(1).await.document.unwrap().as_bytes(),
            document.as_bytes(),
            "{name}"
        );

        let plain = rawdoc! { "_id": 1, "version": 1_i64, "other": true };
        let condition = Condition::Version(Version::new(1));
        let unit = put_document(&key, condition, version + 2, &plain);
        world
            .commit(unit)
            .await
            .unwrap_or_else(|e| panic!("leaving {name}: {e:?}"));
        let unit = put_document(&key, condition, version + 3, &document);
        world
            .commit(unit)
            .await
            .unwrap_or_else(|e| panic!("replacing by {name}: {e:?}"));
        let stored = world.stored(1).await.unwrap();
        assert_eq!(stored.as_bytes(), document.as_bytes(), "replaced: {name}");

        let mut gone = delete(&key, 1);
        gone.entries[0].version = Version::new(version + 4);
        world
            .commit(gone)
            .await
            .unwrap_or_else(|e| panic!("deleting {name}: {e:?}"));
        version += 4;
    }
}

#[tokio::test]
async fn a_document_with_a_key_twice_is_refused_before_it_ends_the_server() {
    let world = world().await;
    let key = user("a");
    let mut twice = content(&key, 1, 1);
    twice.append(cstr!("n"), 2);
    let mut below = content(&key, 1, 1);
    below.append(cstr!("list"), bson::rawbson!([twice.clone()]));
    for document in [twice, below] {
        for condition in [Condition::Absent, Condition::Version(Version::new(1))] {
            match world
                .commit(put_document(&key, condition, 1, &document))
                .await
            {
                Err(CommitFailure::Refused { unit: 0, error }) => {
                    assert_eq!(error.kind(), ErrorKind::Serialization, "{error:?}");
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(world.log_entries().await, 0);
}

#[tokio::test]
async fn stale_conditions_conflict_and_write_nothing() {
    let world = world().await;
    let key = user("a");
    world.commit(create(&key, 1)).await.unwrap();
    let stale = [
        create(&key, 9),
        update(&key, 7, 9),
        delete(&key, 7),
        put_document(&key, Condition::Unversioned, 2, &content(&key, 9, 2)),
        update(&user("missing"), 1, 9),
        delete(&user("missing"), 1),
    ];
    for unit in stale {
        match world.commit(unit.clone()).await {
            Err(CommitFailure::Conflict { suspects, .. }) => assert_eq!(suspects, [0]),
            other => panic!("{unit:?}: {other:?}"),
        }
    }
    assert_eq!(world.load("a").await.document, Some(content(&key, 1, 1)));
    assert_eq!(world.log_entries().await, 1);
}

#[tokio::test]
async fn an_entry_that_is_there_already_conflicts() {
    let world = world().await;
    let key = user("a");
    world.commit(create(&key, 1)).await.unwrap();
    let unit = Unit {
        entries: vec![entry(&key, 1, EntryKind::Adopted)],
        ..Unit::default()
    };
    assert!(matches!(
        world.commit(unit).await,
        Err(CommitFailure::Conflict { .. })
    ));
}

#[tokio::test]
async fn all_units_or_none() {
    let world = world().await;
    let (a, b, c) = (user("a"), user("b"), user("c"));
    world.commit(create(&c, 1)).await.unwrap();
    let units = [create(&a, 1), create(&b, 1), update(&c, 5, 2)];
    let failure = world.backend.commit(&units, soon()).await.unwrap_err();
    assert!(
        matches!(failure, CommitFailure::Conflict { .. }),
        "{failure:?}"
    );
    assert!(world.stored("a").await.is_none() && world.stored("b").await.is_none());
    let units = [create(&a, 1), create(&b, 1), update(&c, 1, 2)];
    world.backend.commit(&units, soon()).await.unwrap();
    let keys = [c.clone(), user("missing"), a.clone(), b, a];
    let loaded = world.backend.load(&keys).await.unwrap();
    let versions: Vec<_> = loaded
        .iter()
        .map(|one| one.head.map(|head| head.version.get()))
        .collect();
    assert_eq!(versions, [Some(2), None, Some(1), Some(1), Some(1)]);
    assert_eq!(loaded[2].document, loaded[4].document);
}

#[tokio::test]
async fn a_duplicate_value_is_refused_by_index_name_and_without_the_value() {
    let world = world().await;
    let spec = CollectionSpec::new("users").with_index(Index::on("email").unique());
    world.backend.open_collection(&spec).await.unwrap();
    let with_email = |key: &DocumentKey, version: u64| {
        let mut document = content(key, 1, version as i64);
        document.append(cstr!("email"), "s3cret");
        document
    };
    let (a, b, c) = (user("a"), user("b"), user("c"));
    let unit = put_document(&a, Condition::Absent, 1, &with_email(&a, 1));
    world.commit(unit).await.unwrap();
    let unit = put_document(&b, Condition::Absent, 1, &content(&b, 1, 1));
    world.commit(unit).await.unwrap();

    let bystander = user("bystander");
    let mut document = content(&bystander, 1, 1);
    document.append(cstr!("email"), "other");
    let bystander = put_document(&bystander, Condition::Absent, 1, &document);
    let created = put_document(&c, Condition::Absent, 1, &with_email(&c, 1));
    let one = Condition::Version(Version::new(1));
    let updated = put_document(&b, one, 2, &with_email(&b, 2));
    for unit in [created, updated] {
        let units = [bystander.clone(), unit];
        match world.backend.commit(&units, soon()).await {
            Err(CommitFailure::Refused { unit: 1, error }) => {
                assert_eq!(error.kind(), ErrorKind::Constraint);
                assert!(error.to_string().contains("nodestorage_email"), "{error}");
                assert!(error.to_string().contains("users"), "{error}");
                assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(world.stored("bystander").await.is_none());
    assert_eq!(world.log_entries().await, 2);
}

#[tokio::test]
async fn a_validator_refuses_as_constraint() {
    let world = world().await;
    let validator = doc! { "collMod": "users", "validator": { "n": { "$lt": 10 } } };
    world.database().run_command(validator).await.unwrap();
    let key = user("a");
    world.commit(create(&key, 1)).await.unwrap();
    for unit in [create(&user("b"), 10), update(&key, 1, 10)] {
        match world.commit(unit).await {
            Err(CommitFailure::Refused { unit: 0, error }) => {
                assert_eq!(error.kind(), ErrorKind::Constraint, "{error:?}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn an_index_that_cannot_take_the_document_refuses_it() {
    let world = world().await;
    let spec = CollectionSpec::new("users").with_index(Index::on("a").then("b"));
    world.backend.open_collection(&spec).await.unwrap();
    let document = rawdoc! { "_id": "x", "version": 1_i64, "a": [1, 2], "b": [1, 2] };
    let unit = put_document(&user("x"), Condition::Absent, 1, &document);
    match world.commit(unit).await {
        Err(CommitFailure::Refused { unit: 0, error }) => {
            assert_eq!(error.kind(), ErrorKind::Constraint, "{error:?}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn records_live_and_die_with_their_unit() {
    let world = world().await;
    let record = |key: &str, n: i32| Record {
        kind: "k".into(),
        key: key.into(),
        value: rawdoc! { "n": n },
    };
    let write = |records| Unit {
        records,
        ..Unit::default()
    };
    let inserts = ["b", "a", "c"].map(|key| RecordWrite::Insert(record(key, 1)));
    world.commit(write(inserts.to_vec())).await.unwrap();
    let mut unit = create(&user("u"), 1);
    unit.records = vec![RecordWrite::Insert(record("a", 2))];
    assert!(matches!(
        world.commit(unit).await,
        Err(CommitFailure::Conflict { .. })
    ));
    assert!(world.stored("u").await.is_none());
    let unit = write(vec![
        RecordWrite::Put(record("a", 3)),
        RecordWrite::Put(record("d", 3)),
        RecordWrite::Delete {
            kind: "k".into(),
            key: "c".into(),
        },
        RecordWrite::Delete {
            kind: "k".into(),
            key: "nobody".into(),
        },
    ]);
    world.commit(unit).await.unwrap();
    let all = world.backend.read_records("k", None, 10).await.unwrap();
    assert_eq!(all, [record("a", 3), record("b", 1), record("d", 3)]);
    let some = world.backend.read_records("k", Some("a"), 1).await.unwrap();
    assert_eq!(some, [record("b", 1)]);
    assert!(
        world
            .backend
            .read_records("other", None, 10)
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        world.backend.read_record("k", "d").await.unwrap(),
        Some(record("d", 3))
    );
    assert_eq!(world.backend.read_record("k", "c").await.unwrap(), None);
}

/// A document with its creation entry; what is left of 16 MiB is the largest document that fits.
fn sized(bytes: usize) -> (DocumentKey, Unit) {
    let key = user("user123");
    let mut document = content(&key, 1, 1);
    let filler = bytes - document.as_bytes().len() - "blob".len() - 1 - 5 - 1;
    document.append(cstr!("blob"), "x".repeat(filler));
    assert_eq!(document.as_bytes().len(), bytes);
    let mut unit = put_document(&key, Condition::Absent, 1, &document);
    unit.entries[0].after = Some(document);
    (key, unit)
}

#[tokio::test]
async fn the_largest_document_fits_with_its_entry_and_one_byte_more_is_too_large() {
    let world = world().await;
    let limits = world.backend.capabilities();
    let deadline = soon();
    let (_, probe) = sized(1_000);
    let overhead = probe.entries[0].to_raw().unwrap().as_bytes().len() - 1_000;
    let largest = limits.max_entry_bytes - overhead;
    println!("largest document of a plain entry: {largest} bytes ({overhead} for the entry)");

    let (_, unit) = sized(largest + 1);
    match world.commit(unit).await {
        Err(CommitFailure::Refused { unit: 0, error }) => {
            assert_eq!(error.kind(), ErrorKind::TooLarge)
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(world.log_entries().await, 0);
    let (key, unit) = sized(largest);
    world.commit(unit).await.unwrap();
    assert_eq!(
        world
            .load("user123")
            .await
            .document
            .unwrap()
            .as_bytes()
            .len(),
        largest
    );

    // A document that exists may grow to the limit of documents.
    let (_, full) = sized(limits.max_document_bytes);
    let document = full.writes[0].document.clone().unwrap();
    let one = Condition::Version(Version::new(1));
    let grown = put_document(&key, one, 2, &document);
    // Under pressure on its cache the server answers with a conflict; trying again helps.
    while let Err(failure) = world.commit(grown.clone()).await {
        assert!(
            matches!(failure, CommitFailure::Conflict { .. }),
            "{failure:?}"
        );
        assert!(Instant::now() < deadline, "{failure:?}");
    }
    let mut over: RawDocumentBuf = document;
    over.append(cstr!("x"), 1);
    match world.commit(put_document(&key, one, 3, &over)).await {
        Err(CommitFailure::Refused { unit: 0, error }) => {
            assert_eq!(error.kind(), ErrorKind::TooLarge)
        }
        other => panic!("{other:?}"),
    }
    // Many large ones are split into several commands.
    let units: Vec<_> = (0..5)
        .map(|n| {
            let key = user(n);
            let mut document = content(&key, 1, 1);
            document.append(cstr!("blob"), "x".repeat(5_000_000));
            put_document(&key, Condition::Absent, 1, &document)
        })
        .collect();
    world.backend.commit(&units, soon()).await.unwrap();
    assert_eq!(
        world
            .backend
            .load(
                &units
                    .iter()
                    .map(|u| u.writes[0].key.clone())
                    .collect::<Vec<_>>()
            )
            .await
            .unwrap()
            .len(),
        5
    );
}

#[tokio::test]
async fn foreign_numbers_are_versions_and_ids() {
    let world = world().await;
    let users = world.database().collection::<Document>("users");
    users
        .insert_many([
            doc! { "_id": 1.0, "version": 5.0 },
            doc! { "_id": 2_i64, "version": 5_i32 },
            doc! { "_id": 3, "version": 5_i64 },
            doc! { "_id": 4 },
        ])
        .await
        .unwrap();
    let keys: Vec<_> = (1..=4).map(user).collect();
    let loaded = world.backend.load(&keys).await.unwrap();
    assert!(
        loaded
            .iter()
            .all(|one| one.document.is_some() && one.head.is_none())
    );
    for key in &keys[..3] {
        let alone = world.backend.load(std::slice::from_ref(key)).await.unwrap();
        assert!(alone[0].document.is_some());
        world.commit(update(key, 5, 1)).await.unwrap();
    }
    let unit = put_document(
        &keys[3],
        Condition::Unversioned,
        1,
        &content(&keys[3], 1, 1),
    );
    world.commit(unit).await.unwrap();
}

#[tokio::test]
async fn the_version_field_can_have_another_name() {
    let world = world().await;
    let spec = CollectionSpec::new("users").with_version_field("rev");
    world.backend.open_collection(&spec).await.unwrap();
    let key = user("a");
    let first = rawdoc! { "_id": "a", "version": "text", "rev": 1_i64 };
    world
        .commit(put_document(&key, Condition::Absent, 1, &first))
        .await
        .unwrap();
    let second = rawdoc! { "_id": "a", "version": [], "rev": 2_i64 };
    let one = Condition::Version(Version::new(1));
    world
        .commit(put_document(&key, one, 2, &second))
        .await
        .unwrap();
    assert!(
        world
            .commit(put_document(&key, one, 3, &second))
            .await
            .is_err()
    );
    for bad in ["", "_id", "a.b", "$a"] {
        let spec = CollectionSpec::new("users").with_version_field(bad);
        let error = world.backend.open_collection(&spec).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    }
}
