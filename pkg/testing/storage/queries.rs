//! Queries and indexes.

use bson::oid::ObjectId;
use bson::{Bson, DateTime, Document, doc};
use uuid::Uuid;

use super::reference;
use crate::document::{DocumentId, DocumentKey};
use crate::error::ErrorKind;
use crate::storage::{CollectionSpec, Index, Order, Query, Storage, Stored};
use crate::testing::random::Random;
use crate::testing::support::{User, foreign, kind_of, load_raw, on_backend, open, open_with};
use crate::testing::{TestStore, check_log};

/// The ids that a query finds, in its order.
async fn ids(storage: &Storage, query: &Query) -> Vec<Bson> {
    let found: Vec<Stored<Document>> = storage
        .find_many("things", query)
        .await
        .unwrap_or_else(|error| panic!("{query:?}: {error:?}"));
    found
        .iter()
        .map(|document| document.get("_id").cloned().unwrap())
        .collect()
}

fn numbered(numbers: impl IntoIterator<Item = i32>) -> Vec<Bson> {
    numbers.into_iter().map(Bson::Int32).collect()
}

async fn with_things(store: &dyn TestStore, things: &[Document]) -> Storage {
    let spec = CollectionSpec::new("things")
        .with_index(Index::on("a"))
        .with_index(Index::on("tags"))
        .with_index(Index::on("b.c").then("n"));
    let storage = open_with(store, |builder| builder.collection(spec)).await;
    for (id, thing) in (0..).zip(things) {
        storage
            .update("things", id, |_: Option<Document>| thing.clone())
            .await
            .unwrap();
    }
    storage
}

/// Equality, one of several, ranges, contained text, all of them together; on fields, on fields of
/// sub-documents, and on the elements of arrays.
pub async fn filters_find_what_they_say(store: &dyn TestStore) {
    let storage = with_things(
        store,
        &[
            doc! { "a": 1, "tags": ["red", "blue"], "b": { "c": "xyz" } },
            doc! { "a": 2_i64, "tags": ["blue"], "b": { "c": "xy" } },
            doc! { "a": 2.0, "tags": [], "b": { "c": "Xyz" } },
            doc! { "a": null, "tags": "red" },
            doc! { "b": [{ "c": "abc" }, { "c": "xyz" }] },
            doc! { "a": [1, 5], "b": { "c": ["hay", "needle"] } },
            doc! { "a": "2", "b": { "c": null } },
        ],
    )
    .await;
    let scan = || Query::new().allow_scan();
    let cases = [
        (Query::new().equal("a", 2), vec![1, 2]),
        (Query::new().equal("a", 1_i64), vec![0, 5]),
        (Query::new().equal("a", Bson::Null), vec![3, 4]),
        (Query::new().equal("a", "2"), vec![6]),
        (Query::new().equal("tags", "red"), vec![0, 3]),
        (Query::new().is_in("a", [1, 5]), vec![0, 5]),
        (Query::new().is_in("a", Vec::<i32>::new()), vec![]),
        (Query::new().range("a", 2..), vec![1, 2, 5]),
        (Query::new().range("a", 2..=2), vec![1, 2]),
        (Query::new().range("a", 3..5), vec![]),
        (Query::new().range("a", 5..=5), vec![5]),
        (Query::new().range("a", ..2), vec![0, 5]),
        (Query::new().range("a", "1".."3"), vec![6]),
        (Query::new().equal("b.c", "xyz"), vec![0, 4]),
        (scan().contains("b.c", "xy"), vec![0, 1, 4]),
        (scan().contains("b.c", "need"), vec![5]),
        (scan().contains("b.c", ".*"), vec![]),
        (scan().contains("tags", ""), vec![0, 1, 3]),
        (
            Query::new().equal("tags", "blue").contains("b.c", "z"),
            vec![0],
        ),
        (Query::new().equal("a", 2).range("b.c", "xy"..), vec![1]),
        (Query::new().equal("_id", 3), vec![3]),
        (Query::new().range("_id", 2..5), vec![2, 3, 4]),
        (scan(), vec![0, 1, 2, 3, 4, 5, 6]),
    ];
    for (query, expected) in cases {
        assert_eq!(ids(&storage, &query).await, numbered(expected), "{query:?}");
    }
}

