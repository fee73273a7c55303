use bson::rawdoc;

use super::*;
use crate::document::ExpectedVersion;
use crate::error::ErrorKind;
use crate::storage::backend::{Record, RecordWrite};

fn write(id: &str, condition: Condition, document: Option<RawDocumentBuf>) -> Unit {
    Unit {
        writes: vec![DocumentWrite {
            key: key(id),
            condition,
            document,
        }],
        ..Unit::default()
    }
}

fn suspects(failure: CommitFailure) -> Vec<usize> {
    match failure {
        CommitFailure::Conflict { suspects, .. } => suspects,
        other => panic!("expected a conflict, found {other:?}"),
    }
}

fn refusal(failure: CommitFailure) -> (usize, ErrorKind) {
    match failure {
        CommitFailure::Refused { unit, error } => (unit, error.kind()),
        other => panic!("expected a refusal, found {other:?}"),
    }
}

#[tokio::test]
async fn conditions_are_what_is_stored() {
    let backend = opened().await;
    commit(&backend, &[step("a", 1)]).await.unwrap();
    let plain = || Some(rawdoc! { "_id": "p" });
    commit(&backend, &[write("p", Condition::Absent, plain())])
        .await
        .unwrap();
    let at = |number| Condition::Version(Version::new(number));
    for (id, condition, holds) in [
        ("a", Condition::Absent, false),
        ("a", Condition::Unversioned, false),
        ("a", at(2), false),
        ("a", at(1), true),
        ("p", Condition::Absent, false),
        ("p", Condition::Unversioned, true),
        ("p", at(0), false),
        ("p", at(1), false),
        ("missing", Condition::Absent, true),
        ("missing", Condition::Unversioned, false),
        ("missing", at(1), false),
    ] {
        let unit = Unit {
            checks: vec![(key(id), condition)],
            ..Unit::default()
        };
        let result = commit(&backend, &[unit]).await;
        assert_eq!(result.is_ok(), holds, "{id} {condition:?}: {result:?}");
    }
    let failure = commit(&backend, &[write("a", at(5), None)])
        .await
        .unwrap_err();
    let error = failure.into_error();
    let conflict = error.version_conflict().unwrap();
    assert_eq!(conflict.expected, ExpectedVersion::from(5));
    assert_eq!(conflict.actual, Some(Version::new(1)));
}

#[tokio::test]
async fn a_call_is_all_or_nothing_and_names_the_guilty() {
    let backend = opened().await;
    commit(&backend, &[step("a", 1)]).await.unwrap();
    let units = [step("b", 1), step("a", 1), step("c", 1), step("d", 5)];
    assert_eq!(
        suspects(commit(&backend, &units).await.unwrap_err()),
        [1, 3]
    );
    for id in ["b", "c", "d"] {
        assert_eq!(version(&backend, id).await, None);
        assert!(log_of(&backend, id).await.is_empty());
    }
    let receipt = commit(&backend, &[step("b", 1), step("a", 2), step("c", 1)])
        .await
        .unwrap();
    let entry = backend.read_log(&all_of(key("c"))).await.unwrap().remove(0);
    assert_eq!(entry.position, receipt.position);
    assert_eq!(version(&backend, "a").await, Some(2));
}

#[tokio::test]
async fn the_log_takes_no_version_twice() {
    let backend = opened().await;
    commit(&backend, &[step("a", 1), step("b", 1)])
        .await
        .unwrap();
    for number in [0, 1] {
        let unit = Unit {
            entries: vec![entry(&key("a"), number, EntryKind::Updated)],
            ..Unit::default()
        };
        assert_eq!(suspects(commit(&backend, &[unit]).await.unwrap_err()), [0]);
    }
    let several = Unit {
        entries: vec![
            entry(&key("a"), 5, EntryKind::Adopted),
            entry(&key("a"), 6, EntryKind::Updated),
            entry(&key("b"), 2, EntryKind::Updated),
        ],
        ..Unit::default()
    };
    commit(&backend, &[several]).await.unwrap();
    assert_eq!(log_of(&backend, "a").await, [1, 5, 6]);
    // An entry without a write leaves the document as it is.
    assert_eq!(version(&backend, "a").await, Some(1));
    let twice = Unit {
        entries: vec![
            entry(&key("b"), 3, EntryKind::Updated),
            entry(&key("b"), 3, EntryKind::Updated),
        ],
        ..Unit::default()
    };
    assert_eq!(suspects(commit(&backend, &[twice]).await.unwrap_err()), [0]);
}

