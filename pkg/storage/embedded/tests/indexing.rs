use bson::{Bson, Decimal128, bson, doc};

use super::*;
use crate::error::ErrorKind;
use crate::storage::query::{Index, Query};

fn users(index: Index) -> CollectionSpec {
    CollectionSpec::new("users").with_index(index)
}

fn put(id: i32, condition: Condition, fields: bson::Document) -> Unit {
    let mut document = doc! { "_id": id };
    document.extend(fields);
    Unit {
        writes: vec![DocumentWrite {
            key: DocumentKey::new("users", id),
            condition,
            document: Some(RawDocumentBuf::try_from(document).unwrap()),
        }],
        ..Unit::default()
    }
}

fn new(id: i32, fields: bson::Document) -> Unit {
    put(id, Condition::Absent, fields)
}

fn change(id: i32, fields: bson::Document) -> Unit {
    put(id, Condition::Unversioned, fields)
}

fn gone(id: i32) -> Unit {
    let mut unit = change(id, doc! {});
    unit.writes[0].document = None;
    unit
}

async fn ids(backend: &EmbeddedBackend, query: Query) -> Vec<i32> {
    let found = backend.query("users", &query).await.unwrap();
    found
        .iter()
        .map(|document| document.get_i32("_id").unwrap())
        .collect()
}

/// The unit that a unique index refused.
fn refused(result: Result<CommitReceipt, CommitFailure>) -> usize {
    match result.unwrap_err() {
        CommitFailure::Refused { unit, error } => {
            assert_eq!(error.kind(), ErrorKind::Constraint);
            let text = error.to_string();
            assert!(
                text.contains("nodestorage_email") && text.contains("users"),
                "{text}"
            );
            unit
        }
        other => panic!("expected a refusal, found {other:?}"),
    }
}

#[tokio::test]
async fn a_unique_index_refuses_the_unit_and_names_itself() {
    let backend = EmbeddedBackend::in_memory().unwrap();
    backend
        .open_collection(&users(Index::on("email").unique()))
        .await
        .unwrap();
    let email = |email: &str| doc! { "email": email };
    commit(&backend, &[new(1, email("a")), new(2, email("b"))])
        .await
        .unwrap();
    let units = [new(3, email("c")), new(4, email("a"))];
    assert_eq!(refused(commit(&backend, &units).await), 1);
    let units = [new(3, email("c")), new(4, email("c"))];
    assert_eq!(refused(commit(&backend, &units).await), 1);
    assert_eq!(refused(commit(&backend, &[change(2, email("a"))]).await), 0);
    // Its own value is its own.
    let same = doc! { "email": "a", "more": 1 };
    commit(&backend, &[change(1, same)]).await.unwrap();
    // What one unit gives up another may take, whatever their order; so may a swap.
    commit(&backend, &[new(3, email("a")), change(1, email("x"))])
        .await
        .unwrap();
    commit(&backend, &[change(1, email("b")), change(2, email("x"))])
        .await
        .unwrap();
    commit(&backend, &[gone(1), new(5, email("b"))])
        .await
        .unwrap();
    // A missing value is null, and there can be one.
    commit(&backend, &[new(6, doc! {})]).await.unwrap();
    let null = doc! { "email": Bson::Null };
    assert_eq!(refused(commit(&backend, &[new(7, null)]).await), 0);
    // Elements of arrays one by one.
    let list = |list: Bson| doc! { "email": list };
    commit(&backend, &[new(8, list(bson!(["p", "q"])))])
        .await
        .unwrap();
    assert_eq!(refused(commit(&backend, &[new(9, email("q"))]).await), 0);
    commit(&backend, &[new(9, list(bson!([["p", "q"]])))])
        .await
        .unwrap();
    assert_eq!(ids(&backend, Query::new().equal("email", "b")).await, [5]);
    assert_eq!(ids(&backend, Query::new().equal("email", "q")).await, [8]);
}

