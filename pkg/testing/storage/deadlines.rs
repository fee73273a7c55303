//! What a caller is told whose deadline passes, and what becomes of the others.

use std::sync::Arc;
use std::time::Duration;

use crate::document::DocumentKey;
use crate::error::ErrorKind;
use crate::storage::{RetryPolicy, Storage, UpdateOptions};
use crate::testing::support::{Counter, eventually, on_backend};
use crate::testing::{FaultyBackend, TestStore, check_log};

async fn holding(store: &dyn TestStore) -> (Storage, Arc<FaultyBackend>) {
    let backend = FaultyBackend::new(store.backend().await.unwrap());
    let storage = on_backend(backend.clone(), |builder| builder).await;
    // Opened before anything is held.
    storage.find::<Counter>("counters", "nobody").await.unwrap();
    backend.hold_answers(true);
    (storage, backend)
}

fn until(deadline: Duration) -> UpdateOptions {
    UpdateOptions::new().with_retry(RetryPolicy::default().with_deadline(deadline))
}

async fn increment(storage: Storage, deadline: Duration) -> crate::Result<u64> {
    let increment = storage.update_with("counters", "c", until(deadline), |counter, _| {
        Counter::incremented(counter)
    });
    Ok(increment.await?.version().get())
}

const PATIENT: Duration = Duration::from_secs(60);

/// While a commit of the document is under way, an update waits in the queue. At its deadline it is taken
/// out, told `Timeout`, and never written; what was built on its result is decided again.
pub async fn a_deadline_in_the_queue_is_a_timeout_and_writes_nothing(store: &dyn TestStore) {
    let (storage, backend) = holding(store).await;
    let first = tokio::spawn(increment(storage.clone(), PATIENT));
    eventually("the first commit is under way", async || {
        backend.commits() == 1
    })
    .await;
    let second = tokio::spawn(increment(storage.clone(), Duration::from_millis(200)));
    eventually("the second update is queued", async || {
        storage.commit_statistics().queued == 1
    })
    .await;
    let third = tokio::spawn(increment(storage.clone(), PATIENT));
    eventually("the third update is queued", async || {
        storage.commit_statistics().queued == 2
    })
    .await;
    let error = second.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
    backend.hold_answers(false);
    assert_eq!(first.await.unwrap().unwrap(), 1);
    assert_eq!(third.await.unwrap().unwrap(), 2);
    assert_log(&storage, &[1, 2]).await;
}

/// At the deadline of an update whose commit is under way nobody knows the outcome: `CommitUnknown`. The
/// document's other updates wait for it, and go on from what it wrote.
pub async fn a_deadline_during_the_commit_is_commit_unknown(store: &dyn TestStore) {
    let (storage, backend) = holding(store).await;
    // Long enough for the commit itself on a busy server: only its answer is held.
    let first = tokio::spawn(increment(storage.clone(), Duration::from_secs(3)));
    eventually("the first commit is under way", async || {
        backend.commits() == 1
    })
    .await;
    let second = tokio::spawn(increment(storage.clone(), PATIENT));
    let error = first.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CommitUnknown, "{error:?}");
    assert!(!second.is_finished());
    backend.hold_answers(false);
    assert_eq!(second.await.unwrap().unwrap(), 2);
    assert_log(&storage, &[1, 2]).await;
}

async fn assert_log(storage: &Storage, versions: &[u64]) {
    let key = DocumentKey::new("counters", "c");
    let log = check_log(storage.backend().as_ref(), &key).await;
    assert_eq!(log.versions(), versions);
    let counter = storage.load::<Counter>("counters", "c").await.unwrap();
    assert_eq!(counter.value, versions.len() as i64);
}
