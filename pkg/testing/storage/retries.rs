//! What happens when the store does not answer, or others are faster.

use std::sync::Arc;
use std::time::Duration;

use crate::document::DocumentKey;
use crate::error::{Error, ErrorKind};
use crate::event::NewEvent;
use crate::storage::{RetryPolicy, Storage, UpdateOptions};
use crate::testing::support::{Counter, User, load_raw, on_backend, open};
use crate::testing::{Fault, FaultyBackend, TestStore, check_log};

/// Pauses that a test can wait for.
fn quick() -> RetryPolicy {
    RetryPolicy::default()
        .with_delays(Duration::from_millis(1), Duration::from_millis(2))
        .with_conflict_delays(Duration::from_micros(10), Duration::from_millis(1))
}

async fn faulty(store: &dyn TestStore) -> (Storage, Arc<FaultyBackend>) {
    let backend = FaultyBackend::new(store.backend().await.unwrap());
    let storage = on_backend(backend.clone(), |builder| builder.retry(quick())).await;
    // Opened before anything goes wrong.
    storage.find::<User>("users", "nobody").await.unwrap();
    (storage, backend)
}

async fn assert_nothing_written(storage: &Storage, key: &DocumentKey) {
    assert_eq!(load_raw(storage, key).await, None);
    assert!(
        check_log(storage.backend().as_ref(), key)
            .await
            .entries
            .is_empty()
    );
}

/// An outage that ends within the attempts is not seen by the caller: the call succeeds and counts once.
pub async fn a_short_outage_is_survived(store: &dyn TestStore) {
    let (storage, faults) = faulty(store).await;
    use ErrorKind::{Timeout, Unavailable};
    faults.fail_with([Fault::Load(Unavailable), Fault::Load(Timeout)]);
    let change = storage
        .update("counters", "c", Counter::incremented)
        .await
        .unwrap();
    assert_eq!(change.version(), 1);
    faults.fail_with([Fault::Failed(Unavailable), Fault::Failed(Timeout)]);
    let mut runs = 0;
    let change = storage.update("counters", "c", |counter| {
        runs += 1;
        Counter::incremented(counter)
    });
    assert_eq!(
        change.await.unwrap().after().unwrap(),
        Some(Counter { value: 2 })
    );
    assert_eq!((runs, faults.faults_left()), (3, 0));
    let log = check_log(
        storage.backend().as_ref(),
        &DocumentKey::new("counters", "c"),
    )
    .await;
    assert_eq!(log.versions(), [1, 2]);
}

/// An outage that outlasts the attempts ends in `RetriesExhausted` with their number and the last
/// failure as its source, and nothing is written, wherever it struck.
pub async fn a_long_outage_exhausts_the_attempts(store: &dyn TestStore) {
    let (storage, faults) = faulty(store).await;
    let key = DocumentKey::new("users", "u1");
    for fault in [
        Fault::Load(ErrorKind::Unavailable),
        Fault::Failed(ErrorKind::Unavailable),
    ] {
        faults.fail_with([fault; 3]);
        let error = storage
            .update("users", "u1", |_| User::new("Ann"))
            .await
            .unwrap_err();
        assert_eq!(
            error.kind(),
            ErrorKind::RetriesExhausted { attempts: 3 },
            "{error:?}"
        );
        assert!(error.is_retryable());
        let source = std::error::Error::source(&error).expect("the last failure");
        let source = source.downcast_ref::<Error>().expect("one of ours");
        assert_eq!(source.kind(), ErrorKind::Unavailable);
        assert_eq!(faults.faults_left(), 0);
        assert_nothing_written(&storage, &key).await;
    }
    faults.fail_with([Fault::Failed(ErrorKind::Unavailable); 2]);
    let options = UpdateOptions::new().with_retry(quick().with_attempts(2));
    let error = storage
        .update_with("users", "u1", options, |_, _| User::new("Ann"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RetriesExhausted { attempts: 2 });
    storage
        .update("users", "u1", |_| User::new("Ann"))
        .await
        .unwrap();
}

/// The same for transactions and appends.
pub async fn transactions_and_appends_retry_too(store: &dyn TestStore) {
    let (storage, faults) = faulty(store).await;
    let both = |storage: Storage| async move {
        let write = storage.transaction(|tx| async move {
            tx.update("users", "u1", |_| User::new("Ann")).await?;
            tx.update("users", "u2", |_| User::new("Bob")).await
        });
        write.await.map_err(crate::UpdateError::flatten)
    };
    let append = |storage: Storage| async move {
        let event = NewEvent::new("Counted", 1)?;
        storage
            .append("stream", vec![event], UpdateOptions::new())
            .await
    };
    let unavailable = Fault::Failed(ErrorKind::Unavailable);
    faults.fail_with([unavailable, Fault::Conflict, unavailable, unavailable]);
    let error = both(storage.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RetriesExhausted { attempts: 4 });
    for id in ["u1", "u2"] {
        assert_nothing_written(&storage, &DocumentKey::new("users", id)).await;
    }
    faults.fail_with([unavailable, Fault::Conflict]);
    both(storage.clone()).await.unwrap();

    faults.fail_with([unavailable; 3]);
    let error = append(storage.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RetriesExhausted { attempts: 3 });
    faults.fail_with([unavailable, Fault::Conflict]);
    assert_eq!(append(storage.clone()).await.unwrap().version(), 1);
    assert_eq!(storage.read("stream", ..).await.unwrap().len(), 1);
}

/// Conflicts are tried again many times, each run on a fresh document; only a writer that always loses
/// gives up, with `RetriesExhausted` and its attempts.
pub async fn a_writer_that_always_loses_gives_up(store: &dyn TestStore) {
    let (storage, faults) = faulty(store).await;
    faults.fail_with([Fault::Conflict; 20]);
    let change = storage
        .update("counters", "c", Counter::incremented)
        .await
        .unwrap();
    assert_eq!(change.after().unwrap(), Some(Counter { value: 1 }));

    faults.fail_with([Fault::Conflict; 4]);
    let options = UpdateOptions::new().with_retry(quick().with_conflict_attempts(4));
    let mut attempts = Vec::new();
    let lost = storage.update_with("counters", "c", options, |counter, context| {
        attempts.push(context.attempt());
        Counter::incremented(counter)
    });
    let error = lost.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RetriesExhausted { attempts: 4 });
    assert_eq!(attempts, [1, 2, 3, 4]);
    let log = check_log(
        storage.backend().as_ref(),
        &DocumentKey::new("counters", "c"),
    )
    .await;
    assert_eq!(log.versions(), [1]);
}

