//! Documents as they were.

use bson::spec::BinarySubtype;
use bson::{Binary, Bson, DateTime, Decimal128, Document, RawDocument, Timestamp, doc, rawdoc};
use futures_util::TryStreamExt;

use crate::document::{DocumentKey, Version};
use crate::error::{Error, ErrorKind};
use crate::event::NewEvent;
use crate::history::{History, Revision, VersionRange};
use crate::storage::{CollectionSpec, Storage, UpdateContext, UpdateOptions};
use crate::testing::support::{
    User, assert_same_bytes, foreign, kind_of, load_raw, log_of, open, open_with,
};
use crate::testing::{TestStore, check_log, eventually};

async fn bytes_at(history: &History, version: u64) -> Option<bson::RawDocumentBuf> {
    let state = history.at_version(version).await;
    let state = state.unwrap_or_else(|error| panic!("version {version}: {error:?}"));
    state.map(|state| state.into_document())
}

#[track_caller]
fn assert_state(found: Option<&RawDocument>, expected: Option<&RawDocument>, version: u64) {
    match (found, expected) {
        (Some(found), Some(expected)) => assert_same_bytes(found, expected),
        (None, None) => {}
        _ => panic!("version {version}: found {found:?}, expected {expected:?}"),
    }
}

/// The document as the `n`th change of a long history leaves it: fields of every kind come, change,
/// move and go.
fn edited(before: Option<Document>, n: i64) -> Document {
    let mut document = before.unwrap_or_else(|| doc! { "name": "first" });
    match n % 10 {
        0 => drop(document.insert("count", n)),
        1 => drop(document.insert("count", Bson::Int32(1))),
        2 => drop(document.insert("nested", doc! { "a.b": n, "$c": { "": Bson::Null } })),
        3 => drop(document.insert("list", (0..n % 7).collect::<Vec<_>>())),
        4 => {
            if let Ok(list) = document.get_array_mut("list") {
                list.insert(0, Bson::from(doc! { "n": n }));
                list.pop();
            }
        }
        5 => {
            let first = document.remove("name");
            document.insert("name", first.unwrap_or(Bson::Null));
        }
        6 => drop(document.insert("number", f64::NAN)),
        7 => drop(document.remove("nested")),
        8 => {
            let bytes = vec![0; 3];
            let subtype = BinarySubtype::Generic;
            document.insert("bytes", Binary { subtype, bytes });
            document.insert(
                "stamp",
                Timestamp {
                    time: 0,
                    increment: 0,
                },
            );
        }
        _ => {
            document.insert("decimal", "1.50".parse::<Decimal128>().unwrap());
            document.insert("at", DateTime::from_millis(n));
        }
    }
    document.insert("step", n);
    document
}

/// Replaying the log gives the document byte for byte as it was stored at each version, and so does
/// asking for each version by itself; through snapshots, a deletion and a second creation.
pub async fn every_version_is_rebuilt_byte_for_byte(store: &dyn TestStore) {
    let storage = open(store).await;
    let key = DocumentKey::new("users", "u1");
    let mut stored = Vec::new();
    for n in 1..=230_i64 {
        if n == 130 {
            storage.delete("users", "u1").await.unwrap();
        } else {
            let change = storage
                .update("users", "u1", |before| edited(before, n))
                .await
                .unwrap();
            assert_eq!(change.version(), n as u64);
        }
        stored.push(load_raw(&storage, &key).await);
    }
    check_log(storage.backend().as_ref(), &key).await;

    let history = storage.history("users", "u1");
    let revisions: Vec<Revision> = history.replay().try_collect().await.unwrap();
    assert_eq!(revisions.len(), stored.len());
    for (revision, expected) in revisions.iter().zip(&stored) {
        let version = revision.entry.version.get();
        let found = revision.state.as_ref().map(|state| state.document());
        assert_state(found, expected.as_deref(), version);
        let found = bytes_at(&history, version).await;
        assert_state(found.as_deref(), expected.as_deref(), version);
    }
}

