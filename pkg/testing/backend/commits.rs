//! Commits: compare and swap, all or nothing, checks.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::support::{
    assert_conflict, at, change, commit, creation, entry, key, load, opened, record, thing,
    versions,
};
use crate::document::{DocumentKey, Version};
use crate::error::ErrorKind;
use crate::storage::backend::{
    CommitFailure, Condition, DocumentWrite, EntryKind, Fence, LeaseRequest, RecordWrite, Unit,
};
use crate::storage::{CollectionSpec, Index};
use crate::testing::support::read_log;
use crate::testing::{TestStore, check_log};

/// A write goes ahead if and only if the stored document is as its condition says.
pub async fn conditions_compare_the_stored_document(store: &dyn TestStore) {
    let backend = opened(store).await;
    let unversioned = bson::rawdoc! { "_id": 0, "n": 1 };
    let states = [
        None,
        Some(unversioned),
        Some(thing(0, 1)),
        Some(thing(0, 2)),
    ];
    let conditions = [
        Condition::Absent,
        Condition::Unversioned,
        at(1),
        at(2),
        at(0),
    ];
    let mut id = 0;
    for (state_number, state) in states.iter().enumerate() {
        for (condition_number, condition) in conditions.into_iter().enumerate() {
            for write in [true, false] {
                id += 1;
                let with_id = |document: &bson::RawDocumentBuf| {
                    let mut document = bson::Document::try_from(document.clone()).unwrap();
                    document.insert("_id", id);
                    bson::RawDocumentBuf::try_from(document).unwrap()
                };
                let mut before = None;
                if let Some(state) = state {
                    before = Some(with_id(state));
                    let put = DocumentWrite {
                        key: key(id),
                        condition: Condition::Absent,
                        document: before.clone(),
                    };
                    commit(
                        backend.as_ref(),
                        &[Unit {
                            writes: vec![put],
                            ..Unit::default()
                        }],
                    )
                    .await
                    .unwrap();
                }
                // Written with the document, or only checked beside another write.
                let unit = if write {
                    let document = Some(thing(id, 9));
                    let writes = vec![DocumentWrite {
                        key: key(id),
                        condition,
                        document,
                    }];
                    Unit {
                        writes,
                        ..Unit::default()
                    }
                } else {
                    let records = vec![RecordWrite::Put(record("seen", &id.to_string(), 1))];
                    Unit {
                        checks: vec![(key(id), condition)],
                        records,
                        ..Unit::default()
                    }
                };
                let result = commit(backend.as_ref(), &[unit]).await;
                let what = format!("{condition:?} on {state:?}, written: {write}");
                let holds = state_number == condition_number;
                let after = load(backend.as_ref(), id).await.document;
                let noted = backend
                    .read_record("seen", &id.to_string())
                    .await
                    .unwrap()
                    .is_some();
                if holds {
                    result.unwrap_or_else(|failure| panic!("{what}: {failure:?}"));
                    assert_eq!(
                        after,
                        if write { Some(thing(id, 9)) } else { before },
                        "{what}"
                    );
                    assert_eq!(noted, !write, "{what}");
                } else {
                    assert_conflict(result, &what);
                    assert_eq!((after, noted), (before, false), "{what}");
                }
            }
        }
    }
}

/// Documents, log entries and records of all units of a call are committed together; each part can be
/// left out.
pub async fn units_are_committed_together(store: &dyn TestStore) {
    let backend = opened(store).await;
    let mut units = vec![creation(1), creation(2)];
    units[0]
        .records
        .push(RecordWrite::Insert(record("idempotency", "a", 1)));
    units.push(Unit {
        records: vec![RecordWrite::Put(record("idempotency", "b", 2))],
        ..Unit::default()
    });
    units.push(Unit {
        entries: vec![appended(1)],
        ..Unit::default()
    });
    let receipt = commit(backend.as_ref(), &units).await.unwrap();
    for id in [1, 2] {
        let log = check_log(backend.as_ref(), &key(id)).await;
        assert_eq!(log.versions(), [1]);
        assert!(
            log.entries[0].position <= receipt.position,
            "the receipt is not before the commit"
        );
    }
    assert_eq!(read_log(backend.as_ref(), &appended(1).key).await.len(), 1);
    for name in ["a", "b"] {
        assert!(
            backend
                .read_record("idempotency", name)
                .await
                .unwrap()
                .is_some()
        );
    }
    commit(backend.as_ref(), &[]).await.unwrap();
    commit(backend.as_ref(), &[Unit::default()]).await.unwrap();
}