#[tokio::test]
async fn a_deleted_document_keeps_its_head() {
    let backend = opened().await;
    commit(&backend, &[step("a", 1)]).await.unwrap();
    let mut deletion = step("a", 2);
    deletion.writes[0].document = None;
    deletion.entries[0].kind = EntryKind::Deleted;
    commit(&backend, &[deletion]).await.unwrap();
    let loaded = backend.load(&[key("a"), key("b")]).await.unwrap();
    assert_eq!(loaded[0].document, None);
    let head = loaded[0].head.unwrap();
    assert_eq!(
        (head.version, head.kind),
        (Version::new(2), EntryKind::Deleted)
    );
    assert_eq!((&loaded[1].document, loaded[1].head), (&None, None));
    // A document that was never logged leaves no trace.
    let plain = rawdoc! { "_id": "p" };
    commit(&backend, &[write("p", Condition::Absent, Some(plain))])
        .await
        .unwrap();
    commit(&backend, &[write("p", Condition::Unversioned, None)])
        .await
        .unwrap();
    assert_eq!(backend.load(&[key("p")]).await.unwrap()[0].head, None);
}

#[tokio::test]
async fn what_can_never_be_is_refused() {
    let backend = opened().await;
    let unopened = Unit {
        writes: vec![DocumentWrite {
            key: DocumentKey::new("orders", 1),
            condition: Condition::Absent,
            document: Some(rawdoc! { "_id": 1 }),
        }],
        ..Unit::default()
    };
    let failure = commit(&backend, &[step("a", 1), unopened])
        .await
        .unwrap_err();
    assert_eq!(refusal(failure), (1, ErrorKind::InvalidConfig));

    let huge = rawdoc! { "_id": "h", "text": "x".repeat(16 << 20) };
    let failure = commit(&backend, &[write("h", Condition::Absent, Some(huge))])
        .await
        .unwrap_err();
    assert_eq!(refusal(failure), (0, ErrorKind::TooLarge));

    let odd = rawdoc! { "_id": "o", "version": "seven" };
    commit(&backend, &[write("o", Condition::Absent, Some(odd))])
        .await
        .unwrap();
    let failure = commit(&backend, &[step("o", 8)]).await.unwrap_err();
    assert_eq!(refusal(failure), (0, ErrorKind::Corrupt));
    assert_eq!(version(&backend, "a").await, None);

    let late = backend.commit(&[step("a", 1)], Instant::now()).await;
    match late.unwrap_err() {
        CommitFailure::Failed(error) => assert_eq!(error.kind(), ErrorKind::Timeout),
        other => panic!("{other:?}"),
    }
    assert_eq!(version(&backend, "a").await, None);
}

#[tokio::test]
async fn the_largest_document_goes_in_and_comes_back() {
    let backend = opened().await;
    let overhead = rawdoc! { "_id": "l", "version": 1_i64, "text": "" }
        .as_bytes()
        .len();
    let text = "x".repeat((16 << 20) - overhead);
    let largest = rawdoc! { "_id": "l", "version": 1_i64, "text": text };
    let mut unit = step("l", 1);
    unit.writes[0].document = Some(largest.clone());
    unit.entries[0].after = Some(largest.clone());
    commit(&backend, &[unit]).await.unwrap();
    let loaded = backend.load(&[key("l")]).await.unwrap().remove(0);
    assert!(loaded.document.unwrap().as_bytes() == largest.as_bytes());
}

#[tokio::test]
async fn records_are_inserted_once_and_read_in_order() {
    let backend = opened().await;
    let record = |key: &str, n: i32| Record {
        kind: "idempotency".to_owned(),
        key: key.to_owned(),
        value: rawdoc! { "n": n },
    };
    let unit = |records| Unit {
        records,
        ..Unit::default()
    };
    let insert = |key, n| RecordWrite::Insert(record(key, n));
    commit(&backend, &[unit(vec![insert("b", 1), insert("a", 2)])])
        .await
        .unwrap();
    let mut again = step("x", 1);
    again.records = vec![insert("b", 9)];
    assert_eq!(suspects(commit(&backend, &[again]).await.unwrap_err()), [0]);
    assert_eq!(version(&backend, "x").await, None);
    let twice = [unit(vec![insert("t", 1)]), unit(vec![insert("t", 2)])];
    assert_eq!(suspects(commit(&backend, &twice).await.unwrap_err()), [1]);
    let delete = |key: &str| RecordWrite::Delete {
        kind: "idempotency".to_owned(),
        key: key.to_owned(),
    };
    // In order: deleted first, then free to be inserted.
    let units = [
        unit(vec![delete("b"), insert("b", 3), delete("none")]),
        unit(vec![RecordWrite::Put(record("aa", 4))]),
    ];
    commit(&backend, &units).await.unwrap();
    let read = backend.read_records("idempotency", None, 10).await.unwrap();
    let read: Vec<_> = read
        .iter()
        .map(|record| (record.key.as_str(), record.value.get_i32("n").unwrap()))
        .collect();
    assert_eq!(read, [("a", 2), ("aa", 4), ("b", 3)]);
    let page = backend.read_records("idempotency", Some("a"), 1).await;
    assert_eq!(page.unwrap(), [record("aa", 4)]);
    assert!(
        backend
            .read_records("idem", None, 9)
            .await
            .unwrap()
            .is_empty()
    );
    let one = backend.read_record("idempotency", "b").await.unwrap();
    assert_eq!(one, Some(record("b", 3)));
    assert_eq!(backend.read_record("other", "b").await.unwrap(), None);
}