/// Failures that trying again cannot mend come back at once as they are, and nothing is written.
pub async fn final_failures_are_not_retried(store: &dyn TestStore) {
    let (storage, faults) = faulty(store).await;
    let key = DocumentKey::new("users", "u1");
    let finals = [
        (Fault::Refused(ErrorKind::Constraint), ErrorKind::Constraint),
        (Fault::Refused(ErrorKind::TooLarge), ErrorKind::TooLarge),
        (
            Fault::Failed(ErrorKind::StorageFull),
            ErrorKind::StorageFull,
        ),
        (Fault::Failed(ErrorKind::Corrupt), ErrorKind::Corrupt),
        (Fault::Failed(ErrorKind::Closed), ErrorKind::Closed),
        (Fault::Load(ErrorKind::Corrupt), ErrorKind::Corrupt),
        (Fault::UnknownUnwritten, ErrorKind::CommitUnknown),
    ];
    for (fault, kind) in finals {
        faults.fail_with([fault]);
        let commits = faults.commits();
        let mut runs = 0;
        let update = storage.update("users", "u1", |_| {
            runs += 1;
            User::new("Ann")
        });
        let error = update.await.unwrap_err();
        assert_eq!(error.kind(), kind, "{fault:?}");
        assert!(runs <= 1 && faults.commits() <= commits + 1, "{fault:?}");
        assert_nothing_written(&storage, &key).await;
    }
    let change = storage
        .update("users", "u1", |_| User::new("Ann"))
        .await
        .unwrap();
    assert_eq!(change.version(), 1);
}

/// A commit whose outcome is unknown is `CommitUnknown` and never tried again, so that what may have
/// happened does not happen twice.
pub async fn an_unknown_commit_is_not_repeated(store: &dyn TestStore) {
    let (storage, faults) = faulty(store).await;
    faults.fail_with([Fault::UnknownWritten]);
    let error = storage
        .update("counters", "c", Counter::incremented)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CommitUnknown);
    assert!(!error.is_retryable());
    let counter = storage.load::<Counter>("counters", "c").await.unwrap();
    assert_eq!((counter.value, counter.version().get()), (1, 1));
    faults.fail_with([Fault::UnknownWritten]);
    let event = NewEvent::new("Counted", 1).unwrap();
    let append = storage
        .append("stream", vec![event], UpdateOptions::new())
        .await;
    assert_eq!(append.unwrap_err().kind(), ErrorKind::CommitUnknown);
    assert_eq!(storage.read("stream", ..).await.unwrap().len(), 1);
    storage
        .update("counters", "c", Counter::incremented)
        .await
        .unwrap();
    check_log(
        storage.backend().as_ref(),
        &DocumentKey::new("counters", "c"),
    )
    .await;
}

/// A call gives up at its deadline although attempts are left.
pub async fn the_deadline_ends_the_attempts(store: &dyn TestStore) {
    let (storage, faults) = faulty(store).await;
    faults.fail_with([Fault::Conflict; 1_000]);
    let policy = quick()
        .with_conflict_attempts(100_000)
        .with_deadline(Duration::from_millis(50));
    let options = UpdateOptions::new().with_retry(policy);
    let late = storage.update_with("users", "u1", options, |_, _| User::new("Ann"));
    let error = late.await.unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::RetriesExhausted { attempts } if attempts < 1_000),
        "{error:?}"
    );
}

/// A second storage sees what the first one wrote as soon as the
/// call has returned.
pub async fn another_storage_sees_what_was_acknowledged(store: &dyn TestStore) {
    let (one, other) = (open(store).await, open(store).await);
    for round in 1..=20 {
        one.update("counters", "c", Counter::incremented)
            .await
            .unwrap();
        let seen = other.load::<Counter>("counters", "c").await.unwrap();
        assert_eq!(seen.value, round);
    }
}