fn appended(version: u64) -> crate::storage::backend::LogEntry {
    entry(
        &DocumentKey::new("nodestorage.streams", "s"),
        version,
        EntryKind::Appended,
    )
}

/// Whatever makes one unit of a call fail (a stale document, a stale check, a log entry that is there
/// already, a record that is, a lost lease, a unique index), nothing of any unit is written: neither
/// document nor log entry nor record.
pub async fn whatever_fails_nothing_is_written(store: &dyn TestStore) {
    let backend = store.backend().await.unwrap();
    let spec = CollectionSpec::new("things").with_index(Index::on("email").unique());
    backend.open_collection(&spec).await.unwrap();
    let with_email = |id: i32| {
        let mut unit = creation(id);
        let document = bson::rawdoc! { "_id": id, "email": "taken", "version": 1_i64 };
        unit.writes[0].document = Some(document.clone());
        unit.entries[0].after = Some(document);
        unit
    };
    // Documents without the field are null in the index, so that only one may lack it.
    let unique = |mut unit: Unit, email: &str| {
        for (write, entry) in unit.writes.iter_mut().zip(&mut unit.entries) {
            let mut document = bson::Document::try_from(write.document.clone().unwrap()).unwrap();
            document.insert("email", email);
            let document = bson::RawDocumentBuf::try_from(document).unwrap();
            write.document = Some(document.clone());
            entry.after = Some(document);
        }
        unit
    };
    let existing = RecordWrite::Insert(record("idempotency", "existing", 1));
    let mut first = with_email(1);
    first.records.push(existing.clone());
    first
        .records
        .push(RecordWrite::Put(record("idempotency", "other", 1)));
    commit(backend.as_ref(), &[first]).await.unwrap();

    let stale_write = unique(change(1, 7), "x");
    let stale_check = Unit {
        checks: vec![(key(1), Condition::Absent)],
        ..Unit::default()
    };
    let logged_already = Unit {
        entries: vec![entry(&key(1), 1, EntryKind::Updated)],
        ..Unit::default()
    };
    let recorded_already = Unit {
        records: vec![existing],
        ..Unit::default()
    };
    let lost = Fence {
        name: "relay".into(),
        owner: "nobody".into(),
        number: 7,
    };
    let lost_fence = Unit {
        fence: Some(lost),
        ..Unit::default()
    };
    let cases = [
        ("a stale document", stale_write, None),
        ("a stale check", stale_check, None),
        ("a version that is logged already", logged_already, None),
        ("a record that is there already", recorded_already, None),
        ("a lost lease", lost_fence, Some(ErrorKind::InUse)),
        ("a unique index", with_email(3), Some(ErrorKind::Constraint)),
    ];
    for (what, bad, refusal) in cases {
        for position in 0..3 {
            let mut good = unique(creation(2), "free");
            good.records
                .push(RecordWrite::Put(record("idempotency", "new", 1)));
            let other = Unit {
                records: vec![RecordWrite::Delete {
                    kind: "idempotency".into(),
                    key: "other".into(),
                }],
                ..Unit::default()
            };
            // In front of the others, between them, and as a part of one.
            let units = match position {
                0 => vec![bad.clone(), good, other],
                1 => vec![good, bad.clone(), other],
                _ => {
                    good.writes.extend(bad.writes.clone());
                    good.entries.extend(bad.entries.clone());
                    good.checks.extend(bad.checks.clone());
                    good.records.extend(bad.records.clone());
                    good.fence.clone_from(&bad.fence);
                    vec![good]
                }
            };
            let failure = match commit(backend.as_ref(), &units).await {
                Ok(receipt) => panic!("{what}, in place {position}: {receipt:?}"),
                Err(failure) => failure,
            };
            match (refusal, &failure) {
                (None, CommitFailure::Conflict { .. }) => {}
                (Some(kind), CommitFailure::Refused { unit, error }) => {
                    assert_eq!(error.kind(), kind, "{what}");
                    assert_eq!(
                        *unit,
                        if position == 1 { 1 } else { 0 },
                        "{what}: the unit at fault"
                    );
                }
                _ => panic!("{what}: {failure:?}"),
            }
            for id in [2, 3] {
                assert_eq!(versions(backend.as_ref(), id).await, (0, 0), "{what}");
                assert!(
                    read_log(backend.as_ref(), &key(id)).await.is_empty(),
                    "{what}"
                );
            }
            assert_eq!(versions(backend.as_ref(), 1).await, (1, 1), "{what}");
            let new = backend.read_record("idempotency", "new").await.unwrap();
            let old = backend.read_record("idempotency", "other").await.unwrap();
            assert!(new.is_none() && old.is_some(), "{what}: records");
        }
    }
    commit(backend.as_ref(), &[unique(creation(2), "free")])
        .await
        .unwrap();
    check_log(backend.as_ref(), &key(1)).await;
}