/// Calls that were queued together share a transaction; one that fails must not touch the others, and
/// each sees those before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn calls_in_one_transaction_fail_on_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let backend = Arc::new(opened_file(&folder.path().join("s.db")).await);
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..64 {
        let backend = Arc::clone(&backend);
        tasks.spawn(async move {
            let mut won = 0;
            for round in 1..=20 {
                // All race for the same version of one document; each has its own as well.
                let mut race = step("hot", round);
                race.records = vec![RecordWrite::Put(Record {
                    kind: "winner".to_owned(),
                    key: format!("{round}-{task}"),
                    value: rawdoc! {},
                })];
                match commit(&backend, &[race]).await {
                    Ok(_) => won += 1,
                    Err(failure) => assert_eq!(suspects(failure), [0]),
                }
                commit(&backend, &[step(&format!("own-{task}"), round)])
                    .await
                    .unwrap();
                eventually(|| async { version(&backend, "hot").await >= Some(round as i64) }).await;
            }
            won
        });
    }
    let won: i32 = tasks.join_all().await.into_iter().sum();
    assert_eq!(won, 20);
    assert_eq!(log_of(&backend, "hot").await, Vec::from_iter(1..=20));
    assert_eq!(
        backend
            .read_records("winner", None, 999)
            .await
            .unwrap()
            .len(),
        20
    );
    for task in 0..64 {
        assert_eq!(version(&backend, &format!("own-{task}")).await, Some(20));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_dropped_commit_happens_completely_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let backend = opened_file(&folder.path().join("s.db")).await;
    for number in 0..200 {
        let (a, b) = (format!("a{number}"), format!("b{number}"));
        let units = [step(&a, 1), step(&b, 1)];
        let commit = commit(&backend, &units);
        let polls = number % 4;
        let mut commit = Box::pin(commit);
        for _ in 0..polls {
            let _ = futures_util::poll!(&mut commit);
            tokio::task::yield_now().await;
        }
        drop(commit);
    }
    // Comes after everything that was queued.
    commit(&backend, &[step("last", 1)]).await.unwrap();
    for number in 0..200 {
        let a = version(&backend, &format!("a{number}")).await;
        assert_eq!(a, version(&backend, &format!("b{number}")).await);
        assert!(number % 4 > 0 || a.is_none());
    }
}

/// A paused clock jumps to the next timer whenever the runtime waits, also for the writer.
#[tokio::test(start_paused = true)]
async fn a_paused_clock_does_not_end_a_commit_early() {
    let folder = tempfile::tempdir().unwrap();
    let backend = opened_file(&folder.path().join("s.db")).await;
    for version in 1..=50 {
        commit(&backend, &[step("a", version)]).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_finishes_what_was_queued_and_refuses_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    let backend = Arc::new(opened_file(&path).await);
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..50 {
        let backend = Arc::clone(&backend);
        tasks.spawn(async move {
            (
                task,
                commit(&backend, &[step(&format!("d{task}"), 1)]).await,
            )
        });
    }
    tokio::task::yield_now().await;
    backend.close().await;
    let mut committed = Vec::new();
    for (task, result) in tasks.join_all().await {
        match result {
            Ok(_) => committed.push(task),
            Err(failure) => assert_eq!(failure.into_error().kind(), ErrorKind::Closed),
        }
    }
    let closed = |kind| assert_eq!(kind, ErrorKind::Closed);
    closed(backend.load(&[key("a")]).await.unwrap_err().kind());
    closed(
        backend
            .read_log(&all_of(key("a")))
            .await
            .unwrap_err()
            .kind(),
    );
    closed(
        commit(&backend, &[step("z", 1)])
            .await
            .unwrap_err()
            .into_error()
            .kind(),
    );
    closed(backend.read_record("a", "b").await.unwrap_err().kind());
    backend.close().await;

    let backend = opened_file(&path).await;
    for task in committed {
        assert_eq!(version(&backend, &format!("d{task}")).await, Some(1));
    }
}
