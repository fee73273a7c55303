//! The commit engine.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bson::{DateTime, Document, doc, rawdoc};
use nodestorage::storage::backend::{
    Backend, Condition, DocumentWrite, EntryKind, LogEntry, Position, Unit,
};
use nodestorage::storage::embedded::EmbeddedBackend;
use nodestorage::{CollectionSpec, DocumentKey, ErrorKind, Index, Metadata, Storage, Version};

use uuid::Uuid;

use crate::recorder::kept;

/// Writes a document and its log entry with the backend alone.
async fn foreign(store: &Arc<dyn Backend>, id: &str) {
    let key = DocumentKey::new("c", id);
    let loaded = store.load(std::slice::from_ref(&key)).await.unwrap();
    let version = loaded[0].head.unwrap().version.next();
    let after = rawdoc! { "_id": id, "n": 1_000, "name": "foreign", "version": version.to_i64() };
    let entry = LogEntry {
        key: key.clone(),
        version,
        position: Position::START,
        at: DateTime::now(),
        commit: Uuid::now_v7(),
        kind: EntryKind::Adopted,
        patch: None,
        after: Some(after.clone()),
        events: Vec::new(),
        aggregate_type: "C".to_owned(),
        version_field: "version".into(),
        metadata: Metadata::default(),
    };
    let before = Version::new(version.get() - 1);
    let write = DocumentWrite {
        key,
        condition: Condition::Version(before),
        document: Some(after),
    };
    let unit = Unit {
        writes: vec![write],
        entries: vec![entry],
        ..Unit::default()
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    store.commit(&[unit], deadline).await.unwrap();
}

/// The numbers are those that `commit_statistics` tells.
#[tokio::test]
async fn the_engines_numbers_are_those_of_its_work() {
    let kept = kept();
    let store: Arc<dyn Backend> = Arc::new(EmbeddedBackend::in_memory().unwrap());
    let spec = CollectionSpec::new("c").with_index(Index::on("name").unique());
    let builder = Storage::builder().shared_backend(Arc::clone(&store));
    let storage = builder.collection(spec).open().await.unwrap();
    let increment = |document: Option<Document>| {
        let mut document =
            document.unwrap_or_else(|| doc! { "n": 0, "name": Uuid::new_v4().to_string() });
        document.insert("n", document.get_i32("n").unwrap() + 1);
        document
    };
    for _ in 0..10 {
        storage.update("c", "a", increment).await.unwrap();
    }
    let updates = (0..32).map(|n| {
        let storage = storage.clone();
        async move { storage.update("c", n, increment).await.map(drop) }
    });
    for updated in futures_util::future::join_all(updates).await {
        updated.unwrap();
    }
    // Behind the engine's back, whose next commit is decided on what it remembers.
    foreign(&store, "a").await;
    storage.update("c", "a", increment).await.unwrap();
    let name = |name: &str| doc! { "n": 0, "name": name };
    storage.update("c", "x", |_| name("taken")).await.unwrap();
    let refused = storage.update("c", "y", |_| name("taken")).await;
    let error = refused.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Constraint);

    let statistics = storage.commit_statistics();
    let batches = kept.get("nodestorage_batch_updates").values;
    assert_eq!(batches.len() as u64, statistics.batches);
    assert_eq!(batches.iter().sum::<f64>() as u64, statistics.updates);
    assert!(statistics.updates >= 44);
    let lanes = kept.get("nodestorage_lane_updates").values;
    assert_eq!(lanes.iter().sum::<f64>() as u64, statistics.updates);
    let outcome = |name: &str| {
        let name = format!("nodestorage_commits_total outcome={name}");
        kept.get(&name).value as u64
    };
    assert_eq!(outcome("conflict"), statistics.conflicts);
    assert_eq!((outcome("conflict"), outcome("refused")), (1, 1));
    assert_eq!((outcome("failed"), outcome("unknown")), (0, 0));
    let commits = outcome("committed") + outcome("conflict") + outcome("refused");
    assert_eq!(commits, statistics.commits);
    let took = kept.get("nodestorage_commit_seconds").values;
    assert_eq!(took.len() as u64, commits);
    assert!(took.iter().all(|seconds| (0.0..60.0).contains(seconds)));
    let waited = kept.get("nodestorage_queue_seconds").values;
    assert_eq!(waited.len() as u64, statistics.updates);
    let missed = kept.get("nodestorage_missed_total").value as u64;
    assert_eq!(missed, statistics.misses);
    // One per update that was acknowledged, with the runs that it took.
    let attempts = kept.get("nodestorage_update_attempts").values;
    assert!(attempts.len() >= 43, "{}", attempts.len());
    assert!(attempts.iter().all(|runs| *runs >= 1.0));
    storage.close().await;
}