/// Of many commits that compare with the same version one succeeds; the others conflict.
pub async fn one_of_many_commits_on_one_version_succeeds(store: &dyn TestStore) {
    let backend = opened(store).await;
    commit(backend.as_ref(), &[creation(1)]).await.unwrap();
    for from in 1..=5 {
        let commits = (0..16).map(|_| {
            let backend = backend.clone();
            tokio::spawn(async move { commit(backend.as_ref(), &[change(1, from)]).await })
        });
        let mut won = 0;
        for result in join_all(commits).await {
            match result.unwrap() {
                Ok(_) => won += 1,
                Err(CommitFailure::Conflict { .. }) => {}
                Err(failure) => panic!("{failure:?}"),
            }
        }
        assert_eq!(
            (won, versions(backend.as_ref(), 1).await),
            (1, (from as i64 + 1, from + 1))
        );
    }
    check_log(backend.as_ref(), &key(1)).await;
}

/// Of several units of which one has lost, either all others are committed or nothing is; what is said to be
/// lost left no trace.
pub async fn what_holds_of_several_units_is_committed_or_nothing_is(store: &dyn TestStore) {
    let backend = opened(store).await;
    let created: Vec<_> = (1..=12).map(creation).collect();
    commit(backend.as_ref(), &created).await.unwrap();
    commit(backend.as_ref(), &[change(3, 1)]).await.unwrap();
    commit(backend.as_ref(), &[change(3, 2)]).await.unwrap();
    let units: Vec<_> = (1..=12).map(|id| change(id, 1)).collect();
    let deadline = Instant::now() + Duration::from_secs(30);
    let committed = match backend.commit_what_holds(&units, deadline).await {
        Ok(committed) => {
            assert_eq!(committed.lost, [2]);
            true
        }
        Err(CommitFailure::Conflict { suspects, .. }) => {
            assert!(suspects.is_empty() || suspects == [2], "{suspects:?}");
            false
        }
        Err(failure) => panic!("{failure:?}"),
    };
    for id in 1..=12 {
        let wanted = match id {
            3 => (3, 3),
            _ if committed => (2, 2),
            _ => (1, 1),
        };
        assert_eq!(versions(backend.as_ref(), id).await, wanted, "{id}");
        check_log(backend.as_ref(), &key(id)).await;
    }
    // Where everything holds, everything is committed.
    let units = [change(3, 3), creation(20)];
    let committed = backend.commit_what_holds(&units, deadline).await.unwrap();
    assert_eq!(committed.lost, [0_usize; 0]);
    assert_eq!(versions(backend.as_ref(), 20).await, (1, 1));
}

/// Of two commits of which each checks what the other one writes, at most one succeeds (no write skew);
/// with a store to themselves both could.
pub async fn checks_prevent_write_skew(store: &dyn TestStore) {
    let backend = opened(store).await;
    commit(backend.as_ref(), &[creation(1), creation(2)])
        .await
        .unwrap();
    let (mut one, mut other) = (1, 1);
    for _ in 0..20 {
        let mut first = change(1, one);
        first.checks.push((key(2), at(other)));
        let mut second = change(2, other);
        second.checks.push((key(1), at(one)));
        let (first, second) = tokio::join!(
            tokio::spawn({
                let backend = backend.clone();
                async move { commit(backend.as_ref(), &[first]).await.is_ok() }
            }),
            tokio::spawn({
                let backend = backend.clone();
                async move { commit(backend.as_ref(), &[second]).await.is_ok() }
            })
        );
        let (first, second) = (first.unwrap(), second.unwrap());
        assert!(!(first && second), "both went ahead");
        one += u64::from(first);
        other += u64::from(second);
    }
    // And a document that is checked for being absent cannot appear meanwhile.
    for id in 10..20 {
        let mut note = Unit {
            records: vec![RecordWrite::Insert(record("absent", &id.to_string(), 1))],
            ..Unit::default()
        };
        note.checks.push((key(id), Condition::Absent));
        let mut create = creation(id);
        create
            .records
            .push(RecordWrite::Insert(record("present", &id.to_string(), 1)));
        // Each excludes the other through what it leaves behind.
        create.checks.push((key(1), at(one)));
        let units = [[note], [create]];
        let results = join_all(units.iter().map(|units| commit(backend.as_ref(), units))).await;
        assert!(results.iter().any(Result::is_ok), "{results:?}");
    }
    for id in [1, 2] {
        check_log(backend.as_ref(), &key(id)).await;
    }
}

