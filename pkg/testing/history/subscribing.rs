//! Subscriptions with checkpoints.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;

use super::seen::{Seen, increment, rarely_saved, subscribe};
use crate::error::{BoxError, ErrorKind};
use crate::event::Event;
use crate::history::{LogSubscription, LogSubscriptionState};
use crate::storage::backend::{LogEntry, TailFrom};
use crate::testing::support::{kind_of, open};
use crate::testing::{TestStore, eventually};

/// Without a checkpoint a subscription begins where it is told to: at the beginning, or now, which is
/// not before the call and not after it has started.
pub async fn a_subscription_begins_at_the_beginning_or_now(store: &dyn TestStore) {
    let storage = open(store).await;
    increment(&storage, 3).await;
    let (all, seen_all) = subscribe(&storage, "all", LogSubscription::new());
    let from_now = LogSubscription::new().with_start(TailFrom::Now);
    let (new, seen_new) = subscribe(&storage, "new", from_now);
    new.started().await.unwrap();
    increment(&storage, 2).await;
    seen_all.until(&[1, 2, 3, 4, 5]).await;
    seen_new.until(&[4, 5]).await;
    assert!(matches!(all.state(), LogSubscriptionState::Following));
    let newest = storage.history("counters", "c");
    let newest = newest.versions(Default::default()).await.unwrap();
    all.handled(newest.items[4].position).await.unwrap();
    all.shutdown().await;
    new.shutdown().await;
    assert_eq!(kind_of(all.started().await), ErrorKind::Closed);
}

/// A subscription that was shut down continues behind what it handled, wherever it was told to begin;
/// what was committed in between comes.
pub async fn a_subscription_continues_at_its_checkpoint(store: &dyn TestStore) {
    let storage = open(store).await;
    increment(&storage, 3).await;
    let (first, seen) = subscribe(&storage, "s", rarely_saved());
    seen.until(&[1, 2, 3]).await;
    first.shutdown().await;
    for (start, expected) in [(TailFrom::Now, [4, 5, 6]), (TailFrom::Beginning, [7, 8, 9])] {
        increment(&storage, 2).await;
        let (next, seen) = subscribe(&storage, "s", rarely_saved().with_start(start));
        next.started().await.unwrap();
        increment(&storage, 1).await;
        seen.until_at_least(&expected).await;
        next.shutdown().await;
    }
}

/// While a subscription catches up and writers write, it handles every event once, per document in
/// version order.
pub async fn a_subscription_keeps_up_with_writers(store: &dyn TestStore) {
    const WRITERS: usize = 4;
    const EACH: u64 = 50;

    let storage = open(store).await;
    increment(&storage, 20).await;
    let often = LogSubscription::new().with_checkpoints(7, Duration::from_millis(1));
    let (subscription, seen) = subscribe(&storage, "s", often);
    let writing: Vec<_> = (0..WRITERS)
        .map(|_| {
            let storage = storage.clone();
            tokio::spawn(async move { increment(&storage, EACH).await })
        })
        .collect();
    for writer in writing {
        writer.await.unwrap();
    }
    let total = 20 + WRITERS as u64 * EACH;
    seen.until(&(1..=total).collect::<Vec<_>>()).await;
    subscription.shutdown().await;
}

/// An event whose handler fails or panics comes again until it is handled; later ones wait, earlier
/// ones of the same version are not repeated, and the state says what is wrong.
pub async fn a_failing_handler_is_called_again(store: &dyn TestStore) {
    let storage = open(store).await;
    increment(&storage, 3).await;
    let seen = Seen::default();
    let attempts = Arc::new(AtomicUsize::new(0));
    let mended = Arc::new(Notify::new());
    let handler = {
        let (seen, attempts, mended) = (seen.clone(), Arc::clone(&attempts), Arc::clone(&mended));
        move |event: Event| {
            let (seen, attempts, mended) =
                (seen.clone(), Arc::clone(&attempts), Arc::clone(&mended));
            async move {
                if event.version() == 2 {
                    match attempts.fetch_add(1, Ordering::SeqCst) {
                        0 => return Err("no mail today"),
                        1 => panic!("at the mailbox"),
                        2 => return Err("no mail this week"),
                        _ => mended.notified().await,
                    }
                }
                seen.push(&event);
                Ok(())
            }
        }
    };
    let patient =
        LogSubscription::new().with_retry(Duration::from_millis(1), Duration::from_millis(5));
    let subscription = storage.subscribe("mailer", patient, handler).unwrap();
    let mut states = subscription.state_changes();
    let state = states
        .wait_for(|state| matches!(state, LogSubscriptionState::Retrying { attempts: 3, .. }));
    let state = state.await.unwrap().clone();
    let error = state.error().unwrap();
    assert_eq!(error.kind(), ErrorKind::RetriesExhausted { attempts: 3 });
    let message = error.to_string();
    assert!(message.contains("version 2 of counters/c"), "{message}");
    let source = std::error::Error::source(error).unwrap().to_string();
    assert_eq!(source, "no mail this week");
    assert_eq!(seen.versions(), [1]);
    mended.notify_one();
    seen.until(&[1, 2, 3]).await;
    eventually("the state is mended", || async {
        matches!(subscription.state(), LogSubscriptionState::Following)
    })
    .await;
    subscription.shutdown().await;
}

