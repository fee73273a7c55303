//! Create, read, update, delete.

use bson::oid::ObjectId;
use bson::{Document, doc, rawdoc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::document::{DocumentId, DocumentKey};
use crate::error::{Error, ErrorKind};
use crate::event::ChangeKind;
use crate::storage::{Stored, UpdateOptions};
use crate::testing::support::{User, foreign, kind_of, load_raw, open};
use crate::testing::{TestStore, check_log};

/// A document is created, read, changed and deleted, and each change says what it did.
pub async fn a_document_is_created_read_updated_and_deleted(store: &dyn TestStore) {
    let storage = open(store).await;
    let users = storage.collection::<User>("users");

    let created = users.update("u1", |_| User::new("Ann")).await.unwrap();
    assert_eq!(created.kind(), ChangeKind::Created);
    assert_eq!(created.version(), 1);
    assert_eq!(created.before().unwrap(), None);
    assert_eq!(created.after().unwrap(), Some(User::new("Ann")));

    let found: Stored<User> = users.load("u1").await.unwrap();
    assert_eq!((found.name.as_str(), found.version().get()), ("Ann", 1));
    assert_eq!(*found.id(), DocumentId::from("u1"));

    let changed = users
        .modify("u1", |user| user.email = "ann@example.com".into())
        .await
        .unwrap();
    assert_eq!(changed.kind(), ChangeKind::Updated);
    assert_eq!(changed.version(), 2);
    assert_eq!(
        changed.diff().merge_patch().unwrap().to_string(),
        r#"{"email":"ann@example.com"}"#
    );
    assert_eq!(changed.before().unwrap(), Some(User::new("Ann")));

    let deleted = users.delete("u1").await.unwrap();
    assert_eq!(deleted.kind(), ChangeKind::Deleted);
    assert_eq!(deleted.version(), 3);
    assert_eq!(deleted.after().unwrap(), None);
    assert!(users.find("u1").await.unwrap().is_none());

    let log = check_log(storage.backend().as_ref(), deleted.document()).await;
    assert_eq!(log.versions(), [1, 2, 3]);
}

/// A missing document is `None` from `find` and `NotFound`, with its name, from `load`; nothing is
/// logged for it.
pub async fn a_missing_document_is_none_for_find_and_an_error_for_load(store: &dyn TestStore) {
    let storage = open(store).await;
    assert!(storage.find::<User>("users", "u1").await.unwrap().is_none());
    let error = storage.load::<User>("users", "u1").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("users/u1"), "{error}");
    let log = check_log(storage.backend().as_ref(), &DocumentKey::new("users", "u1")).await;
    assert!(log.entries.is_empty());
}

/// The closure sees `None` where there is no document, the document where there is one, and `None`
/// again after a deletion.
pub async fn a_missing_document_is_none_for_the_closure(store: &dyn TestStore) {
    let storage = open(store).await;
    let mut seen = Vec::new();
    for name in ["a", "b"] {
        let see = |user: Option<User>| {
            seen.push(user);
            User::new(name)
        };
        storage.update("users", "u1", see).await.unwrap();
    }
    storage.delete("users", "u1").await.unwrap();
    let see = |user: Option<User>| {
        seen.push(user);
        User::new("c")
    };
    storage.update("users", "u1", see).await.unwrap();
    assert_eq!(seen, [None, Some(User::new("a")), None]);
}

/// A closure that returns `Ok(None)` deletes the document.
pub async fn returning_none_deletes(store: &dyn TestStore) {
    let storage = open(store).await;
    storage
        .update("users", "u1", |_| User::new("Ann"))
        .await
        .unwrap();
    let change = storage
        .update("users", "u1", |user: Option<User>| {
            assert!(user.is_some());
            Ok::<Option<User>, Error>(None)
        })
        .await
        .unwrap();
    assert_eq!(change.kind(), ChangeKind::Deleted);
    assert_eq!(change.version(), 2);
    assert_eq!(load_raw(&storage, change.document()).await, None);
    check_log(storage.backend().as_ref(), change.document()).await;
}

