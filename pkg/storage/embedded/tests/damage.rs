//! Files with flipped bits and missing ends: every answer is a typed error or intact.

use std::fs;
use std::path::Path;

use bson::doc;
use futures_util::StreamExt;

use super::*;
use crate::error::{ErrorKind, Result};
use crate::storage::backend::{LeaseRequest, Record, RecordWrite, TailFrom, TailItem};
use crate::storage::query::{Index, Query};

fn spec() -> CollectionSpec {
    CollectionSpec::new("users").with_index(Index::on("version"))
}

fn lease() -> LeaseRequest {
    LeaseRequest {
        name: "relay".to_owned(),
        owner: "me".to_owned(),
        ttl: Duration::from_secs(10),
    }
}

async fn make(path: &Path) {
    let backend = EmbeddedBackend::open(path, EmbeddedOptions::default()).unwrap();
    backend.open_collection(&spec()).await.unwrap();
    for version in 1..=3 {
        let mut units: Vec<_> = (0..60).map(|id| step(&format!("d{id}"), version)).collect();
        units[0].records = vec![RecordWrite::Put(Record {
            kind: "kind".to_owned(),
            key: format!("key{version}"),
            value: rawdoc! { "text": "y".repeat(100) },
        })];
        commit(&backend, &units).await.unwrap();
    }
    backend.acquire_lease(&lease()).await.unwrap();
}

/// Reads everything there is.
async fn read(path: &Path) -> Result<Vec<String>> {
    let backend = EmbeddedBackend::open(path, EmbeddedOptions::default())?;
    let mut read = vec![backend.store_id().to_string()];
    backend.open_collection(&spec()).await?;
    let keys: Vec<_> = (0..60).map(|id| key(&format!("d{id}"))).collect();
    for loaded in backend.load(&keys).await? {
        read.push(format!("{loaded:?}"));
    }
    for key in keys {
        read.push(format!("{:?}", backend.read_log(&all_of(key)).await?));
    }
    read.push(format!(
        "{:?}",
        backend.read_records("kind", None, 9).await?
    ));
    for query in [Query::new(), Query::new().equal("version", 3)] {
        read.push(format!("{:?}", backend.query("users", &query).await?));
    }
    let mut tail = backend.tail(TailFrom::Beginning);
    while let Some(item) = tail.next().await {
        match item? {
            TailItem::Entry { entry, .. } => read.push(format!("{entry:?}")),
            TailItem::Idle { .. } => break,
        }
    }
    let lease = backend.acquire_lease(&lease()).await?;
    read.push(format!("{lease:?}"));
    // And it must be possible to write, or an error to say that it is not.
    let unit = Unit {
        writes: vec![DocumentWrite {
            key: key("new"),
            condition: Condition::Absent,
            document: Some(RawDocumentBuf::try_from(doc! { "_id": "new" }).unwrap()),
        }],
        ..Unit::default()
    };
    commit(&backend, &[unit])
        .await
        .map_err(CommitFailure::into_error)?;
    Ok(read)
}

async fn attempt(original: &[String], path: &Path, what: &str) -> bool {
    match read(path).await {
        Ok(found) => {
            assert!(found == original, "other data after {what}");
            false
        }
        Err(error) => {
            let expected = matches!(
                error.kind(),
                ErrorKind::Corrupt | ErrorKind::Unsupported | ErrorKind::InvalidConfig
            );
            assert!(expected, "{error:?} after {what}");
            true
        }
    }
}

#[tokio::test]
async fn flipped_bits_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    make(&path).await;
    let original = fs::read(&path).unwrap();
    let copy = folder.path().join("copy.db");
    fs::write(&copy, &original).unwrap();
    let intact = read(&copy).await.unwrap();

    let header = 0..320;
    // A prime step, so that all places within a page have their turn.
    let pages = (320..original.len()).step_by(1_511);
    let mut found = 0;
    for place in header.chain(pages) {
        if place > 320 && original[place..].iter().take(64).all(|byte| *byte == 0) {
            continue;
        }
        let mut damaged = original.clone();
        damaged[place] ^= 1 << (place % 8);
        fs::write(&copy, &damaged).unwrap();
        if attempt(
            &intact,
            &copy,
            &format!("a flip at {place} of {}", original.len()),
        )
        .await
        {
            found += 1;
        }
    }
    assert!(found > 50, "only {found} flips were found");
}

#[tokio::test]
async fn truncated_files_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    make(&path).await;
    let original = fs::read(&path).unwrap();
    let copy = folder.path().join("copy.db");
    fs::write(&copy, &original).unwrap();
    let intact = read(&copy).await.unwrap();
    for length in (0..original.len()).step_by(50_021).chain([1, 9, 64, 4_096]) {
        fs::write(&copy, &original[..length]).unwrap();
        attempt(&intact, &copy, &format!("cutting to {length}")).await;
    }
}