/// Shutting down waits for the handler, and does not wait for ever: what was not handled comes again.
pub async fn shutting_down_waits_for_the_handler(store: &dyn TestStore) {
    let storage = open(store).await;
    increment(&storage, 2).await;
    let begun = Arc::new(Notify::new());
    let finish = Arc::new(Notify::new());
    let seen = Seen::default();
    let handler = {
        let (begun, finish, seen) = (Arc::clone(&begun), Arc::clone(&finish), seen.clone());
        move |event: Event| {
            let (begun, finish, seen) = (Arc::clone(&begun), Arc::clone(&finish), seen.clone());
            async move {
                begun.notify_one();
                finish.notified().await;
                seen.push(&event);
                Ok::<_, BoxError>(())
            }
        }
    };
    let slow = storage
        .subscribe("s", rarely_saved(), handler.clone())
        .unwrap();
    begun.notified().await;
    let ending = async {
        // The shutdown is under way by the time the handler may finish.
        tokio::task::yield_now().await;
        finish.notify_one();
    };
    tokio::join!(slow.shutdown(), ending);
    assert_eq!(seen.versions(), [1]);

    let hasty = rarely_saved().with_drain_timeout(Duration::from_millis(1));
    let stuck = storage.subscribe("s", hasty, handler).unwrap();
    begun.notified().await;
    stuck.shutdown().await;
    assert_eq!(seen.versions(), [1]);
    let (rest, seen) = subscribe(&storage, "s", rarely_saved());
    seen.until_at_least(&[2]).await;
    rest.shutdown().await;
}

/// Whole entries come too: those without events, and deletions.
pub async fn entries_can_be_subscribed_to(store: &dyn TestStore) {
    let storage = open(store).await;
    increment(&storage, 1).await;
    storage.delete("counters", "c").await.unwrap();
    let seen: Arc<Mutex<Vec<LogEntry>>> = Arc::default();
    let handler = {
        let seen = Arc::clone(&seen);
        move |entry: LogEntry| {
            seen.lock().unwrap().push(entry);
            async { Ok::<_, BoxError>(()) }
        }
    };
    let options = LogSubscription::new();
    let subscription = storage.subscribe_entries("s", options, handler).unwrap();
    eventually("both entries are handled", || async {
        seen.lock().unwrap().len() == 2
    })
    .await;
    let kinds: Vec<_> = seen
        .lock()
        .unwrap()
        .iter()
        .map(|entry| entry.kind.as_str())
        .collect();
    assert_eq!(kinds, ["created", "deleted"]);
    subscription.shutdown().await;
}

/// The end of the storage ends its subscriptions, visibly; bad names and options are refused at once.
pub async fn subscriptions_end_with_their_storage(store: &dyn TestStore) {
    let storage = open(store).await;
    let handler = |_: Event| async { Ok::<_, BoxError>(()) };
    let bad = storage.subscribe("", LogSubscription::new(), handler);
    assert_eq!(kind_of(bad), ErrorKind::InvalidName);
    let no_lease = LogSubscription::new().with_lease_ttl(Duration::ZERO);
    let bad = storage.subscribe("s", no_lease, handler);
    assert_eq!(kind_of(bad), ErrorKind::InvalidConfig);
    let subscription = storage
        .subscribe("s", LogSubscription::new(), handler)
        .unwrap();
    subscription.started().await.unwrap();
    storage.close().await;
    let mut states = subscription.state_changes();
    let stopped = states.wait_for(|state| matches!(state, LogSubscriptionState::Stopped(_)));
    assert_eq!(
        stopped.await.unwrap().error().unwrap().kind(),
        ErrorKind::Closed
    );
    let late = storage.subscribe("s", LogSubscription::new(), handler);
    assert_eq!(kind_of(late), ErrorKind::Closed);
}
