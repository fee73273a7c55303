//! Records: small documents of the system's own.

use super::support::{assert_conflict, commit, opened, record};
use crate::storage::backend::{Backend, RecordWrite, Unit};
use crate::testing::TestStore;

async fn write(backend: &dyn Backend, records: Vec<RecordWrite>) {
    commit(
        backend,
        &[Unit {
            records,
            ..Unit::default()
        }],
    )
    .await
    .unwrap();
}

/// Records are inserted once, put over and over, deleted, and read by kind and key.
pub async fn records_are_written_and_read(store: &dyn TestStore) {
    let backend = opened(store).await;
    let backend = backend.as_ref();
    let delete = |key: &str| RecordWrite::Delete {
        kind: "kind".into(),
        key: key.into(),
    };
    write(backend, vec![delete("a")]).await;
    write(backend, vec![RecordWrite::Insert(record("kind", "a", 1))]).await;
    let insert = Unit {
        records: vec![RecordWrite::Insert(record("kind", "a", 2))],
        ..Unit::default()
    };
    assert_conflict(
        commit(backend, std::slice::from_ref(&insert)).await,
        "a second insertion",
    );
    assert_eq!(
        backend.read_record("kind", "a").await.unwrap(),
        Some(record("kind", "a", 1))
    );
    write(backend, vec![RecordWrite::Put(record("kind", "a", 3))]).await;
    write(backend, vec![RecordWrite::Put(record("other", "a", 4))]).await;
    assert_eq!(
        backend.read_record("kind", "a").await.unwrap(),
        Some(record("kind", "a", 3))
    );
    assert_eq!(
        backend.read_record("other", "a").await.unwrap(),
        Some(record("other", "a", 4))
    );
    assert_eq!(backend.read_record("kind", "b").await.unwrap(), None);
    write(backend, vec![delete("a")]).await;
    assert_eq!(backend.read_record("kind", "a").await.unwrap(), None);
    assert!(backend.read_record("other", "a").await.unwrap().is_some());
    commit(backend, &[insert]).await.unwrap();
}

/// The records of a kind are read in the order of their keys' bytes, page by page, and no other kind's.
pub async fn records_are_paged_in_the_order_of_keys(store: &dyn TestStore) {
    let backend = opened(store).await;
    let backend = backend.as_ref();
    let long = "x".repeat(1_024);
    let mut keys = vec![
        "",
        "a",
        "a\u{1}",
        "aa",
        "b",
        "B",
        "10",
        "9",
        "ü",
        "\u{10ffff}",
        "\u{fffd}",
        "a.b",
        "$x",
        &long,
    ];
    keys.retain(|key| !key.is_empty());
    let mut records = vec![
        RecordWrite::Put(record("kind2", "a", 0)),
        RecordWrite::Put(record("kin", "a", 0)),
    ];
    records.extend(
        keys.iter()
            .map(|key| RecordWrite::Put(record("kind", key, 1))),
    );
    write(backend, records).await;
    keys.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    for limit in [1, 3, 100] {
        let mut seen: Vec<String> = Vec::new();
        loop {
            let page = backend
                .read_records("kind", seen.last().map(String::as_str), limit)
                .await
                .unwrap();
            assert!(page.len() <= limit && page.iter().all(|record| record.kind == "kind"));
            let is_last = page.len() < limit;
            seen.extend(page.into_iter().map(|record| record.key));
            if is_last {
                break;
            }
        }
        assert_eq!(seen, keys, "in pages of {limit}");
    }
    assert!(
        backend
            .read_records("nothing", None, 10)
            .await
            .unwrap()
            .is_empty()
    );
}
