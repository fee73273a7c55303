//! Subscriptions with checkpoints.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::TryStreamExt;
use tokio::sync::Notify;

use crate::document::DocumentKey;
use crate::error::{BoxError, ErrorKind};
use crate::event::Event;
use crate::history::{LogSubscription, LogSubscriptionHandle, LogSubscriptionState};
use crate::storage::Storage;
use crate::storage::backend::{Backend, Cursor, LeaseRequest, LogEntry, TailFrom, TailItem};
use crate::testing::support::{Counter, kind_of, on_backend, open};
use crate::testing::{Fault, FaultyBackend, TestStore, eventually};

/// What a handler saw: document and version.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<(DocumentKey, u64)>>>);

impl Seen {
    fn push(&self, event: &Event) {
        let seen = (event.document().clone(), event.version().get());
        self.0.lock().unwrap().push(seen);
    }

    fn versions(&self) -> Vec<u64> {
        let seen = self.0.lock().unwrap();
        seen.iter().map(|(_, version)| *version).collect()
    }

    async fn until(&self, versions: &[u64]) {
        eventually("the versions are handled", || async {
            self.versions().len() >= versions.len()
        })
        .await;
        assert_eq!(self.versions(), versions);
    }
}

fn subscribe(
    storage: &Storage,
    name: &str,
    options: LogSubscription,
) -> (LogSubscriptionHandle, Seen) {
    let seen = Seen::default();
    let handler = {
        let seen = seen.clone();
        move |event: Event| {
            seen.push(&event);
            async { Ok::<_, BoxError>(()) }
        }
    };
    let subscription = storage.subscribe(name, options, handler).unwrap();
    (subscription, seen)
}

async fn increment(storage: &Storage, times: u64) {
    for _ in 0..times {
        storage
            .update("counters", "c", Counter::incremented)
            .await
            .unwrap();
    }
}

/// A checkpoint that is stored by shutting down alone.
fn rarely_saved() -> LogSubscription {
    LogSubscription::new().with_checkpoints(usize::MAX, Duration::from_secs(3_600))
}

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
        seen.until(&expected).await;
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

