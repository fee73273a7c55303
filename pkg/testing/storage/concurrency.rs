//! Many writers, dropped writers, and closures that misbehave.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use futures_util::future::join_all;
use tokio::task::JoinHandle;

use crate::document::DocumentKey;
use crate::storage::{Storage, UpdateOptions};
use crate::testing::support::{Counter, User, open};
use crate::testing::{TestStore, check_log};

/// Starts tasks that each increment one counter so many times.
fn incrementing(storage: &Storage, tasks: usize, times: usize) -> Vec<JoinHandle<()>> {
    (0..tasks)
        .map(|_| {
            let counters = storage.collection::<Counter>("counters");
            tokio::spawn(async move {
                for _ in 0..times {
                    counters.update("c", Counter::incremented).await.unwrap();
                }
            })
        })
        .collect()
}

async fn assert_counted(storage: &Storage, total: u64) {
    let stored = storage.load::<Counter>("counters", "c").await.unwrap();
    assert_eq!(
        (stored.value as u64, stored.version().get()),
        (total, total)
    );
    let key = DocumentKey::new("counters", "c");
    let log = check_log(storage.backend().as_ref(), &key).await;
    assert_eq!(log.entries.len() as u64, total);
}

/// 64 tasks that increment one document 100 times each: value 6,400, version 6,400, 6,400 log entries,
/// no gap.
pub async fn many_tasks_increment_one_document(store: &dyn TestStore) {
    let storage = open(store).await;
    for task in incrementing(&storage, 64, 100) {
        task.await.unwrap();
    }
    assert_counted(&storage, 6_400).await;
}

/// Several storages on one store, which know nothing of each other, lose no update of one document.
pub async fn several_storages_increment_one_document(store: &dyn TestStore) {
    let storages = [open(store).await, open(store).await, open(store).await];
    let tasks = storages
        .iter()
        .flat_map(|storage| incrementing(storage, 4, 10));
    for result in join_all(tasks).await {
        result.unwrap();
    }
    assert_counted(&storages[0], 120).await;
}

/// Two clients with 32 tasks each, 100 increments per task: value 6,400, version 6,400, 6,400 log
/// entries, no gap.
pub async fn two_clients_increment_one_document(store: &dyn TestStore) {
    let (one, other) = (open(store).await, open(store).await);
    let mut tasks = incrementing(&one, 32, 100);
    tasks.extend(incrementing(&other, 32, 100));
    for result in join_all(tasks).await {
        result.unwrap();
    }
    assert_counted(&one, 6_400).await;
    assert_counted(&other, 6_400).await;
}

/// Updates of many documents at once do not disturb each other.
pub async fn many_documents_are_updated_at_once(store: &dyn TestStore) {
    let storage = open(store).await;
    let tasks = (0..64).map(|id| {
        let counters = storage.collection::<Counter>("counters");
        tokio::spawn(async move {
            for _ in 0..5 {
                counters.update(id, Counter::incremented).await.unwrap();
            }
        })
    });
    for result in join_all(tasks).await {
        result.unwrap();
    }
    for id in 0..64 {
        let log = check_log(
            storage.backend().as_ref(),
            &DocumentKey::new("counters", id),
        )
        .await;
        assert_eq!(log.entries.len(), 5);
    }
}

/// Creating and deleting one document from many tasks keeps one numbering and a log that replays.
pub async fn racing_creations_and_deletions_keep_one_numbering(store: &dyn TestStore) {
    let (one, other) = (open(store).await, open(store).await);
    let tasks = (0..8).map(|task| {
        let storage = if task % 2 == 0 {
            one.clone()
        } else {
            other.clone()
        };
        tokio::spawn(async move {
            for round in 0..10 {
                if (task + round) % 3 == 0 {
                    storage.delete("counters", "c").await.unwrap();
                } else {
                    storage
                        .update("counters", "c", Counter::incremented)
                        .await
                        .unwrap();
                }
            }
        })
    });
    for result in join_all(tasks).await {
        result.unwrap();
    }
    check_log(one.backend().as_ref(), &DocumentKey::new("counters", "c")).await;
}