/// Deleting what is not there writes nothing, and says so.
pub async fn deleting_what_is_not_there_changes_nothing(store: &dyn TestStore) {
    let storage = open(store).await;
    let change = storage.delete("users", "u1").await.unwrap();
    assert_eq!(change.kind(), ChangeKind::Unchanged);
    assert_eq!(change.version(), 0);
    assert!(change.events().is_empty());
    let log = check_log(storage.backend().as_ref(), change.document()).await;
    assert!(log.entries.is_empty());
}

/// A closure that returns an equal document writes nothing and emits nothing: bytes, version and log
/// stay.
pub async fn an_equal_document_writes_nothing(store: &dyn TestStore) {
    let storage = open(store).await;
    let users = storage.collection::<User>("users");
    let created = users.update("u1", |_| User::new("Ann")).await.unwrap();
    let before = load_raw(&storage, created.document()).await;
    let change = users.update("u1", |user| user.unwrap()).await.unwrap();
    assert_eq!(change.kind(), ChangeKind::Unchanged);
    assert_eq!(change.version(), 1);
    assert!(change.diff().is_empty() && change.events().is_empty());
    change.delivered().await.unwrap();
    assert_eq!(load_raw(&storage, created.document()).await, before);
    let log = check_log(storage.backend().as_ref(), created.document()).await;
    assert_eq!(log.versions(), [1]);
}

/// A closure's own error comes back typed, nothing is written, and later updates go on.
pub async fn a_rejection_is_typed_and_writes_nothing(store: &dyn TestStore) {
    #[derive(Debug, PartialEq)]
    struct TooPoor {
        missing: u32,
    }
    let storage = open(store).await;
    let users = storage.collection::<User>("users");
    for expected in [0, 1] {
        let mut runs = 0;
        let rejected = users
            .update("u1", |_| {
                runs += 1;
                Err::<User, _>(TooPoor { missing: 7 })
            })
            .await
            .unwrap_err();
        assert_eq!(rejected.rejected(), Some(&TooPoor { missing: 7 }));
        assert_eq!((runs, rejected.kind()), (1, None));
        let key = DocumentKey::new("users", "u1");
        let log = check_log(storage.backend().as_ref(), &key).await;
        assert_eq!(log.entries.len(), expected);
        users.update("u1", |_| User::new("Ann")).await.unwrap();
    }
    let rejected = users.modify("u1", |user| {
        user.name = "lost".into();
        Err::<(), _>(TooPoor { missing: 1 })
    });
    assert_eq!(
        rejected.await.unwrap_err().rejected(),
        Some(&TooPoor { missing: 1 })
    );
    assert_eq!(users.load("u1").await.unwrap().name, "Ann");
}

/// `create` makes a document, and refuses one that exists with `VersionConflict`.
pub async fn create_refuses_an_existing_document(store: &dyn TestStore) {
    let storage = open(store).await;
    let users = storage.collection::<User>("users");
    let created = users.create("u1", User::new("Ann")).await.unwrap();
    assert_eq!(
        (created.kind(), created.version().get()),
        (ChangeKind::Created, 1)
    );
    let refused = users.create("u1", User::new("Bob")).await;
    assert_eq!(kind_of(refused), ErrorKind::VersionConflict);
    assert_eq!(users.load("u1").await.unwrap().name, "Ann");
    users.delete("u1").await.unwrap();
    let again = users.create("u1", User::new("Cid")).await.unwrap();
    assert_eq!(again.version(), 3);
}

/// `modify` fails with `NotFound` where there is no document, and does not run its closure.
pub async fn modify_needs_a_document(store: &dyn TestStore) {
    let storage = open(store).await;
    let users = storage.collection::<User>("users");
    let mut runs = 0;
    let error = users.modify("u1", |_| runs += 1).await.unwrap_err();
    assert_eq!((error.kind(), runs), (ErrorKind::NotFound, 0));
}

