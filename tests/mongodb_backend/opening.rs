use std::net::TcpListener;
use std::time::{Duration, Instant};

use ::mongodb::options::{Collation, TimeseriesOptions};
use bson::{Document, doc};
use nodestorage::storage::backend::Backend;
use nodestorage::storage::mongodb::{MongoBackend, MongoOptions};
use nodestorage::{CollectionSpec, ErrorKind, Index};

use crate::support::mongod::Mongod;
use crate::world::{url, world};

#[tokio::test]
async fn a_standalone_is_refused_with_the_remedy() {
    let url = format!(
        "{}shop",
        Mongod::standalone().url().split('?').next().unwrap()
    );
    let error = MongoBackend::connect(&url, MongoOptions::default())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
    assert!(error.to_string().contains("--replSet"), "{error}");
    assert!(error.to_string().contains("rs.initiate()"), "{error}");
}

#[tokio::test]
async fn an_unreachable_server_is_named_in_time_and_without_the_password() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let url = format!("mongodb://user:s3cret@127.0.0.1:{port}/shop");
    let options = MongoOptions::default().with_server_selection_timeout(Duration::from_millis(700));
    let started = Instant::now();
    let error = MongoBackend::connect(&url, options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(
        error.to_string().contains(&format!("127.0.0.1:{port}")),
        "{error}"
    );
    assert!(
        !format!("{error} {error:?}").contains("s3cret"),
        "{error:?}"
    );
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn many_first_openings_at_once_agree_on_one_identity() {
    let mongod = Mongod::shared();
    let name = mongod.fresh_database();
    let mut openings = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let url = url(&name, "");
        openings.spawn(async move {
            let backend = MongoBackend::connect(&url, MongoOptions::default())
                .await
                .unwrap();
            let spec = CollectionSpec::new("users").with_index(Index::on("email").unique());
            backend.open_collection(&spec).await.unwrap();
            backend.store_id()
        });
    }
    let mut ids = openings.join_all().await;
    ids.dedup();
    assert_eq!(ids.len(), 1);
}

#[tokio::test]
async fn a_store_in_another_format_is_refused() {
    let world = world().await;
    let meta = world.database().collection::<Document>("nodestorage.meta");
    meta.update_one(doc! {}, doc! { "$set": { "format": 2 } })
        .await
        .unwrap();
    let error = MongoBackend::from_client(world.client.clone(), &world.name)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("format 2"), "{error}");
}

#[tokio::test]
async fn the_log_index_is_created_again_and_a_wrong_one_is_refused() {
    let world = world().await;
    let log = world.database().collection::<Document>("nodestorage.log");
    log.drop_index("position").await.unwrap();
    MongoBackend::from_client(world.client.clone(), &world.name)
        .await
        .unwrap();
    assert!(
        log.list_index_names()
            .await
            .unwrap()
            .contains(&"position".to_owned())
    );
    log.drop_index("position").await.unwrap();
    let wrong = doc! { "createIndexes": "nodestorage.log", "indexes": [{ "key": { "at": 1 }, "name": "position" }] };
    world.database().run_command(wrong).await.unwrap();
    let error = MongoBackend::from_client(world.client.clone(), &world.name)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error:?}");
}

#[tokio::test]
async fn collections_that_cannot_be_served_are_refused() {
    let world = world().await;
    let database = world.database();
    database
        .create_collection("capped")
        .capped(true)
        .size(4_096)
        .await
        .unwrap();
    database
        .create_collection("view")
        .view_on("users".to_owned())
        .pipeline(vec![])
        .await
        .unwrap();
    let times = TimeseriesOptions::builder()
        .time_field("at".to_owned())
        .build();
    database
        .create_collection("timeseries")
        .timeseries(times)
        .await
        .unwrap();
    let collation = Collation::builder().locale("en".to_owned()).build();
    database
        .create_collection("collated")
        .collation(collation)
        .await
        .unwrap();
    for (name, word) in [
        ("capped", "capped"),
        ("view", "view"),
        ("timeseries", "time-series"),
        ("collated", "collation"),
    ] {
        let error = world
            .backend
            .open_collection(&CollectionSpec::new(name))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{name}");
        assert!(error.to_string().contains(word), "{error}");
    }
    for name in ["", "nodestorage.log", "system.users", "a$b"] {
        let error = world
            .backend
            .open_collection(&CollectionSpec::new(name))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidName, "{name}");
    }
}

#[tokio::test]
async fn declared_indexes_are_created_and_verified() {
    let world = world().await;
    let spec = CollectionSpec::new("users")
        .with_index(Index::on("email").unique())
        .with_index(Index::on("city").then("street.name"));
    for _ in 0..2 {
        world.backend.open_collection(&spec).await.unwrap();
    }
    let users = world.database().collection::<Document>("users");
    let names = users.list_index_names().await.unwrap();
    for index in &spec.indexes {
        assert!(names.contains(&index.name()), "{names:?}");
    }
    let other = CollectionSpec::new("users").with_index(Index::on("email"));
    let error = world.backend.open_collection(&other).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error:?}");
}

#[tokio::test]
async fn a_unique_index_that_does_not_fit_the_data_is_a_constraint() {
    let world = world().await;
    let users = world.database().collection::<Document>("users");
    users
        .insert_many([doc! { "email": "s3cret" }, doc! { "email": "s3cret" }])
        .await
        .unwrap();
    let spec = CollectionSpec::new("users").with_index(Index::on("email").unique());
    let error = world.backend.open_collection(&spec).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Constraint, "{error:?}");
    assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
}

#[tokio::test]
async fn a_closed_backend_says_so_and_leaves_a_borrowed_client_open() {
    let world = world().await;
    let own = world.another("").await;
    own.close().await;
    world.backend.close().await;
    for backend in [&own, &world.backend] {
        let error = backend.load(&[]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed);
        let error = backend
            .commit(&[], crate::world::soon())
            .await
            .unwrap_err()
            .into_error();
        assert_eq!(error.kind(), ErrorKind::Closed);
    }
    world
        .database()
        .run_command(doc! { "ping": 1 })
        .await
        .unwrap();
}