/// Results are in the order of the sorted field, ties in the order of the ids, in both directions; across
/// types in BSON order. A limit takes the first ones, of nothing nothing.
pub async fn results_are_sorted_and_limited(store: &dyn TestStore) {
    let storage = with_things(
        store,
        &[
            doc! { "a": 3 },
            doc! { "a": 1.5 },
            doc! { "a": 3_i64 },
            doc! {},
            doc! { "a": null },
            doc! { "a": "x" },
            doc! { "a": true },
            doc! { "a": DateTime::from_millis(0) },
            doc! { "a": { "k": 1 } },
            doc! { "a": -1 },
        ],
    )
    .await;
    let ascending = [3, 4, 9, 1, 0, 2, 5, 8, 6, 7];
    let descending = [7, 6, 8, 5, 0, 2, 1, 9, 3, 4];
    let sorted = |order| Query::new().sort("a", order).allow_scan();
    assert_eq!(
        ids(&storage, &sorted(Order::Ascending)).await,
        numbered(ascending)
    );
    assert_eq!(
        ids(&storage, &sorted(Order::Descending)).await,
        numbered(descending)
    );
    let first = sorted(Order::Ascending).limit(3);
    assert_eq!(
        ids(&storage, &first).await,
        numbered(ascending[..3].iter().copied())
    );
    let numbers = Query::new().range("a", 0..).sort("a", Order::Descending);
    assert_eq!(ids(&storage, &numbers).await, numbered([0, 2, 1]));
    assert!(ids(&storage, &Query::new().limit(0)).await.is_empty());
    let by_id = Query::new().sort("_id", Order::Descending).limit(2);
    assert_eq!(ids(&storage, &by_id).await, numbered([9, 8]));
}

/// Keyset paging and numbered pages go through everything once, also over ids of several types.
pub async fn pages_go_through_everything_once(store: &dyn TestStore) {
    let storage = with_things(store, &[]).await;
    let mut expected: Vec<DocumentId> = (0..25).map(DocumentId::from).collect();
    expected.extend(["", "a", "b", "ü"].map(|name| DocumentId::from(format!("x{name}"))));
    expected.extend((1..4).map(|n| DocumentId::from(Uuid::from_u128(n))));
    expected.extend((1..4).map(|n| DocumentId::from(ObjectId::from_bytes([n; 12]))));
    for id in expected.iter().rev() {
        storage
            .update("things", id, |_: Option<Document>| doc! { "a": 1 })
            .await
            .unwrap();
    }
    let find = async |query: Query| -> Vec<DocumentId> {
        let found: Vec<Stored<Document>> = storage.find_many("things", &query).await.unwrap();
        found.iter().map(|document| document.id().clone()).collect()
    };
    for filtered in [false, true] {
        let query = || {
            if filtered {
                Query::new().equal("a", 1)
            } else {
                Query::new()
            }
        };
        let mut seen: Vec<DocumentId> = find(query().limit(10)).await;
        while let Some(last) = seen.last().cloned() {
            let page = find(query().limit(10).after(last)).await;
            if page.is_empty() {
                break;
            }
            seen.extend(page);
        }
        assert_eq!(seen, expected, "by keyset");
        let mut seen = Vec::new();
        for number in 1..=5 {
            seen.extend(find(query().allow_scan().page(number, 9)).await);
        }
        assert_eq!(seen, expected, "by number");
    }
}