/// Polls a future this many times, with the wake-ups that it asks for, and drops it; its output if it
/// was done before.
async fn poll_and_drop<F: Future>(future: F, times: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut polls = 0;
    std::future::poll_fn(|context| {
        if polls == times {
            return Poll::Ready(None);
        }
        polls += 1;
        match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if polls == times => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Dropping an update's future at any await leaves the document usable and the log consistent: the
/// update happened or it did not.
pub async fn an_update_dropped_at_any_await_happened_or_did_not(store: &dyn TestStore) {
    let storage = open(store).await;
    let counters = storage.collection::<Counter>("counters");
    let mut finished = 0;
    let mut polls = 0;
    // Until the update is done before it is dropped, with polls to spare.
    while finished < 3 {
        let update = counters.update("c", Counter::incremented);
        let done = poll_and_drop(update, polls).await;
        finished += usize::from(done.is_some());
        // The next one waits for a commit that is still under way.
        let before = counters.update("c", Counter::incremented).await.unwrap();
        let value = before.after().unwrap().unwrap().value;
        assert_eq!(before.version().get() as i64, value, "after {polls} polls");
        polls += 1;
        assert!(polls < 1_000, "an update takes no thousand polls");
    }
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

/// The same for transactions and appends.
pub async fn a_dropped_transaction_or_append_happened_or_did_not(store: &dyn TestStore) {
    let storage = open(store).await;
    let (mut finished, mut polls) = (0, 0);
    while finished < 3 {
        let transfer = storage.transaction(|tx| async move {
            tx.update("counters", "a", Counter::incremented).await?;
            tx.update("counters", "b", Counter::incremented).await?;
            Ok::<_, crate::Error>(())
        });
        let done = poll_and_drop(transfer, polls).await.is_some();
        let event = crate::NewEvent::new("Counted", 1).unwrap();
        let append = storage.append("stream", vec![event.clone()], UpdateOptions::new());
        let appended = poll_and_drop(append, polls).await.is_some();
        finished += usize::from(done && appended);
        polls += 1;
        assert!(polls < 1_000, "a transaction takes no thousand polls");
    }
    storage
        .transaction(|tx| async move {
            tx.update("counters", "a", Counter::incremented).await?;
            tx.update("counters", "b", Counter::incremented).await?;
            Ok::<_, crate::Error>(())
        })
        .await
        .unwrap();
    let event = crate::NewEvent::new("Counted", 1).unwrap();
    let last = storage
        .append("stream", vec![event], UpdateOptions::new())
        .await
        .unwrap();
    let backend = storage.backend().as_ref();
    let a = check_log(backend, &DocumentKey::new("counters", "a")).await;
    let b = check_log(backend, &DocumentKey::new("counters", "b")).await;
    assert_eq!(a.versions(), b.versions());
    let events = storage.read("stream", ..).await.unwrap();
    assert_eq!(events.len() as u64, last.version().get());
}

/// An update whose future is polled for a while and then never again, as the loser of a `select!` that
/// is kept, holds up nobody: other updates of the document finish, whatever await it stopped at.
pub async fn an_update_never_polled_again_holds_up_nobody(store: &dyn TestStore) {
    let storage = open(store).await;
    let counters = storage.collection::<Counter>("counters");
    let mut held = Vec::new();
    let mut expected = 0;
    for polls in 1..=6 {
        let mut update = Box::pin(counters.update("c", Counter::incremented));
        let done = poll_and_drop(update.as_mut(), polls).await;
        expected += i64::from(done.is_some());
        if done.is_none() {
            held.push(update);
        }
        for result in join_all((0..4).map(|_| counters.update("c", Counter::incremented))).await {
            result.unwrap();
        }
        expected += 4;
    }
    let value = counters.load("c").await.unwrap().value;
    // A held update may have sent its commit off before it stopped.
    assert!(
        (expected..=expected + held.len() as i64).contains(&value),
        "{value}"
    );
    drop(held);
    counters.update("c", Counter::incremented).await.unwrap();
    check_log(
        storage.backend().as_ref(),
        &DocumentKey::new("counters", "c"),
    )
    .await;
}

/// The same with more of them than a client has connections, stopped at their first awaits.
pub async fn many_updates_never_polled_again_hold_up_nobody(store: &dyn TestStore) {
    let storage = open(store).await;
    let counters = storage.collection::<Counter>("counters");
    counters.update(-1, Counter::incremented).await.unwrap();
    let mut held = Vec::new();
    for id in 0..48 {
        let mut update = Box::pin(counters.update(id, Counter::incremented));
        if poll_and_drop(update.as_mut(), 1).await.is_none() {
            held.push(update);
        }
    }
    counters.update(-1, Counter::incremented).await.unwrap();
    for id in 0..4 {
        counters.update(id, Counter::incremented).await.unwrap();
    }
    drop(held);
    for id in -1..4 {
        check_log(
            storage.backend().as_ref(),
            &DocumentKey::new("counters", id),
        )
        .await;
    }
}

/// A closure that panics writes nothing and leaves everything usable, alone and in a transaction.
pub async fn a_panicking_closure_leaves_everything_usable(store: &dyn TestStore) {
    let storage = open(store).await;
    storage
        .update("users", "u1", |_| User::new("Ann"))
        .await
        .unwrap();
    let runs = Arc::new(AtomicUsize::new(0));
    for _ in 0..3 {
        let (storage, runs) = (storage.clone(), Arc::clone(&runs));
        let update = tokio::spawn(async move {
            let run = |_| -> User {
                runs.fetch_add(1, Ordering::SeqCst);
                panic!("part of the case: the closure panics")
            };
            storage.update("users", "u1", run).await.map(|_| ())
        });
        assert!(update.await.unwrap_err().is_panic());
    }
    assert_eq!(runs.load(Ordering::SeqCst), 3);
    let in_transaction = tokio::spawn({
        let storage = storage.clone();
        async move {
            let run = |tx: crate::Transaction| async move {
                tx.update("users", "u2", |_| User::new("Bob")).await?;
                tx.update("users", "u1", |_| -> User {
                    panic!("part of the case: the closure panics")
                })
                .await?;
                Ok::<_, crate::Error>(())
            };
            storage.transaction(run).await.is_ok()
        }
    });
    assert!(in_transaction.await.unwrap_err().is_panic());
    assert!(storage.find::<User>("users", "u2").await.unwrap().is_none());
    let change = storage.update("users", "u1", |user: Option<User>| User {
        email: "ann@example.com".into(),
        ..user.unwrap()
    });
    assert_eq!(change.await.unwrap().version(), 2);
    check_log(storage.backend().as_ref(), &DocumentKey::new("users", "u1")).await;
}
