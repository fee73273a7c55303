//! Names that are refused, and names that only look odd.

use bson::{Document, doc};

use crate::builder::StorageBuilder;
use crate::document::DocumentKey;
use crate::error::{Error, ErrorKind};
use crate::event::NewEvent;
use crate::storage::{CollectionSpec, Query, Storage, UpdateOptions};
use crate::testing::support::{User, kind_of, on_backend, open};
use crate::testing::{FaultyBackend, TestStore, check_log};

/// All calls that take a collection and an id; each must fail with `InvalidName`.
async fn refuses(storage: &Storage, collection: &str, id: &str) {
    let what = format!("{:?}/{:?}", short(collection), short(id));
    let invalid = ErrorKind::InvalidName;
    let update = storage.update(collection, id, |_| User::new("Ann")).await;
    assert_eq!(kind_of(update), invalid, "update {what}");
    let update = storage
        .update_async(collection, id, UpdateOptions::new(), |_, _| async {
            User::new("Ann")
        })
        .await;
    assert_eq!(kind_of(update), invalid, "update_async {what}");
    assert_eq!(
        kind_of(storage.find::<User>(collection, id).await),
        invalid,
        "find {what}"
    );
    assert_eq!(
        kind_of(storage.load::<User>(collection, id).await),
        invalid,
        "load {what}"
    );
    assert_eq!(
        kind_of(storage.delete(collection, id).await),
        invalid,
        "delete {what}"
    );
    let users = storage.collection::<User>(collection);
    assert_eq!(
        kind_of(users.create(id, User::new("Ann")).await),
        invalid,
        "create {what}"
    );
    assert_eq!(
        kind_of(users.modify(id, |_| ()).await),
        invalid,
        "modify {what}"
    );
    let transaction = storage
        .transaction(|tx| async move { tx.update(collection, id, |_| User::new("Ann")).await });
    let error: Error = transaction.await.unwrap_err().flatten();
    assert_eq!(error.kind(), invalid, "transaction {what}");
    let transaction =
        storage.transaction(|tx| async move { tx.find::<User>(collection, id).await.map(|_| ()) });
    let error: Error = transaction.await.unwrap_err().flatten();
    assert_eq!(error.kind(), invalid, "transaction read {what}");
}

fn short(name: &str) -> String {
    name.chars().take(20).collect()
}

/// Names of collections that the server or the storage keeps for itself, empty ones, too long ones and
/// ones with NUL are refused with `InvalidName` before anything is sent.
pub async fn bad_collection_names_are_refused_unsent(store: &dyn TestStore) {
    let backend = FaultyBackend::new(store.backend().await.unwrap());
    let storage = on_backend(backend.clone(), |builder| builder).await;
    let long = "x".repeat(191);
    let bad = [
        "",
        "a\0b",
        "a$b",
        "$cmd",
        "system.users",
        "system.",
        "app.system.users",
        "nodestorage",
        "nodestorage.log",
        "nodestorage.streams",
        "nodestorage.anything",
        ".a",
        "a.",
        &long,
    ];
    for name in bad {
        refuses(&storage, name, "id").await;
        let query = Query::new().limit(1);
        assert_eq!(
            kind_of(storage.find_many::<User>(name, &query).await),
            ErrorKind::InvalidName,
            "find_many {name:?}"
        );
        let spec = CollectionSpec::new(name);
        let opened = StorageBuilder::collection(Storage::builder(), spec);
        assert_eq!(
            kind_of(opened.shared_backend(backend.clone()).open().await),
            ErrorKind::InvalidName,
            "declared {name:?}"
        );
    }
    assert_eq!(backend.calls(), 0, "calls that reached the store");
}

/// Ids that are empty, longer than 1,024 bytes or hold NUL are refused with `InvalidName` before
/// anything is sent; so are such names of streams.
pub async fn bad_ids_are_refused_unsent(store: &dyn TestStore) {
    let backend = FaultyBackend::new(store.backend().await.unwrap());
    let storage = on_backend(backend.clone(), |builder| builder).await;
    let long = "x".repeat(1_025);
    for id in ["", "a\0", &long] {
        refuses(&storage, "users", id).await;
        let event = NewEvent::new("Counted", 1).unwrap();
        let append = storage.append(id, vec![event], UpdateOptions::new()).await;
        assert_eq!(kind_of(append), ErrorKind::InvalidName);
        assert_eq!(kind_of(storage.read(id, ..).await), ErrorKind::InvalidName);
    }
    assert_eq!(backend.calls(), 0, "calls that reached the store");
}

/// The longest collection name and id there may be, in Unicode, with dots, can be used.
pub async fn the_longest_and_oddest_names_work(store: &dyn TestStore) {
    let storage = open(store).await;
    let longest = ["x".repeat(190), "ü".repeat(95)];
    let ids = [
        "y".repeat(1_024),
        "\u{10ffff}".repeat(256),
        " ".into(),
        "\u{1}".into(),
        "../a".into(),
    ];
    let collections = longest.iter().map(String::as_str).chain([
        "a.b.c",
        "사용자",
        "users-2",
        "Users",
        "users",
        "a b",
        "nodestorages",
        "a/b",
    ]);
    for (number, collection) in collections.enumerate() {
        let id = &ids[number % ids.len()];
        for round in 1..=2_i32 {
            let change = storage.update(
                collection,
                id,
                |_: Option<Document>| doc! { "round": round },
            );
            let change = change
                .await
                .unwrap_or_else(|error| panic!("{collection}: {error:?}"));
            assert_eq!(change.version(), round as u64, "{collection}");
        }
        let found = storage.load::<Document>(collection, id).await.unwrap();
        assert_eq!(found.get_i32("round").unwrap(), 2);
        check_log(
            storage.backend().as_ref(),
            &DocumentKey::new(collection, id),
        )
        .await;
    }
}

/// A version field's name that cannot be one is `InvalidConfig` when opening.
pub async fn bad_version_fields_are_refused(store: &dyn TestStore) {
    for name in ["", "_id", "$v", "a.b", "a\0b"] {
        let backend = store.backend().await.unwrap();
        let everywhere = Storage::builder()
            .shared_backend(backend.clone())
            .version_field(name);
        assert_eq!(
            kind_of(everywhere.open().await),
            ErrorKind::InvalidConfig,
            "{name:?}"
        );
        let spec = CollectionSpec::new("users").with_version_field(name);
        let one = Storage::builder().shared_backend(backend).collection(spec);
        assert_eq!(
            kind_of(one.open().await),
            ErrorKind::InvalidConfig,
            "{name:?}"
        );
    }
}