/// A query that no declared index serves is refused with `InvalidConfig` unless it says that it may scan;
/// so are paths that are none, and keyset paging in another order than that of the ids.
pub async fn unindexed_queries_are_refused(store: &dyn TestStore) {
    let storage = with_things(store, &[doc! { "z": 1 }]).await;
    let refused = [
        Query::new(),
        Query::new().equal("z", 1),
        Query::new().equal("n", 1),
        Query::new().contains("a", "x"),
        Query::new().sort("z", Order::Ascending).limit(1),
        Query::new().equal("a..b", 1).allow_scan(),
        Query::new().equal("$where", "x").allow_scan(),
        Query::new()
            .sort("a", Order::Ascending)
            .after(1)
            .allow_scan(),
    ];
    for query in refused {
        let found = storage.find_many::<Document>("things", &query).await;
        assert_eq!(kind_of(found), ErrorKind::InvalidConfig, "{query:?}");
    }
    assert_eq!(
        ids(&storage, &Query::new().equal("z", 1).allow_scan()).await,
        numbered([0])
    );
    let undeclared = open(store).await;
    let found = undeclared
        .find_many::<Document>("things", &Query::new().equal("a", 1))
        .await;
    assert_eq!(
        kind_of(found),
        ErrorKind::InvalidConfig,
        "an index that this program does not declare"
    );
}

/// Random queries over random documents give what the rules say, with indexes and without, while
/// documents change.
pub async fn random_queries_give_what_the_rules_say(store: &dyn TestStore) {
    let mut random = Random::new(0x5eed);
    let mut things: Vec<Document> = (0..60).map(|_| thing(&mut random)).collect();
    let storage = with_things(store, &things).await;
    for round in 0..2 {
        // As they are stored: a sub-document keeps the order of its keys.
        let mut stored = Vec::new();
        for id in 0..60 {
            let thing = storage.load::<Document>("things", id).await.unwrap();
            stored.push(thing.into_inner());
        }
        for _ in 0..150 {
            let query = query(&mut random, &things);
            let found = ids(&storage, &query).await;
            let expected = reference::answer(&stored, &query);
            assert_eq!(found, expected, "round {round}: {query:?}");
        }
        for (id, thing) in (0..).zip(&mut things) {
            if random.below(2) == 0 {
                *thing = self::thing(&mut random);
                storage
                    .update("things", id, |_: Option<Document>| thing.clone())
                    .await
                    .unwrap();
            }
        }
    }
}

fn thing(random: &mut Random) -> Document {
    // At most one path of an index may meet an array.
    let mut thing = Document::new();
    if random.below(4) > 0 {
        thing.insert("a", random.value(1));
    }
    if random.below(4) > 0 {
        thing.insert(
            "tags",
            (0..random.below(4))
                .map(|_| random.scalar())
                .collect::<Vec<_>>(),
        );
    }
    match random.below(5) {
        0 => {}
        1 => {
            let list = (0..random.below(3)).map(|_| doc! { "c": random.scalar() });
            thing.insert("b", list.collect::<Vec<_>>());
        }
        2 => {
            thing.insert("b", random.scalar());
        }
        _ => {
            thing.insert("b", doc! { "c": random.scalar() });
        }
    }
    thing.insert("n", random.scalar());
    thing
}

fn query(random: &mut Random, things: &[Document]) -> Query {
    let path = |random: &mut Random| random.one_of(&["a", "tags", "b.c", "n"]);
    // Half of the values are some that occur.
    let value = |random: &mut Random| match random.below(2) {
        0 => random.scalar(),
        _ => {
            let thing = &things[random.below(things.len())];
            let value = thing.get("a").cloned().unwrap_or(Bson::Null);
            if matches!(value, Bson::Array(_) | Bson::Document(_)) {
                random.scalar()
            } else {
                value
            }
        }
    };
    let mut query = Query::new().allow_scan();
    for _ in 0..random.below(3) {
        query = match random.below(6) {
            0 | 1 => query.equal(path(random), value(random)),
            2 => query.is_in(path(random), [value(random), value(random)]),
            3 => query.range(path(random), value(random)..),
            4 => query.range(path(random), random.scalar()..=random.scalar()),
            _ => query.contains(path(random), random.one_of(&["a", "b", "ü"])),
        };
    }
    if random.below(3) == 0 {
        let order = random.one_of(&[Order::Ascending, Order::Descending]);
        query = query.sort(random.one_of(&["a", "tags", "n"]), order);
    } else if random.below(4) == 0 {
        query = query.after(random.below(60) as i32);
    }
    if random.below(3) == 0 {
        query = query.limit(random.below(10) as u64 + 1);
    }
    query
}

