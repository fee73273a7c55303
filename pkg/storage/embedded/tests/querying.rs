use bson::{Bson, Decimal128, bson, doc};
use proptest::prelude::*;
use std::ops::Bound;

use super::*;
use crate::storage::query::{Filter, Index, Order, Page, Query};

fn value() -> impl Strategy<Value = Bson> {
    let leaf = prop_oneof![
        Just(Bson::Null),
        (0..4_i32).prop_map(Bson::Int32),
        (0..4_i64).prop_map(Bson::Int64),
        (0..8_i32).prop_map(|half| Bson::Double(f64::from(half) / 2.0)),
        Just(Bson::Double(f64::NAN)),
        (0..30_i32).prop_map(|n| {
            Bson::Decimal128(
                format!("{}.{}", n / 10, n % 10)
                    .parse::<Decimal128>()
                    .unwrap(),
            )
        }),
        "[a-b\u{0}]{0,2}".prop_map(Bson::String),
        Just(Bson::String("x".repeat(2_000))),
        Just(Bson::String("x".repeat(1_999) + "y")),
        any::<bool>().prop_map(Bson::Boolean),
        Just(Bson::Undefined),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Bson::Array),
            prop::collection::vec((prop_oneof!["b", "c", "0"], inner), 0..3)
                .prop_map(|fields| Bson::Document(fields.into_iter().collect())),
        ]
    })
}

fn path() -> impl Strategy<Value = String> {
    prop_oneof!["a", "a.b", "a.b.c", "a.0", "a.0.b", "d", "_id"]
}

fn bound() -> impl Strategy<Value = Bound<Bson>> {
    prop_oneof![
        value().prop_map(Bound::Included),
        value().prop_map(Bound::Excluded),
        Just(Bound::Unbounded),
    ]
}

fn filter() -> impl Strategy<Value = Filter> {
    prop_oneof![
        (path(), value()).prop_map(|(path, value)| Filter::Equal(path, value)),
        (path(), prop::collection::vec(value(), 0..4)).prop_map(|(p, v)| Filter::In(p, v)),
        (path(), bound(), bound()).prop_map(|(p, low, high)| Filter::Range(p, low, high)),
        (path(), "[ab]{0,1}").prop_map(|(path, text)| Filter::Contains(path, text)),
    ]
}

fn query() -> impl Strategy<Value = Query> {
    let order = prop_oneof![Just(Order::Ascending), Just(Order::Descending)];
    (
        prop::collection::vec(filter(), 0..3),
        prop::option::of((path(), order)),
        prop::option::of(0..12_u64),
        0..4_u64,
        prop::option::of(0..12_i32),
    )
        .prop_map(|(filters, sort, limit, skip, after)| Query {
            page: match after {
                Some(after) if sort.is_none() => Page::After(after.into()),
                _ if skip > 0 => Page::Skip(skip),
                _ => Page::First,
            },
            filters,
            sort,
            limit,
            allow_scan: true,
        })
}

fn insert(collection: &str, id: i32, fields: &[Bson; 2]) -> Unit {
    let document = doc! { "_id": id, "a": fields[0].clone(), "d": fields[1].clone() };
    Unit {
        writes: vec![DocumentWrite {
            key: DocumentKey::new(collection, id),
            condition: Condition::Absent,
            document: Some(RawDocumentBuf::try_from(document).unwrap()),
        }],
        ..Unit::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// With indexes and without, the same documents in the same order.
    #[test]
    fn an_index_changes_no_answer(
        documents in prop::collection::vec([value(), value()], 1..14),
        queries in prop::collection::vec(query(), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let backend = EmbeddedBackend::in_memory().unwrap();
            let mut indexed = CollectionSpec::new("indexed");
            for path in ["a", "a.b", "a.b.c", "a.0.b"] {
                indexed = indexed.with_index(Index::on(path));
            }
            let indexed = indexed.with_index(Index::on("d").then("a"));
            backend.open_collection(&indexed).await.unwrap();
            backend.open_collection(&CollectionSpec::new("plain")).await.unwrap();
            for (id, fields) in documents.iter().enumerate() {
                let unit = insert("indexed", id as i32, fields);
                // Two arrays in one index.
                if commit(&backend, &[unit]).await.is_ok() {
                    commit(&backend, &[insert("plain", id as i32, fields)]).await.unwrap();
                }
            }
            // Drawn values seldom meet; these do.
            let met = documents.iter().flatten().flat_map(|value| {
                let low = Bound::Included(value.clone());
                let high = Bound::Excluded(value.clone());
                [
                    Filter::Equal("a".to_owned(), value.clone()),
                    Filter::Equal("a.b".to_owned(), value.clone()),
                    Filter::In("d".to_owned(), vec![value.clone(), Bson::Null]),
                    Filter::Range("a".to_owned(), low, Bound::Unbounded),
                    Filter::Range("a".to_owned(), Bound::Unbounded, high),
                ]
            });
            let met = met.map(|filter| Query {
                filters: vec![filter],
                allow_scan: true,
                ..Query::default()
            });
            for query in queries.iter().cloned().chain(met) {
                let found = backend.query("indexed", &query).await.unwrap();
                let expected = backend.query("plain", &query).await.unwrap();
                assert_eq!(found, expected, "{query:?}");
            }
        });
    }
}

