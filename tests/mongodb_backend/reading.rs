use bson::{Document, doc};
use nodestorage::ErrorKind;
use nodestorage::storage::backend::{Backend, EntryKind, Unit, version_of};

use crate::world::{create, entry, update, user, world};

#[tokio::test]
async fn heads_of_missing_foreign_and_restored_documents_are_found() {
    let world = world().await;
    let users = world.database().collection::<Document>("users");
    for id in ["jumped", "restored", "gone", "same"] {
        let key = user(id);
        world.commit(create(&key, 1)).await.unwrap();
        world.commit(update(&key, 1, 2)).await.unwrap();
    }
    let set = |id: &str, version: i64| {
        let (filter, change) = (doc! { "_id": id }, doc! { "$set": { "version": version } });
        let users = users.clone();
        async move { users.update_one(filter, change).await.unwrap() }
    };
    set("jumped", 9).await;
    set("restored", 1).await;
    users.delete_one(doc! { "_id": "gone" }).await.unwrap();
    users
        .insert_one(doc! { "_id": "odd", "version": "seven" })
        .await
        .unwrap();

    let ids = ["jumped", "restored", "gone", "same", "odd", "never"];
    let keys = ids.map(user);
    let many = world.backend.load(&keys).await.unwrap();
    for (key, together) in keys.iter().zip(&many) {
        let alone = world.backend.load(std::slice::from_ref(key)).await.unwrap();
        let head = |loaded: &nodestorage::storage::backend::Loaded| {
            loaded.head.map(|head| (head.version.get(), head.kind))
        };
        match key.id().to_string().as_str() {
            "odd" | "never" => assert_eq!((head(&alone[0]), head(together)), (None, None)),
            _ => {
                assert_eq!(head(&alone[0]), Some((2, EntryKind::Updated)), "{key}");
                assert_eq!(head(together), head(&alone[0]), "{key}");
            }
        }
        assert_eq!(alone[0].document, together.document);
    }
    let odd = many[4].document.as_ref().unwrap();
    let error = version_of(odd, "version").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn a_head_is_never_older_than_its_document_under_writers() {
    let world = world().await;
    let other = world.another("").await;
    let keys: Vec<_> = (0..4).map(user).collect();
    for key in &keys {
        world.commit(create(key, 0)).await.unwrap();
    }
    let writer = {
        let keys = keys.clone();
        tokio::spawn(async move {
            for version in 1..60 {
                for key in &keys {
                    let unit = [update(key, version, 0)];
                    other.commit(&unit, crate::world::soon()).await.unwrap();
                }
            }
        })
    };
    while !writer.is_finished() {
        let mut loaded = world.backend.load(&keys).await.unwrap();
        loaded.extend(world.backend.load(&keys[..1]).await.unwrap());
        for one in loaded {
            let version = version_of(&one.document.unwrap(), "version")
                .unwrap()
                .unwrap();
            assert!(one.head.unwrap().version >= version);
        }
    }
    writer.await.unwrap();
}

#[tokio::test]
async fn a_damaged_entry_is_corrupt_and_named() {
    let world = world().await;
    let unit = Unit {
        entries: vec![entry(&user("a"), 1, EntryKind::Appended)],
        ..Unit::default()
    };
    world.commit(unit).await.unwrap();
    let log = world.database().collection::<Document>("nodestorage.log");
    log.update_one(doc! {}, doc! { "$set": { "kind": "odd" } })
        .await
        .unwrap();
    let error = world.backend.load(&[user("a")]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}
