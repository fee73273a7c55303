//! Commits of many units, and loads of many keys.

use std::sync::{Arc, Mutex};

use ::mongodb::Client;
use ::mongodb::event::EventHandler;
use ::mongodb::event::command::CommandEvent;
use ::mongodb::options::ClientOptions;
use bson::oid::ObjectId;
use bson::raw::{CString, cstr};
use bson::{Document, RawBsonRef, RawDocument, RawDocumentBuf, doc, rawdoc};
use nodestorage::document::{DocumentKey, Version};
use nodestorage::storage::backend::{Backend, CommitFailure, Condition, EntryKind, Unit};
use nodestorage::storage::mongodb::MongoBackend;
use nodestorage::{CollectionSpec, DocumentId, ErrorKind, Index};
use uuid::Uuid;

use crate::support::mongod::Mongod;
use crate::world::{
    World, content, create, entry, odd_documents, put_document, soon, update, user, world,
};

const ONE: Condition = Condition::Version(Version::new(1));

fn keys(count: usize) -> Vec<DocumentKey> {
    (0..count).map(|n| user(format!("u{n:03}"))).collect()
}

async fn create_all(world: &World, keys: &[DocumentKey]) {
    let units: Vec<_> = keys.iter().map(|key| create(key, 1)).collect();
    world.backend.commit(&units, soon()).await.unwrap();
}

/// The same document with another id and version, the version in the type that it has.
fn numbered(document: &RawDocument, key: &DocumentKey, version: i32) -> RawDocumentBuf {
    let mut numbered = RawDocumentBuf::new();
    for field in document {
        let (name, value) = field.unwrap();
        let name = CString::try_from(name.as_str()).unwrap();
        match (name.as_str(), value) {
            ("_id", _) => numbered.append(&name, key.id().to_raw()),
            ("version", RawBsonRef::Int32(_)) => numbered.append(&name, version),
            ("version", RawBsonRef::Double(_)) => numbered.append(&name, f64::from(version)),
            ("version", _) => numbered.append(&name, i64::from(version)),
            (_, value) => numbered.append(&name, value),
        }
    }
    numbered
}

#[tokio::test]
async fn odd_documents_are_stored_byte_for_byte_in_batches_of_every_size() {
    let world = world().await;
    let mut odd: Vec<_> = odd_documents().into_iter().map(|(_, it)| it).collect();
    let mut deepest = rawdoc! { "leaf": 1 };
    for _ in 0..155 {
        deepest = rawdoc! { "d": deepest };
    }
    odd.push(rawdoc! { "_id": 1, "version": 1_i64, "deepest": deepest });
    let keys = keys(odd.len());
    create_all(&world, &keys).await;
    let mut version = 1;
    for size in [1, 2, 5, 6, odd.len()] {
        let condition = |version: i32| Condition::Version(Version::new(version as u64));
        let there: Vec<_> = keys
            .iter()
            .zip(&odd)
            .map(|(key, document)| {
                let document = numbered(document, key, version + 1);
                put_document(key, condition(version), version as u64 + 1, &document)
            })
            .collect();
        for units in there.chunks(size) {
            world.backend.commit(units, soon()).await.unwrap();
        }
        for unit in &there {
            let wanted = unit.writes[0].document.as_ref().unwrap();
            let stored = world.stored(unit.writes[0].key.id()).await.unwrap();
            assert_eq!(stored.as_bytes(), wanted.as_bytes(), "{size}: {wanted:?}");
        }
        // And away from there.
        let back: Vec<_> = keys
            .iter()
            .map(|key| update(key, version as u64 + 1, 1))
            .collect();
        for units in back.chunks(size) {
            world.backend.commit(units, soon()).await.unwrap();
        }
        version += 2;
    }
}

#[tokio::test]
async fn ids_and_versions_of_all_types_are_matched_in_batches() {
    let world = world().await;
    let users = world.database().collection::<Document>("users");
    let (uuid, object_id) = (Uuid::new_v4(), ObjectId::new());
    users
        .insert_many([
            doc! { "_id": 1.0, "version": 5.0 },
            doc! { "_id": 2_i64, "version": 5_i32 },
            doc! { "_id": 3, "version": 5_i64 },
            doc! { "_id": i64::MAX, "version": 5_i64 },
            doc! { "_id": "4", "version": 5_i64 },
            doc! { "_id": bson::Uuid::from_bytes(uuid.into_bytes()), "version": 5_i64 },
            doc! { "_id": object_id, "version": 5_i64 },
            doc! { "_id": -7.0, "version": 5.0 },
        ])
        .await
        .unwrap();
    let ids: [DocumentId; 8] = [
        1.into(),
        2.into(),
        3.into(),
        i64::MAX.into(),
        "4".into(),
        uuid.into(),
        object_id.into(),
        (-7).into(),
    ];
    let keys: Vec<_> = ids.map(user).into();
    for (version, part) in [(5, &keys[..]), (6, &keys[..4]), (6, &keys[4..])] {
        let units: Vec<_> = part.iter().map(|key| update(key, version, 9)).collect();
        world.backend.commit(&units, soon()).await.unwrap();
    }
    for key in &keys {
        let stored = world.stored(key.id()).await.unwrap();
        assert_eq!(stored, content(key, 9, 7));
    }
}

