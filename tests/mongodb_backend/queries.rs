use std::ops::Bound;

use bson::oid::ObjectId;
use bson::{Bson, Document, doc};
use nodestorage::storage::backend::Backend;
use nodestorage::{DocumentId, ErrorKind, Order, Query};
use uuid::Uuid;

use crate::world::{World, world};

async fn ids(world: &World, query: Query) -> Vec<i32> {
    let found = world.backend.query("users", &query).await.unwrap();
    found
        .iter()
        .map(|document| document.get_i32("_id").unwrap())
        .collect()
}

async fn filled(documents: Vec<Document>) -> World {
    let world = world().await;
    let users = world.database().collection::<Document>("users");
    users.insert_many(documents).await.unwrap();
    world
}

#[tokio::test]
async fn conditions_match_values_and_array_elements() {
    let regex = Bson::RegularExpression(bson::Regex {
        pattern: bson::raw::cstr!("^a").into(),
        options: bson::raw::cstr!("").into(),
    });
    let world = filled(vec![
        doc! { "_id": 1, "a": 5, "s": "a.b*c" },
        doc! { "_id": 2, "a": [1, 9], "s": ["x", "a.b*c!"] },
        doc! { "_id": 3, "a": 5.0, "s": "aXbc" },
        doc! { "_id": 4, "a": null },
        doc! { "_id": 5, "a": "5", "s": "abc" },
        doc! { "_id": 6, "s": regex.clone(), "o": [{ "p": 1 }, { "p": 9 }] },
        doc! { "_id": 7, "a": [1, 5], "o": { "p": [2, 4] } },
        doc! { "_id": 8, "a": { "$x": 1 } },
    ])
    .await;
    let q = Query::new;
    assert_eq!(ids(&world, q().equal("a", 5_i64)).await, [1, 3, 7]);
    assert_eq!(ids(&world, q().equal("a", Bson::Null)).await, [4, 6]);
    assert_eq!(ids(&world, q().equal("a", doc! { "$x": 1 })).await, [8]);
    assert_eq!(ids(&world, q().equal("s", regex.clone())).await, [6]);
    assert_eq!(ids(&world, q().is_in("a", [9, 5])).await, [1, 2, 3, 7]);
    assert_eq!(
        ids(&world, q().is_in("s", [regex, "abc".into()])).await,
        [5, 6]
    );
    assert!(
        ids(&world, q().is_in("a", Vec::<i32>::new()))
            .await
            .is_empty()
    );
    // No element of [1, 9] lies within; MongoDB's own { $gte, $lte } would say so.
    assert_eq!(ids(&world, q().range("a", 4..=6)).await, [1, 3, 7]);
    assert_eq!(ids(&world, q().range("a", 6..)).await, [2]);
    assert_eq!(ids(&world, q().range("a", ..1)).await, Vec::<i32>::new());
    assert_eq!(ids(&world, q().range("o.p", 3..=5)).await, [7]);
    assert_eq!(ids(&world, q().range("o.p", 9..=9)).await, [6]);
    let all = (Bound::<i32>::Unbounded, Bound::Unbounded);
    assert_eq!(ids(&world, q().range("a", all)).await.len(), 8);
    assert_eq!(ids(&world, q().contains("s", "a.b*c")).await, [1, 2]);
    assert_eq!(ids(&world, q().contains("s", "X")).await, [3]);
    assert!(ids(&world, q().contains("s", "\0\\E$")).await.is_empty());
    assert_eq!(
        ids(&world, q().equal("a", 5).contains("s", "b")).await,
        [1, 3]
    );
}

#[tokio::test]
async fn sorted_limited_and_paged() {
    let world = filled((1..=9).map(|n| doc! { "_id": n, "g": n % 3 }).collect()).await;
    let q = Query::new;
    let by_g = || q().sort("g", Order::Descending);
    assert_eq!(ids(&world, by_g().limit(4)).await, [2, 5, 8, 1]);
    assert_eq!(
        ids(&world, q().sort("_id", Order::Descending).limit(2)).await,
        [9, 8]
    );
    assert_eq!(ids(&world, by_g().page(2, 4)).await, [4, 7, 3, 6]);
    assert_eq!(ids(&world, q().after(4).limit(3)).await, [5, 6, 7]);
    assert!(ids(&world, q().limit(0)).await.is_empty());
    assert!(ids(&world, q().after(9)).await.is_empty());
    assert_eq!(ids(&world, q().page(u64::MAX, 4)).await, Vec::<i32>::new());
}

#[tokio::test]
async fn keyset_pages_cross_the_types_of_ids() {
    let mut expected = vec![
        DocumentId::from(-3),
        DocumentId::from(7_000_000_000_i64),
        DocumentId::from("a"),
        DocumentId::from("b"),
        DocumentId::from(Uuid::from_u128(1)),
        DocumentId::from(Uuid::from_u128(2)),
        DocumentId::from(ObjectId::from_bytes([1; 12])),
        DocumentId::from(ObjectId::from_bytes([2; 12])),
    ];
    expected.sort();
    let documents = expected
        .iter()
        .map(|id| doc! { "_id": Bson::from(id.clone()) })
        .collect();
    let world = filled(documents).await;
    let mut seen = Vec::new();
    let mut query = Query::new().limit(1);
    while let Some(document) = world.backend.query("users", &query).await.unwrap().pop() {
        let id = DocumentId::from_bson(document.get("_id").unwrap().unwrap()).unwrap();
        query = Query::new().limit(1).after(id.clone());
        seen.push(id);
    }
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn a_query_the_server_refuses_is_an_error_without_its_values() {
    let world = world().await;
    let query = Query::new().contains("s", "s3cret".repeat(6_000));
    let error = world.backend.query("users", &query).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(!format!("{error:?}").contains("s3cret"));
}