/// Of two subscriptions with one name one works; when it ends, or its handle is dropped, the other goes
/// on behind it.
pub async fn subscriptions_of_one_name_take_turns(store: &dyn TestStore) {
    let storage = open(store).await;
    increment(&storage, 2).await;
    let (first, seen_first) = subscribe(&storage, "s", LogSubscription::new());
    seen_first.until(&[1, 2]).await;
    let (second, seen_second) = subscribe(&storage, "s", LogSubscription::new());
    let mut states = second.state_changes();
    let waits =
        |state: &LogSubscriptionState| matches!(state, LogSubscriptionState::WaitingForLease);
    states.wait_for(waits).await.unwrap();
    first.shutdown().await;
    second.started().await.unwrap();
    increment(&storage, 1).await;
    seen_second.until(&[3]).await;
    let (third, seen_third) = subscribe(&storage, "s", LogSubscription::new());
    drop(second);
    third.started().await.unwrap();
    increment(&storage, 1).await;
    seen_third.until(&[4]).await;
    third.shutdown().await;
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
    seen.until(&[2]).await;
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

/// An owner whose lease ended and was granted to another is refused: its checkpoint, its renewal under
/// the old fence, and its release have no effect.
pub async fn a_stale_checkpoint_owner_is_refused(store: &dyn TestStore) {
    use futures_util::StreamExt;

    let storage = open(store).await;
    increment(&storage, 2).await;
    let backend = storage.backend();
    let mut cursors: Vec<Cursor> = Vec::new();
    let mut tail = backend.tail(TailFrom::Beginning);
    while cursors.len() < 2 {
        if let TailItem::Entry { cursor, .. } = tail.next().await.unwrap().unwrap() {
            cursors.push(cursor);
        }
    }
    let request = |owner: &str, millis: u64| LeaseRequest {
        name: "subscription/s".into(),
        owner: owner.into(),
        ttl: Duration::from_millis(millis),
    };
    let stale = backend.acquire_lease(&request("a", 20)).await.unwrap();
    assert_eq!(stale.checkpoint, None);
    let fresh: Mutex<Option<crate::storage::backend::Lease>> = Mutex::default();
    eventually("the lease ends", || async {
        let granted = backend.acquire_lease(&request("b", 60_000)).await;
        *fresh.lock().unwrap() = granted.ok();
        fresh.lock().unwrap().is_some()
    })
    .await;
    let fresh = fresh.into_inner().unwrap().unwrap();
    assert!(fresh.fence.number > stale.fence.number);
    let ttl = Duration::from_secs(60);
    backend
        .save_checkpoint(&fresh.fence, &cursors[0], ttl)
        .await
        .unwrap();
    let refused = backend
        .save_checkpoint(&stale.fence, &cursors[1], ttl)
        .await;
    assert_eq!(kind_of(refused), ErrorKind::InUse);
    let refused = backend.acquire_lease(&request("a", 20)).await;
    assert_eq!(kind_of(refused), ErrorKind::InUse);
    backend.release_lease(&stale.fence).await.unwrap();
    let renewed = backend.acquire_lease(&request("b", 60_000)).await.unwrap();
    assert_eq!(renewed.fence, fresh.fence);
    assert_eq!(renewed.checkpoint.as_ref(), Some(&cursors[0]));
    backend.release_lease(&fresh.fence).await.unwrap();

    let (next, seen) = subscribe(&storage, "s", LogSubscription::new());
    seen.until(&[2]).await;
    next.shutdown().await;
}

/// A storage whose backend fails when told to.
async fn open_faulty(store: &dyn TestStore) -> (Storage, Arc<FaultyBackend>) {
    let faulty = FaultyBackend::new(store.backend().await.unwrap());
    let backend: Arc<dyn Backend> = Arc::<FaultyBackend>::clone(&faulty);
    (on_backend(backend, |builder| builder).await, faulty)
}

/// Outages of the log and of the checkpoint are waited out, and nothing is left out or repeated.
pub async fn a_subscription_waits_outages_out(store: &dyn TestStore) {
    let (storage, faulty) = open_faulty(store).await;
    increment(&storage, 2).await;
    faulty.fail_with([
        Fault::Lease(ErrorKind::Unavailable),
        Fault::Tail(ErrorKind::Timeout),
    ]);
    let often = LogSubscription::new().with_checkpoints(1, Duration::ZERO);
    let (subscription, seen) = subscribe(&storage, "s", often.clone());
    seen.until(&[1, 2]).await;
    faulty.fail_with([
        Fault::Tail(ErrorKind::Unavailable),
        Fault::Tail(ErrorKind::Unavailable),
        Fault::Lease(ErrorKind::Unavailable),
    ]);
    increment(&storage, 3).await;
    seen.until(&[1, 2, 3, 4, 5]).await;
    eventually("the faults have come up", || async {
        faulty.faults_left() == 0
    })
    .await;
    subscription.shutdown().await;
    increment(&storage, 1).await;
    let (next, seen) = subscribe(&storage, "s", often);
    seen.until(&[6]).await;
    next.shutdown().await;
}

/// A subscription whose checkpoint is refused, as that of an owner that was paused past its lease, lines
/// up again and continues at the stored checkpoint: it repeats at most, and in order.
pub async fn a_subscription_that_lost_its_lease_continues(store: &dyn TestStore) {
    let (storage, faulty) = open_faulty(store).await;
    increment(&storage, 2).await;
    let few = LogSubscription::new().with_checkpoints(3, Duration::from_secs(3_600));
    let (subscription, seen) = subscribe(&storage, "s", few);
    seen.until(&[1, 2]).await;
    subscription.started().await.unwrap();
    faulty.fail_with([Fault::Lease(ErrorKind::InUse)]);
    increment(&storage, 6).await;
    eventually("the newest is handled", || async {
        seen.versions().contains(&8)
    })
    .await;
    subscription.shutdown().await;
    assert_eq!(faulty.faults_left(), 0);
    let versions = seen.versions();
    let mut newest = 0;
    for version in &versions {
        assert!(*version <= newest + 1, "{versions:?}");
        newest = newest.max(*version);
    }
    assert!(versions.len() > 8, "{versions:?}");
}

/// What trying again does not mend ends a subscription, with its reason, and a stream.
pub async fn damage_ends_subscriptions_and_streams(store: &dyn TestStore) {
    let (storage, faulty) = open_faulty(store).await;
    increment(&storage, 1).await;
    faulty.fail_with([Fault::Tail(ErrorKind::Corrupt)]);
    let (subscription, seen) = subscribe(&storage, "s", LogSubscription::new());
    let mut states = subscription.state_changes();
    let stopped = states.wait_for(|state| matches!(state, LogSubscriptionState::Stopped(_)));
    assert_eq!(
        stopped.await.unwrap().error().unwrap().kind(),
        ErrorKind::Corrupt
    );
    assert!(seen.versions().is_empty());
    let handled = subscription
        .handled(crate::storage::backend::Position::new(1, 1))
        .await;
    assert_eq!(kind_of(handled), ErrorKind::Corrupt);

    faulty.fail_with([
        Fault::Tail(ErrorKind::Unavailable),
        Fault::Tail(ErrorKind::Corrupt),
    ]);
    let mut log = storage.log(TailFrom::Beginning);
    assert_eq!(kind_of(log.try_next().await), ErrorKind::Corrupt);
    assert!(log.try_next().await.unwrap().is_none());
    // The lease was given up: nobody waits for its end.
    let (next, seen) = subscribe(&storage, "s", LogSubscription::new());
    seen.until(&[1]).await;
    next.shutdown().await;
}