#[tokio::test]
async fn stale_units_among_many_are_named() {
    let world = world().await;
    let keys = keys(20);
    create_all(&world, &keys).await;
    for size in [4, 20] {
        let mut units: Vec<_> = keys[..size].iter().map(|key| update(key, 1, 2)).collect();
        units[1] = update(&keys[1], 3, 2);
        units[size - 1] = update(&user("missing"), 1, 2);
        match world.backend.commit(&units, soon()).await {
            Err(CommitFailure::Conflict { suspects, .. }) => assert_eq!(suspects, [1, size - 1]),
            other => panic!("{other:?}"),
        }
        assert_eq!(world.log_entries().await, 20);
        assert_eq!(world.stored("u000").await.unwrap(), content(&keys[0], 1, 1));
    }
}

#[tokio::test]
async fn the_refused_unit_among_many_is_named() {
    let world = world().await;
    let spec = CollectionSpec::new("users").with_index(Index::on("email").unique());
    world.backend.open_collection(&spec).await.unwrap();
    let validator = doc! { "collMod": "users", "validator": { "n": { "$lt": 10 } } };
    world.database().run_command(validator).await.unwrap();
    let keys = keys(20);
    let with_email = |key: &DocumentKey, n: i32, version: u64, email: &str| {
        let mut document = content(key, n, version as i64);
        document.append(cstr!("email"), email);
        let condition = if version == 1 { Condition::Absent } else { ONE };
        put_document(key, condition, version, &document)
    };
    let units = |version: u64| -> Vec<_> {
        let units = keys.iter().enumerate();
        let units = units.map(|(n, key)| with_email(key, 1, version, &format!("e{n}")));
        units.collect()
    };
    world.backend.commit(&units(1), soon()).await.unwrap();
    let mut duplicate = units(2);
    duplicate[7] = with_email(&keys[7], 1, 2, "e12");
    let mut invalid = units(2);
    invalid[5] = with_email(&keys[5], 10, 2, "e5");
    for (units, refused) in [(duplicate, 7), (invalid, 5)] {
        match world.backend.commit(&units, soon()).await {
            Err(CommitFailure::Refused { unit, error }) => {
                assert_eq!((unit, error.kind()), (refused, ErrorKind::Constraint));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(world.log_entries().await, 20);
    }
    world.backend.commit(&units(2), soon()).await.unwrap();
}

#[tokio::test]
async fn the_unit_of_a_duplicate_log_entry_is_named() {
    let world = world().await;
    let keys = keys(10);
    let unit = |key: &DocumentKey| Unit {
        entries: vec![entry(key, 1, EntryKind::Appended)],
        ..Unit::default()
    };
    world.commit(unit(&keys[4])).await.unwrap();
    let units: Vec<_> = keys.iter().map(unit).collect();
    match world.backend.commit(&units, soon()).await {
        Err(CommitFailure::Conflict { suspects, .. }) => assert_eq!(suspects, [4]),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_batch_takes_three_round_trips() {
    let world = world().await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let mut options = ClientOptions::parse(Mongod::shared().url()).await.unwrap();
    let commands = Arc::clone(&seen);
    options.command_event_handler = Some(EventHandler::callback(move |event| {
        if let CommandEvent::Started(started) = event {
            commands.lock().unwrap().push(started.command_name);
        }
    }));
    let client = Client::with_options(options).unwrap();
    let backend = MongoBackend::from_client(client, &world.name)
        .await
        .unwrap();
    let keys = keys(64);
    create_all(&world, &keys).await;
    for (version, size) in [(1, 64), (2, 64), (3, 1)] {
        let units: Vec<_> = keys[..size]
            .iter()
            .map(|key| update(key, version, 2))
            .collect();
        seen.lock().unwrap().clear();
        backend.commit(&units, soon()).await.unwrap();
        let mut sent = seen.lock().unwrap().clone();
        // The registration of the process.
        sent.retain(|name| name != "findAndModify");
        assert_eq!(sent, ["update", "insert", "commitTransaction"]);
    }
    backend.close().await;
}

#[tokio::test]
async fn heads_of_many_deleted_documents_are_found_however_long_their_histories_are() {
    let world = world().await;
    let keys = keys(70);
    let long = |key: &DocumentKey| Unit {
        entries: (1..=150)
            .map(|version| entry(key, version, EntryKind::Appended))
            .collect(),
        ..Unit::default()
    };
    // Two commands' worth of keys, some with a long history, some with a document, some with nothing.
    let units: Vec<_> = keys.iter().step_by(10).map(long).collect();
    world.backend.commit(&units, soon()).await.unwrap();
    create_all(&world, &[keys[1].clone(), keys[69].clone()]).await;
    let loaded = world.backend.load(&keys).await.unwrap();
    for (n, loaded) in loaded.iter().enumerate() {
        let wanted = match n {
            1 | 69 => Some(1),
            n if n % 10 == 0 => Some(150),
            _ => None,
        };
        assert_eq!(loaded.head.map(|head| head.version.get()), wanted, "{n}");
        assert_eq!(loaded.document.is_some(), wanted == Some(1), "{n}");
    }
}

/// The log passes over versions that other programs used, so the entry after the document's version may be
/// missing although there are later ones.
#[tokio::test]
async fn a_newer_head_behind_a_gap_is_found() {
    let world = world().await;
    let keys = keys(8);
    create_all(&world, &keys).await;
    let adopted = Unit {
        entries: vec![entry(&keys[3], 9, EntryKind::Adopted)],
        ..Unit::default()
    };
    world.commit(adopted).await.unwrap();
    for (keys, index) in [(&keys[..], 3), (&keys[3..4], 0)] {
        let loaded = world.backend.load(keys).await.unwrap();
        let head = loaded[index].head.unwrap();
        assert_eq!((head.version.get(), head.kind), (9, EntryKind::Adopted));
    }
}
