//! Logs that the storage does not write by itself: without snapshots, with gaps.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use bson::rawdoc;
use futures_util::TryStreamExt;

use crate::document::Version;
use crate::error::ErrorKind;
use crate::history::samples::{patch, whole};
use crate::history::{History, Revision};
use crate::storage::Storage;
use crate::storage::backend::{Backend, EntryKind, LogEntry, Unit};
use crate::storage::embedded::EmbeddedBackend;

fn document(n: u64) -> bson::RawDocumentBuf {
    let n = i64::try_from(n).unwrap();
    rawdoc! { "_id": 1, "n": n, "version": n }
}

fn step(version: u64) -> LogEntry {
    patch(version, document(version - 1), document(version))
}

async fn history(entries: Vec<LogEntry>) -> History {
    let backend = EmbeddedBackend::in_memory().unwrap();
    let unit = Unit {
        entries,
        ..Unit::default()
    };
    let deadline = Instant::now() + Duration::from_secs(30);
    backend.commit(&[unit], deadline).await.unwrap();
    let storage = Storage::builder().backend(backend).open().await.unwrap();
    storage.history("users", 1)
}

#[tokio::test]
async fn without_snapshots_the_way_back_is_longer_and_the_states_are_the_same() {
    let mut entries = vec![whole(1, EntryKind::Created, document(1))];
    entries.extend((2..=450).map(step));
    let history = history(entries).await;
    for version in [1, 2, 99, 100, 101, 102, 199, 200, 299, 300, 301, 449, 450] {
        let state = history.at_version(version).await.unwrap().unwrap();
        assert_eq!(state.version(), Version::new(version));
        assert_eq!(state.document(), &*document(version));
    }
    let revisions: Vec<Revision> = history.replay().try_collect().await.unwrap();
    assert_eq!(revisions.len(), 450);
}

#[tokio::test]
async fn a_gap_is_named_from_whichever_side_it_is_met() {
    let mut entries = vec![whole(1, EntryKind::Created, document(1))];
    entries.extend((2..=5).map(step));
    entries.extend((8..=120).map(step));
    if let Some(snapshot) = entries.iter_mut().find(|entry| entry.version == 100) {
        snapshot.after = Some(document(100));
    }
    let history = history(entries).await;
    for version in [6, 7, 8, 99] {
        let error = history.at_version(version).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{version}");
        let message = error.to_string();
        assert!(message.contains("log of users/1: version"), "{message}");
        assert!(message.contains("is missing"), "{message}");
    }
    for version in [5, 100, 120] {
        assert!(history.at_version(version).await.unwrap().is_some());
    }
    let replayed: Result<Vec<Revision>, _> = history.replay().try_collect().await;
    let error = replayed.unwrap_err();
    assert_eq!(error.to_string(), "log of users/1: version 6 is missing");
}

#[tokio::test]
async fn a_log_whose_beginning_is_lost_serves_what_it_still_can() {
    let mut entries: Vec<LogEntry> = (50..=120).map(step).collect();
    entries[50].after = Some(document(100));
    let history = history(entries).await;
    for version in [1, 49, 50, 99] {
        let error = history.at_version(version).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{version}");
    }
    let state = history.at_version(110).await.unwrap().unwrap();
    assert_eq!(state.document(), &*document(110));
    let error = history.at_version(121).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}