/// A version above the newest is `NotFound`, also of a document that never existed; version 0 is
/// before everything, and a deleted document is `None` where it was gone and there where it was not.
pub async fn versions_that_never_were_are_not_found(store: &dyn TestStore) {
    let storage = open(store).await;
    for name in ["Ann", "Bob"] {
        let write = |_: Option<User>| User::new(name);
        storage.update("users", "u1", write).await.unwrap();
    }
    storage.delete("users", "u1").await.unwrap();

    let history = storage.history("users", "u1");
    assert!(history.at_version(0).await.unwrap().is_none());
    let state = history.at_version(2).await.unwrap().unwrap();
    let user = state.decode::<User>().unwrap();
    assert_eq!((user.name.as_str(), user.version().get()), ("Bob", 2));
    assert_eq!(state.key(), history.key());
    assert!(history.at_version(3).await.unwrap().is_none());
    let error = history.at_version(4).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("users/u1"), "{error}");

    let never = storage.history("users", "u2");
    assert!(never.at_version(0).await.unwrap().is_none());
    assert_eq!(kind_of(never.at_version(1).await), ErrorKind::NotFound);
    assert!(never.at_time(DateTime::now()).await.unwrap().is_none());
    assert!(never.replay().try_next().await.unwrap().is_none());
    let page = never.versions(Default::default()).await.unwrap();
    assert_eq!((page.items.len(), page.next), (0, None));
}

/// Names that no document can have are refused, and so is everything after closing.
pub async fn histories_of_bad_names_and_closed_storages_are_refused(store: &dyn TestStore) {
    let storage = open(store).await;
    for (collection, id) in [("nodestorage.log", "x"), ("", "x"), ("users", "")] {
        let history = storage.history(collection, id);
        assert_eq!(kind_of(history.at_version(1).await), ErrorKind::InvalidName);
        let first = history.replay().try_next().await;
        assert_eq!(kind_of(first), ErrorKind::InvalidName);
    }
    let history = storage.history("users", "u1");
    storage.close().await;
    let page = history.versions(Default::default()).await;
    assert_eq!(kind_of(page), ErrorKind::Closed);
}

/// Writes to another document until the database's clock shows a later second than that of the newest
/// version of `key`, whose second is returned.
async fn until_the_next_second(storage: &Storage, key: &DocumentKey) -> i64 {
    let newest = log_of(storage, key).await.pop().unwrap();
    let second = newest.position.seconds();
    eventually("the next second", || async move {
        let tick =
            |_: Option<Document>| doc! { "at": DateTime::now(), "by": bson::oid::ObjectId::new() };
        let ticked = storage.update("ticks", "t", tick).await.unwrap();
        let range = VersionRange::new().with_from(ticked.version());
        let page = storage.history("ticks", "t").versions(range).await.unwrap();
        page.items[0].position.seconds() > second
    })
    .await;
    i64::from(second)
}

/// The state at a time is that of the last change in or before its second: none before the first, each
/// between changes, the newest afterwards; none after a deletion.
pub async fn the_state_at_a_time(store: &dyn TestStore) {
    let storage = open(store).await;
    let key = DocumentKey::new("users", "u1");
    let mut seconds = Vec::new();
    for name in ["Ann", "Bob"] {
        let write = |_: Option<User>| User::new(name);
        storage.update("users", "u1", write).await.unwrap();
        seconds.push(until_the_next_second(&storage, &key).await);
    }
    storage.delete("users", "u1").await.unwrap();
    seconds.push(until_the_next_second(&storage, &key).await);

    let history = storage.history("users", "u1");
    let name_at = |second: i64, millis: i64| {
        let history = history.clone();
        async move {
            let time = DateTime::from_millis(second * 1_000 + millis);
            let state = history.at_time(time).await.unwrap()?;
            Some(state.decode::<User>().unwrap().name.clone())
        }
    };
    assert_eq!(name_at(seconds[0] - 1, 999).await, None);
    assert_eq!(name_at(seconds[0], 0).await.as_deref(), Some("Ann"));
    assert_eq!(name_at(seconds[1] - 1, 999).await.as_deref(), Some("Ann"));
    assert_eq!(name_at(seconds[1], 999).await.as_deref(), Some("Bob"));
    assert_eq!(name_at(seconds[2], 0).await, None);
    assert_eq!(name_at(seconds[2] + 3_600, 0).await, None);
    assert!(history.at_time(DateTime::MIN).await.unwrap().is_none());
    assert!(history.at_time(DateTime::MAX).await.unwrap().is_none());
}