async fn filled(values: &[Bson]) -> EmbeddedBackend {
    let backend = EmbeddedBackend::in_memory().unwrap();
    for spec in [
        CollectionSpec::new("plain"),
        CollectionSpec::new("indexed").with_index(Index::on("a")),
    ] {
        backend.open_collection(&spec).await.unwrap();
        for (id, value) in values.iter().enumerate() {
            let unit = insert(&spec.name, id as i32, &[value.clone(), Bson::Null]);
            commit(&backend, &[unit]).await.unwrap();
        }
    }
    backend
}

async fn ids(backend: &EmbeddedBackend, collection: &str, query: &Query) -> Vec<i32> {
    let found = backend.query(collection, query).await.unwrap();
    found
        .iter()
        .map(|document| document.get_i32("_id").unwrap())
        .collect()
}

#[tokio::test]
async fn documents_sort_as_in_mongodb() {
    let values = [
        bson!("b"),          // 0
        bson!([5, 1]),       // 1: by 1 upwards, by 5 downwards
        bson!(3.0),          // 2
        bson!(3),            // 3: ties with 2
        Bson::Null,          // 4
        bson!([]),           // 5: below null
        bson!({ "x": 1 }),   // 6
        bson!(true),         // 7
        bson!([["z"], "a"]), // 8: by "a" upwards, by ["z"] downwards
    ];
    let backend = filled(&values).await;
    for collection in ["plain", "indexed"] {
        for limit in [9, 4] {
            let query = Query::new()
                .sort("a", Order::Ascending)
                .limit(limit)
                .allow_scan();
            let expected = [5, 4, 1, 2, 3, 8, 0, 6, 7];
            let found = ids(&backend, collection, &query).await;
            assert_eq!(found, expected[..limit as usize], "{collection}");
            let query = Query::new()
                .sort("a", Order::Descending)
                .limit(limit)
                .allow_scan();
            let expected = [7, 8, 6, 0, 1, 2, 3, 4, 5];
            let found = ids(&backend, collection, &query).await;
            assert_eq!(found, expected[..limit as usize], "{collection}");
        }
    }
}

#[tokio::test]
async fn pages_follow_one_another() {
    let values: Vec<_> = (0..25).map(|number| Bson::Int32(number % 3)).collect();
    let backend = filled(&values).await;
    for collection in ["plain", "indexed"] {
        let twos = Query::new().equal("a", 2).allow_scan();
        let mut walked = Vec::new();
        loop {
            let page = match walked.last() {
                Some(last) => twos.clone().after(*last).limit(3),
                None => twos.clone().limit(3),
            };
            let page = ids(&backend, collection, &page).await;
            if page.is_empty() {
                break;
            }
            walked.extend(page);
        }
        let all = Vec::from_iter((2..25).step_by(3));
        assert_eq!(walked, all);
        assert_eq!(
            ids(&backend, collection, &twos.clone().page(2, 3)).await,
            all[3..6]
        );
        let sorted = twos.clone().sort("d", Order::Descending).page(3, 3);
        assert_eq!(ids(&backend, collection, &sorted).await, all[6..]);
        assert!(ids(&backend, collection, &twos.limit(0)).await.is_empty());
        let by_id = Query::new().is_in("_id", [7, 3, 99, 3]).equal("a", 1);
        assert_eq!(ids(&backend, collection, &by_id).await, [7]);
    }
}
