use std::fs;

use super::*;
use crate::error::{ErrorKind, Result};

fn open(path: &std::path::Path) -> Result<EmbeddedBackend> {
    EmbeddedBackend::open(path, EmbeddedOptions::default())
}

fn kind(path: &std::path::Path) -> ErrorKind {
    let error = open(path).unwrap_err();
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    assert!(error.to_string().contains(&name), "{error}");
    error.kind()
}

#[tokio::test]
async fn a_store_keeps_its_identity_and_data() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    let backend = opened_file(&path).await;
    let id = backend.store_id();
    commit(&backend, &[step("a", 1)]).await.unwrap();
    assert_eq!(open(&path).unwrap_err().kind(), ErrorKind::InUse);
    drop(backend);

    let backend = open(&path).unwrap();
    assert_eq!(backend.store_id(), id);
    assert_eq!(version(&backend, "a").await, Some(1));
    assert_eq!(log_of(&backend, "a").await, [1]);
    // Opened in this process, that is: the version field may be another one by now.
    let failure = commit(&backend, &[step("a", 2)]).await.unwrap_err();
    assert_eq!(failure.into_error().kind(), ErrorKind::InvalidConfig);
    backend.close().await;
    drop(open(&path).unwrap());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn what_is_no_store_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    assert_eq!(kind(folder.path()), ErrorKind::InvalidConfig);
    assert_eq!(kind(&path("missing/s.db")), ErrorKind::InvalidConfig);
    for (name, content) in [
        ("empty.db", "".as_bytes()),
        ("text.db", b"hello"),
        ("short.db", b"redb"),
        ("magic.db", b"redb\x1a\x0a\xa9\x0d\x0a"),
        ("long.db", &[7; 100_000]),
    ] {
        fs::write(path(name), content).unwrap();
        assert_eq!(kind(&path(name)), ErrorKind::Corrupt, "{name}");
        assert_eq!(fs::read(path(name)).unwrap(), content);
    }

    let other = redb::Database::create(path("other.db")).unwrap();
    let transaction = other.begin_write().unwrap();
    let table = redb::TableDefinition::<u64, u64>::new("theirs");
    transaction.open_table(table).unwrap().insert(1, 1).unwrap();
    transaction.commit().unwrap();
    drop(other);
    assert_eq!(kind(&path("other.db")), ErrorKind::InvalidConfig);
}

#[test]
fn another_format_is_unsupported() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    drop(open(&path).unwrap());
    let database = redb::Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction
        .open_table(super::super::tables::META)
        .unwrap()
        .insert(b"format".as_slice(), 2_u32.to_le_bytes().as_slice())
        .unwrap();
    transaction.commit().unwrap();
    drop(database);
    assert_eq!(kind(&path), ErrorKind::Unsupported);
}

#[test]
fn two_that_create_the_same_store_end_up_with_one() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..10 {
        let path = folder.path().join(format!("{round}.db"));
        let results: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| open(&path))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        let opened = results.iter().filter(|result| result.is_ok()).count();
        assert!(opened <= 1);
        for error in results.into_iter().filter_map(Result::err) {
            assert_eq!(error.kind(), ErrorKind::InUse, "{error:?}");
        }
        drop(open(&path).unwrap());
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 10);
}