/// What other programs wrote is in the history as it was found: unlogged documents, raised versions,
/// deletions. Versions that they used and the log passed over have the state below.
pub async fn adopted_states_are_those_that_were_found(store: &dyn TestStore) {
    let storage = open(store).await;
    let foreign = foreign(store).await;
    let key = DocumentKey::new("users", "u1");
    let found = rawdoc! { "_id": "u1", "name": "theirs", "version": 5 };
    foreign.put(&key, found.clone()).await;
    let write = |_: Option<User>| User::new("ours");
    storage.update("users", "u1", write).await.unwrap();
    let ours = load_raw(&storage, &key).await;

    let history = storage.history("users", "u1");
    assert_state(bytes_at(&history, 3).await.as_deref(), None, 3);
    assert_state(bytes_at(&history, 6).await.as_deref(), Some(&found), 6);
    assert_state(bytes_at(&history, 7).await.as_deref(), ours.as_deref(), 7);

    let raised = rawdoc! { "_id": "u1", "name": "theirs again", "version": 20_i64 };
    foreign.put(&key, raised.clone()).await;
    storage.delete("users", "u1").await.unwrap();
    assert_state(bytes_at(&history, 15).await.as_deref(), ours.as_deref(), 15);
    let state = history.at_version(15).await.unwrap().unwrap();
    assert_eq!(state.version(), Version::new(7));
    assert_state(bytes_at(&history, 21).await.as_deref(), Some(&raised), 21);
    assert_state(bytes_at(&history, 22).await.as_deref(), None, 22);
    assert_eq!(kind_of(history.at_version(23).await), ErrorKind::NotFound);

    let write = |_: Option<User>| User::new("anew");
    storage.update("users", "u1", write).await.unwrap();
    foreign.delete(&key).await;
    storage.update("users", "u1", write).await.unwrap();
    assert_state(bytes_at(&history, 24).await.as_deref(), None, 24);
    let revisions: Vec<Revision> = history.replay().try_collect().await.unwrap();
    let seen: Vec<_> = revisions
        .iter()
        .map(|revision| (revision.entry.version.get(), revision.state.is_some()))
        .collect();
    assert_eq!(
        seen,
        [
            (6, true),
            (7, true),
            (21, true),
            (22, false),
            (23, true),
            (24, false),
            (25, true)
        ]
    );
}

/// A version field of another name, and documents that had none, are rebuilt like all others.
pub async fn the_version_field_is_that_of_the_entry(store: &dyn TestStore) {
    let spec = CollectionSpec::new("users").with_version_field("rev");
    let storage = open_with(store, |builder| builder.collection(spec)).await;
    let key = DocumentKey::new("users", "u1");
    let mut stored = Vec::new();
    for name in ["Ann", "Bob"] {
        let write = |_: Option<User>| User::new(name);
        storage.update("users", "u1", write).await.unwrap();
        stored.push(load_raw(&storage, &key).await.unwrap());
    }
    // Another storage on the same store need not know of the field to read the history.
    let stranger = open(store).await;
    let history = stranger.history("users", "u1");
    for (version, expected) in (1..).zip(&stored) {
        assert!(expected.get("rev").unwrap().is_some());
        assert_state(
            bytes_at(&history, version).await.as_deref(),
            Some(expected),
            version,
        );
    }
}

/// Events without a change are versions with the state of the one before, also where there is no
/// document.
pub async fn events_alone_leave_the_state_as_it_was(store: &dyn TestStore) {
    let storage = open(store).await;
    let emit = |before: Option<User>, context: &mut UpdateContext| {
        context.emit(NewEvent::new("Seen", ()).unwrap());
        Ok::<_, Error>(before)
    };
    let options = UpdateOptions::default;
    storage
        .update_with("users", "u1", options(), emit)
        .await
        .unwrap();
    let write = |_: Option<User>| User::new("Ann");
    let written = storage.update("users", "u1", write).await.unwrap();
    let seen = storage
        .update_with("users", "u1", options(), emit)
        .await
        .unwrap();

    let history = storage.history("users", "u1");
    assert_state(bytes_at(&history, 1).await.as_deref(), None, 1);
    let state = history.at_version(seen.version()).await.unwrap().unwrap();
    assert_eq!(
        state.decode::<User>().unwrap().into_inner(),
        User::new("Ann")
    );
    // Without a document, events are a version like any other; nothing is taken for another program's.
    assert_eq!((written.version().get(), seen.version().get()), (2, 3));
}
