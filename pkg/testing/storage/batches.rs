//! Updates that share a commit, and what is kept in memory between commits.

use std::time::Duration;

use futures_util::future::join_all;

use crate::document::DocumentKey;
use crate::error::{Error, ErrorKind};
use crate::storage::{CollectionSpec, CommitOptions, Index, Storage, UpdateError, UpdateOptions};
use crate::testing::support::{Counter, User, on_backend, open, open_with};
use crate::testing::{FaultyBackend, TestStore, check_log};

/// How often 64 tasks increment one counter in the case of many updates.
const TIMES: u64 = 20;

async fn increment(storage: &Storage) {
    let update = storage.update("counters", "c", Counter::incremented);
    update.await.unwrap();
}

/// Many updates of one document share its writes, and each has a version and a log entry of its own.
pub async fn updates_of_one_document_share_its_writes(store: &dyn TestStore) {
    let storage = open(store).await;
    join_all((0..64).map(|_| async {
        for _ in 0..TIMES {
            increment(&storage).await;
        }
    }))
    .await;
    let done = storage.commit_statistics();
    assert!(done.updates >= 64 * TIMES, "{done:?}");
    assert!(done.writes * 4 < done.updates, "{done:?}");
    let key = DocumentKey::new("counters", "c");
    let log = check_log(storage.backend().as_ref(), &key).await;
    assert_eq!(log.entries.len() as u64, 64 * TIMES);
}

/// What one storage remembers of a document decides nothing once another one has changed it: neither a
/// rejection, nor an update without effect, nor an expected version.
pub async fn a_remembered_document_decides_nothing(store: &dyn TestStore) {
    let (one, other) = (open(store).await, open(store).await);
    for expected in [2, 4, 6, 8] {
        increment(&one).await;
        increment(&other).await;
        let options = UpdateOptions::new();
        match expected {
            2 => {
                let rejecting = one.update("counters", "c", |counter: Option<Counter>| {
                    Err::<Counter, i64>(counter.unwrap().value)
                });
                let rejected = rejecting.await.unwrap_err();
                assert_eq!(rejected.rejected(), Some(&expected));
            }
            4 => {
                let keeping =
                    one.update("counters", "c", |counter: Option<Counter>| counter.unwrap());
                let kept = keeping.await.unwrap();
                assert_eq!(kept.version().get() as i64, expected);
                assert_eq!(kept.after().unwrap(), Some(Counter { value: expected }));
            }
            6 => {
                let stale = options.with_expected(5);
                let stale = one.update_with("counters", "c", stale, |counter, _| {
                    Counter::incremented(counter)
                });
                let error = stale.await.unwrap_err();
                let actual = error.version_conflict().and_then(|it| it.actual);
                assert_eq!(actual.map(|it| it.get() as i64), Some(expected));
            }
            _ => {
                let newest = options.with_expected(8);
                let newest = one.update_with("counters", "c", newest, |counter, _| {
                    Counter::incremented(counter)
                });
                assert_eq!(newest.await.unwrap().version().get(), 9);
            }
        }
    }
}

/// An update of a document that was updated lately saves the read, unless the cache is off or the
/// document was there for too long.
pub async fn the_cache_saves_reads(store: &dyn TestStore) {
    let options = CommitOptions::default();
    let short = options.clone().with_cache(1 << 20, Duration::ZERO);
    let cases = [
        (options.clone(), 0),
        (options.without_cache(), 10),
        (short, 10),
    ];
    for (options, reads) in cases {
        let backend = FaultyBackend::new(store.backend().await.unwrap());
        let storage = on_backend(backend.clone(), |builder| builder.commits(options)).await;
        increment(&storage).await;
        let (calls, commits) = (backend.calls(), backend.commits());
        for _ in 0..10 {
            increment(&storage).await;
        }
        let commits = backend.commits() - commits;
        assert_eq!(commits, 10);
        assert_eq!(backend.calls() - calls - commits, reads, "reads");
    }
}

/// One of 64 updates of a document that wait for a commit is refused by a unique index: it alone fails,
/// and so does none of the other documents in the batch.
pub async fn a_refused_update_among_many_fails_alone(store: &dyn TestStore) {
    let unique = CollectionSpec::new("users").with_index(Index::on("email").unique());
    let storage = open_with(store, |builder| builder.collection(unique)).await;
    let of = |email: &str| User {
        name: String::new(),
        email: email.into(),
    };
    storage
        .update("users", "one", |_| of("taken"))
        .await
        .unwrap();
    storage
        .update("users", "hot", |_| of("free"))
        .await
        .unwrap();
    let storage = &storage;
    let hot = (0..64).map(|n| async move {
        let update = storage.update("users", "hot", |user: Option<User>| {
            let mut user = user.unwrap();
            user.name.push('+');
            if n == 31 {
                user.email = "taken".into();
            }
            Ok::<_, Error>(user)
        });
        update.await.map(|_| n)
    });
    let others = (0..16).map(|n| async move {
        let own = format!("other{n}");
        let update = storage.update("users", own.clone(), |_: Option<User>| User {
            name: String::new(),
            email: own.clone(),
        });
        update.await.map(|_| ())
    });
    let (hot, others) = tokio::join!(join_all(hot), join_all(others));
    for (n, result) in hot.into_iter().enumerate() {
        let kind = result.err().as_ref().and_then(UpdateError::kind);
        let refused = (n == 31).then_some(ErrorKind::Constraint);
        assert_eq!(kind, refused, "update {n}");
    }
    for result in others {
        result.unwrap();
    }
    let stored = storage.load::<User>("users", "hot").await.unwrap();
    assert_eq!((stored.name.len(), &*stored.email), (63, "free"));
    let key = DocumentKey::new("users", "hot");
    let log = check_log(storage.backend().as_ref(), &key).await;
    assert_eq!(log.entries.len(), 64);
}