/// Decimals, documents and long texts share keys without being equal.
#[tokio::test]
async fn equal_keys_are_not_taken_for_equal_values() {
    let backend = EmbeddedBackend::in_memory().unwrap();
    backend
        .open_collection(&users(Index::on("email").unique()))
        .await
        .unwrap();
    let decimal = |text: &str| Bson::Decimal128(text.parse::<Decimal128>().unwrap());
    let long = "x".repeat(5_000);
    let values = [
        bson!(1),
        decimal("1.00000000000000000000000001"),
        bson!({ "a": 1 }),
        bson!({ "a": 2 }),
        bson!([[1]]),
        bson!([[2]]),
        bson!(format!("{long}a")),
        bson!(format!("{long}b")),
    ];
    for (id, value) in values.iter().enumerate() {
        let unit = new(id as i32, doc! { "email": value.clone() });
        commit(&backend, &[unit]).await.unwrap();
    }
    let again = [
        decimal("1.0"),
        bson!({ "a": 2_i64 }),
        bson!(format!("{long}a")),
    ];
    for value in values.into_iter().chain(again) {
        let unit = new(99, doc! { "email": value.clone() });
        assert_eq!(refused(commit(&backend, &[unit]).await), 0, "{value}");
    }
    // Where the key stays and the value changes.
    let moved = change(2, doc! { "email": { "a": 2 } });
    assert_eq!(refused(commit(&backend, &[moved]).await), 0);
    let both = [
        change(2, doc! { "email": { "a": 2 } }),
        change(3, doc! { "email": { "a": 1 } }),
    ];
    commit(&backend, &both).await.unwrap();
}

#[tokio::test]
async fn an_index_is_built_over_what_is_there_and_kept_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    let backend = opened_file(&path).await;
    for id in 0..50 {
        let fields = doc! { "email": id % 10, "city": "x" };
        commit(&backend, &[new(id, fields)]).await.unwrap();
    }
    let dirty = backend
        .open_collection(&users(Index::on("email").unique()))
        .await
        .unwrap_err();
    assert_eq!(dirty.kind(), ErrorKind::Constraint);
    assert!(dirty.to_string().contains("nodestorage_email"), "{dirty}");
    // Nothing of the attempt is left.
    backend
        .open_collection(&users(Index::on("email")))
        .await
        .unwrap();
    let mut of_seven = Vec::from_iter((7..50).step_by(10));
    let sevens = || Query::new().equal("email", 7);
    assert_eq!(ids(&backend, sevens()).await, of_seven);
    drop(backend);

    // Kept also by a process that does not declare it.
    let backend = opened_file(&path).await;
    commit(&backend, &[gone(7), new(77, doc! { "email": 7 })])
        .await
        .unwrap();
    of_seven.remove(0);
    of_seven.push(77);
    assert_eq!(ids(&backend, sevens()).await, of_seven);

    for other in [
        users(Index::on("email").unique()),
        users(Index::on("email"))
            .with_index(Index::on("a_1_b"))
            .with_index(Index::on("a").then("b")),
    ] {
        let error = backend.open_collection(&other).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
    }
    let mut other = CollectionSpec::new("users");
    other.version_field = "rev".to_owned();
    let error = backend.open_collection(&other).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
    let error = backend.open_collection(&CollectionSpec::new("a\0b")).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidName);
}

#[tokio::test]
async fn two_arrays_in_one_index_are_refused() {
    let backend = EmbeddedBackend::in_memory().unwrap();
    backend
        .open_collection(&users(Index::on("email").then("b")))
        .await
        .unwrap();
    let parallel = doc! { "email": [1, 2], "b": [3, 4] };
    assert_eq!(refused(commit(&backend, &[new(1, parallel)]).await), 0);
    commit(&backend, &[new(1, doc! { "email": [1, 2], "b": 3 })])
        .await
        .unwrap();
    let query = Query::new().equal("email", 2).equal("b", 3);
    assert_eq!(ids(&backend, query).await, [1]);
}