/// A closure that awaits runs again on the newest document when another update went ahead meanwhile.
pub async fn closures_that_await_see_the_newest_document(store: &dyn TestStore) {
    let storage = open(store).await;
    let users = storage.collection::<User>("users");
    users.create("u1", User::new("Ann")).await.unwrap();
    let mut seen = Vec::new();
    let change = storage
        .update_async(
            "users",
            "u1",
            UpdateOptions::new(),
            |user: Option<User>, context| {
                let mut user = user.unwrap();
                seen.push((context.attempt(), user.email.clone()));
                let other = users.clone();
                async move {
                    if context.attempt() == 1 {
                        let overtaking = other.modify("u1", |user| user.email = "new".into());
                        overtaking.await.unwrap();
                    }
                    user.name = "Bob".into();
                    user
                }
            },
        )
        .await
        .unwrap();
    assert_eq!(seen, [(1, String::new()), (2, "new".to_owned())]);
    let after = change.after().unwrap().unwrap();
    assert_eq!((after.name.as_str(), after.email.as_str()), ("Bob", "new"));
    let log = check_log(storage.backend().as_ref(), change.document()).await;
    assert_eq!(log.versions(), [1, 2, 3]);
}

/// Two collections may hold the same id.
pub async fn collections_do_not_share_ids(store: &dyn TestStore) {
    let storage = open(store).await;
    for collection in ["users", "admins", "users.archive"] {
        let change = storage.update(collection, "u1", |user: Option<User>| {
            assert!(user.is_none());
            User::new(collection)
        });
        assert_eq!(change.await.unwrap().version(), 1);
    }
    storage.delete("admins", "u1").await.unwrap();
    for collection in ["users", "users.archive"] {
        let found = storage.load::<User>(collection, "u1").await.unwrap();
        assert_eq!(found.name, collection);
        check_log(
            storage.backend().as_ref(),
            &DocumentKey::new(collection, "u1"),
        )
        .await;
    }
}

/// Strings, integers, UUIDs and ObjectIds are ids, and different ones even where their texts agree.
pub async fn ids_of_every_type_name_different_documents(store: &dyn TestStore) {
    let storage = open(store).await;
    let uuid = Uuid::from_u128(0x1234);
    let oid = ObjectId::from_bytes([7; 12]);
    let ids: Vec<DocumentId> = vec![
        "1".into(),
        1.into(),
        (-1).into(),
        i64::MAX.into(),
        i64::MIN.into(),
        (1_i64 << 40).into(),
        uuid.into(),
        uuid.to_string().into(),
        oid.into(),
        oid.to_hex().into(),
        "ü/? #%\u{10ffff}".into(),
        "a.b$c".into(),
        "$x".into(),
    ];
    for id in &ids {
        let name = format!("{id:?}");
        let change = storage.update("users", id, |user: Option<User>| {
            assert!(user.is_none(), "{name} exists already");
            User::new(&name)
        });
        assert_eq!(change.await.unwrap().version(), 1);
    }
    for id in &ids {
        let found = storage.load::<User>("users", id).await.unwrap();
        assert_eq!((found.id(), &found.name), (id, &format!("{id:?}")));
        let key = DocumentKey::new("users", id);
        let stored = load_raw(&storage, &key).await.unwrap();
        let stored_id = stored.get("_id").unwrap().unwrap();
        assert_eq!(DocumentId::from_bson(stored_id).unwrap(), *id);
        check_log(storage.backend().as_ref(), &key).await;
    }
}

/// Fields that the Rust type does not know stay in the stored document, at every level, in their place.
pub async fn fields_unknown_to_the_type_survive(store: &dyn TestStore) {
    #[derive(Serialize, Deserialize)]
    struct Order {
        total: i32,
        address: Address,
        lines: Vec<Line>,
    }
    #[derive(Serialize, Deserialize)]
    struct Address {
        city: String,
    }
    #[derive(Serialize, Deserialize)]
    struct Line {
        sku: String,
        count: i32,
    }
    let key = DocumentKey::new("orders", 1);
    foreign(store)
        .await
        .put(
            &key,
            rawdoc! {
                "_id": 1,
                "first": { "unknown": true },
                "total": 1,
                "address": { "zip": 1234, "city": "Bern", "geo": [1.5, 2.5] },
                "version": 1_i64,
                "lines": [
                    { "sku": "a", "count": 1, "note": "gift" },
                    { "sku": "b", "count": 2, "note": "fragile" },
                ],
                "last": null,
            },
        )
        .await;
    let storage = open(store).await;
    let orders = storage.collection::<Order>("orders");
    orders
        .modify(1, |order| {
            order.total = 5;
            order.address.city = "Basel".into();
            order.lines[0].count = 9;
        })
        .await
        .unwrap();
    let expected = rawdoc! {
        "_id": 1,
        "first": { "unknown": true },
        "total": 5,
        "address": { "zip": 1234, "city": "Basel", "geo": [1.5, 2.5] },
        "version": 3_i64,
        "lines": [
            { "sku": "a", "count": 9, "note": "gift" },
            { "sku": "b", "count": 2, "note": "fragile" },
        ],
        "last": null,
    };
    assert_eq!(load_raw(&storage, &key).await, Some(expected));
    check_log(storage.backend().as_ref(), &key).await;
}