/// A declared unique index refuses the second document with the same values with `Constraint`, alone;
/// it gives them free again when the first one changes or goes.
pub async fn a_declared_unique_index_refuses_its_own_caller_only(store: &dyn TestStore) {
    let unique = CollectionSpec::new("users").with_index(Index::on("email").unique());
    let storage = open_with(store, |builder| builder.collection(unique)).await;
    let users = storage.collection::<User>("users");
    let user = |email: &str| User {
        name: "n".into(),
        email: email.into(),
    };
    users.create("u1", user("a")).await.unwrap();
    let (refused, fine) =
        tokio::join!(users.create("u2", user("a")), users.create("u3", user("c")));
    let error = refused.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Constraint, "{error:?}");
    assert!(error.to_string().contains("email"), "the index in {error}");
    fine.unwrap();
    assert_eq!(
        load_raw(&storage, &DocumentKey::new("users", "u2")).await,
        None
    );
    users
        .modify("u1", |user| user.email = "b".into())
        .await
        .unwrap();
    users.create("u2", user("a")).await.unwrap();
    assert_eq!(
        kind_of(users.modify("u3", |user| user.email = "b".into()).await),
        ErrorKind::Constraint
    );
    users.delete("u1").await.unwrap();
    users
        .modify("u3", |user| user.email = "b".into())
        .await
        .unwrap();
    for id in ["u1", "u2", "u3"] {
        check_log(storage.backend().as_ref(), &DocumentKey::new("users", id)).await;
    }
}

/// Indexes are created for documents that are there already, are the same on every opening, and one that
/// is declared otherwise than it exists is `InvalidConfig` naming it.
pub async fn indexes_are_created_and_verified_on_opening(store: &dyn TestStore) {
    let plain = open(store).await;
    for id in 0..5 {
        plain
            .update("things", id, |_: Option<Document>| doc! { "a": id % 2 })
            .await
            .unwrap();
    }
    let spec = |index: Index| CollectionSpec::new("things").with_index(index);
    let backend = store.backend().await.unwrap();
    for _ in 0..2 {
        let storage = on_backend(backend.clone(), |builder| {
            builder.collection(spec(Index::on("a")))
        })
        .await;
        assert_eq!(
            ids(&storage, &Query::new().equal("a", 1)).await,
            numbered([1, 3])
        );
    }
    let other = Storage::builder()
        .shared_backend(backend.clone())
        .collection(spec(Index::on("a").unique()));
    let error = other.open().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error:?}");
    assert!(error.to_string().contains("nodestorage_a"), "{error}");
    let unfit = CollectionSpec::new("things").with_index(Index::on("missing").unique());
    let error = Storage::builder()
        .shared_backend(backend)
        .collection(unfit)
        .open()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Constraint, "{error:?}");
}

/// Documents that other programs wrote are found by queries too.
pub async fn foreign_documents_are_found(store: &dyn TestStore) {
    let storage = with_things(store, &[doc! { "a": 1 }]).await;
    let key = DocumentKey::new("things", 7);
    foreign(store)
        .await
        .put(&key, bson::rawdoc! { "_id": 7, "a": 1 })
        .await;
    assert_eq!(
        ids(&storage, &Query::new().equal("a", 1)).await,
        numbered([0, 7])
    );
    foreign(store).await.delete(&key).await;
    assert_eq!(
        ids(&storage, &Query::new().equal("a", 1)).await,
        numbered([0])
    );
}
