use futures_util::StreamExt;

use super::*;
use crate::error::ErrorKind;
use crate::storage::backend::{Cursor, TailFrom, TailItem};

fn ids(entry: &LogEntry) -> (String, u64) {
    (entry.key.id().to_string(), entry.version.get())
}

/// Reads up to the first idle item.
async fn caught_up(backend: &EmbeddedBackend, from: TailFrom) -> (Vec<(String, u64)>, Cursor) {
    let mut tail = backend.tail(from);
    let mut read = Vec::new();
    while let Some(item) = tail.next().await {
        match item.unwrap() {
            TailItem::Entry { entry, .. } => read.push(ids(&entry)),
            TailItem::Idle { cursor } => return (read, cursor),
        }
    }
    panic!("the tail ended");
}

#[tokio::test]
async fn a_tail_begins_where_it_is_told_to() {
    let backend = opened().await;
    for id in 0..600 {
        commit(&backend, &[step(&id.to_string(), 1)]).await.unwrap();
    }
    let (read, end) = caught_up(&backend, TailFrom::Beginning).await;
    assert_eq!(read.len(), 600);
    assert!(
        read.iter()
            .enumerate()
            .all(|(number, (id, _))| *id == number.to_string())
    );
    let (read, same) = caught_up(&backend, TailFrom::After(end.clone())).await;
    assert!(read.is_empty());
    assert_eq!(same, end);
    assert!(caught_up(&backend, TailFrom::Now).await.0.is_empty());

    let mut tail = backend.tail(TailFrom::Beginning);
    let mut middle = None;
    for _ in 0..300 {
        match tail.next().await.unwrap().unwrap() {
            TailItem::Entry { cursor, .. } => middle = Some(cursor),
            TailItem::Idle { .. } => panic!("not at the end yet"),
        }
    }
    let (read, _) = caught_up(&backend, TailFrom::After(middle.unwrap())).await;
    assert_eq!((read.len(), read[0].0.as_str()), (300, "300"));

    let beyond = Cursor {
        position: Position::from_u64(u64::MAX),
        token: rawdoc! {},
    };
    let mut tail = backend.tail(TailFrom::After(beyond));
    assert!(matches!(tail.next().await, Some(Ok(TailItem::Idle { .. }))));
    commit(&backend, &[step("new", 1)]).await.unwrap();
    match tail.next().await.unwrap().unwrap() {
        TailItem::Entry { entry, .. } => assert_eq!(ids(&entry), ("new".to_owned(), 1)),
        TailItem::Idle { .. } => panic!("expected the new entry"),
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_tail_says_so_now_and_then() {
    let backend = opened().await;
    let mut tail = backend.tail(TailFrom::Now);
    let start = tokio::time::Instant::now();
    for _ in 0..3 {
        assert!(matches!(tail.next().await, Some(Ok(TailItem::Idle { .. }))));
    }
    let waited = start.elapsed();
    assert!((1_000..2_000).contains(&waited.as_millis()), "{waited:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_tail_loses_and_repeats_nothing_while_writers_write() {
    let folder = tempfile::tempdir().unwrap();
    let backend = Arc::new(opened_file(&folder.path().join("s.db")).await);
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..8 {
        let backend = Arc::clone(&backend);
        tasks.spawn(async move {
            for version in 1..=50 {
                commit(&backend, &[step(&format!("w{writer}"), version)])
                    .await
                    .unwrap();
            }
        });
    }
    let mut tail = backend.tail(TailFrom::Beginning);
    let mut newest = [0; 8];
    let mut last = Position::START;
    while newest != [50; 8] {
        let item = tokio::time::timeout(Duration::from_secs(30), tail.next()).await;
        if let TailItem::Entry { entry, cursor } = item.unwrap().unwrap().unwrap() {
            let (id, version) = ids(&entry);
            let writer: usize = id[1..].parse().unwrap();
            assert_eq!(version, newest[writer] + 1);
            newest[writer] = version;
            assert!(entry.position > last);
            assert_eq!(cursor.position, entry.position);
            last = entry.position;
        }
    }
    tasks.join_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_ends_when_the_store_is_closed() {
    let backend = opened().await;
    let mut tail = backend.tail(TailFrom::Now);
    tail.next().await.unwrap().unwrap();
    let waiting = tokio::spawn(async move {
        loop {
            match tail.next().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => break (error.kind(), tail.next().await.is_none()),
                None => panic!("ended without an error"),
            }
        }
    });
    backend.close().await;
    assert_eq!(waiting.await.unwrap(), (ErrorKind::Closed, true));
}