/// A type may contain `_id` and the version field: both are filled in on load, and what the closure
/// does to them counts for nothing.
pub async fn id_and_version_may_be_fields_of_the_type(store: &dyn TestStore) {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Note {
        #[serde(rename = "_id")]
        id: String,
        version: i64,
        text: String,
    }
    let note = |id: &str, version, text: &str| Note {
        id: id.into(),
        version,
        text: text.into(),
    };
    let storage = open(store).await;
    let notes = storage.collection::<Note>("notes");
    let created = notes
        .update("n1", |_| note("other", 77, "a"))
        .await
        .unwrap();
    assert_eq!(created.after().unwrap(), Some(note("n1", 1, "a")));
    let same = notes
        .update("n1", |_| note("other", 99, "a"))
        .await
        .unwrap();
    assert_eq!(same.kind(), ChangeKind::Unchanged);
    let changed = notes
        .modify("n1", |note| note.text = "b".into())
        .await
        .unwrap();
    assert_eq!(changed.after().unwrap(), Some(note("n1", 2, "b")));
    assert_eq!(
        changed.diff().merge_patch().unwrap().to_string(),
        r#"{"text":"b"}"#
    );
    assert_eq!(
        notes.load("n1").await.unwrap().into_inner(),
        note("n1", 2, "b")
    );
    let document: Stored<Document> = storage.load("notes", "n1").await.unwrap();
    assert_eq!(
        document.into_inner(),
        doc! { "_id": "n1", "version": 2_i64, "text": "b" }
    );
    check_log(storage.backend().as_ref(), created.document()).await;
}

/// A closed storage refuses every call with `Closed`.
pub async fn a_closed_storage_refuses_calls(store: &dyn TestStore) {
    let storage = open(store).await;
    storage
        .update("users", "u1", |_| User::new("Ann"))
        .await
        .unwrap();
    storage.close().await;
    let update = storage.update("users", "u1", |_| User::new("Bob")).await;
    assert_eq!(kind_of(update), ErrorKind::Closed);
    assert_eq!(
        kind_of(storage.find::<User>("users", "u1").await),
        ErrorKind::Closed
    );
    assert_eq!(
        kind_of(storage.delete("users", "u1").await),
        ErrorKind::Closed
    );
    assert_eq!(kind_of(storage.read("stream", ..).await), ErrorKind::Closed);
    let transaction = storage.transaction(|_| async { Ok::<_, Error>(()) }).await;
    assert_eq!(transaction.unwrap_err().kind(), Some(ErrorKind::Closed));
    storage.close().await;
}

/// What was acknowledged is there when the store is opened again: documents, log, and the identity that
/// event ids derive from.
pub async fn everything_is_there_after_reopening(store: &dyn TestStore) {
    let storage = open(store).await;
    let id = storage.backend().store_id();
    let change = storage
        .update("users", "u1", |_| User::new("Ann"))
        .await
        .unwrap();
    let deleted = storage
        .update("users", "u2", |_| User::new("Bob"))
        .await
        .unwrap();
    storage.delete("users", "u2").await.unwrap();
    let bytes = load_raw(&storage, change.document()).await;
    let log = check_log(storage.backend().as_ref(), change.document()).await;

    let backend = store.reopen().await.unwrap();
    assert_eq!(backend.store_id(), id);
    let storage = crate::testing::support::on_backend(backend, |builder| builder).await;
    assert_eq!(load_raw(&storage, change.document()).await, bytes);
    assert_eq!(
        check_log(storage.backend().as_ref(), change.document()).await,
        log
    );
    check_log(storage.backend().as_ref(), deleted.document()).await;
    let change = storage.update("users", "u2", |user: Option<User>| {
        assert!(user.is_none());
        User::new("again")
    });
    assert_eq!(change.await.unwrap().version(), 3);
}