/// A deletion leaves no document and keeps the log, whose head says so; numbering can go on from it.
pub async fn a_deletion_keeps_the_log(store: &dyn TestStore) {
    let backend = opened(store).await;
    commit(backend.as_ref(), &[creation(1)]).await.unwrap();
    let deletion = Unit {
        writes: vec![DocumentWrite {
            key: key(1),
            condition: at(1),
            document: None,
        }],
        entries: vec![entry(&key(1), 2, EntryKind::Deleted)],
        ..Unit::default()
    };
    assert_conflict(
        commit(backend.as_ref(), &[deletion_at(5)]).await,
        "a stale deletion",
    );
    commit(backend.as_ref(), std::slice::from_ref(&deletion))
        .await
        .unwrap();
    let loaded = load(backend.as_ref(), 1).await;
    let head = loaded.head.unwrap();
    assert_eq!(
        (loaded.document, head.version, head.kind),
        (None, Version::new(2), EntryKind::Deleted)
    );
    assert_conflict(
        commit(backend.as_ref(), &[deletion]).await,
        "a second deletion",
    );
    let mut again = creation(1);
    again.writes[0].document = Some(thing(1, 3));
    again.entries[0] = entry(&key(1), 3, EntryKind::Created);
    again.entries[0].after = Some(thing(1, 3));
    commit(backend.as_ref(), &[again]).await.unwrap();
    check_log(backend.as_ref(), &key(1)).await;
}

fn deletion_at(version: u64) -> Unit {
    let writes = vec![DocumentWrite {
        key: key(1),
        condition: at(version),
        document: None,
    }];
    Unit {
        writes,
        ..Unit::default()
    }
}

/// Several entries of one document are committed in their order, and loading many keys answers each in
/// its place, also the same key twice, and none.
pub async fn many_keys_are_loaded_in_their_order(store: &dyn TestStore) {
    let backend = opened(store).await;
    backend
        .open_collection(&CollectionSpec::new("others"))
        .await
        .unwrap();
    let units: Vec<Unit> = (0..60).map(creation).collect();
    commit(backend.as_ref(), &units).await.unwrap();
    let mut keys: Vec<DocumentKey> = (0..80).rev().map(key).collect();
    keys.push(DocumentKey::new("others", 1));
    keys.push(key(5));
    keys.push(key(5));
    let loaded = backend.load(&keys).await.unwrap();
    assert_eq!(loaded.len(), keys.len());
    for (key, loaded) in keys.iter().zip(loaded) {
        let is_there = key.collection() == "things" && *key.id() < 60.into();
        assert_eq!(loaded.document.is_some(), is_there, "{key}");
        assert_eq!(loaded.head.is_some(), is_there, "{key}");
        if let Some(document) = loaded.document {
            assert_eq!(
                crate::DocumentId::from_bson(document.get("_id").unwrap().unwrap()).unwrap(),
                *key.id()
            );
        }
    }
    assert!(backend.load(&[]).await.unwrap().is_empty());
}

/// A unit under a lease is committed while the lease is held, and refused with `InUse` after a takeover.
pub async fn a_fence_holds_off_a_former_owner(store: &dyn TestStore) {
    let backend = opened(store).await;
    let request = |owner: &str, ttl: Duration| LeaseRequest {
        name: "relay".into(),
        owner: owner.into(),
        ttl,
    };
    let lease = backend
        .acquire_lease(&request("a", Duration::from_secs(60)))
        .await
        .unwrap();
    let mut fenced = creation(1);
    fenced.fence = Some(lease.fence.clone());
    commit(backend.as_ref(), &[fenced]).await.unwrap();
    backend.release_lease(&lease.fence).await.unwrap();
    let next = backend
        .acquire_lease(&request("b", Duration::from_secs(60)))
        .await
        .unwrap();
    let mut late = creation(2);
    late.fence = Some(lease.fence);
    let failure = commit(backend.as_ref(), &[late]).await.unwrap_err();
    assert_eq!(failure.into_error().kind(), ErrorKind::InUse);
    assert_eq!(versions(backend.as_ref(), 2).await, (0, 0));
    let mut owned = creation(2);
    owned.fence = Some(next.fence);
    commit(backend.as_ref(), &[owned]).await.unwrap();
}
