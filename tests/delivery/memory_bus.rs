//! What only the bus in memory promises, and attacks on it. The common promises are in the conformance
//! suite (`testing::bus`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout};

use async_trait::async_trait;
use nodestorage::bus::memory::MemoryBusOptions;
use nodestorage::bus::{
    EventBus, EventBusExt, EventHandler, MemoryBus, RedeliveryPolicy, Subscription,
    SubscriptionHandle, SubscriptionState,
};
use nodestorage::error::BoxError;
use nodestorage::testing::bus::{Recorder, sample_event};
use nodestorage::{ErrorKind, Event};

fn event(id: &str, version: u64) -> Event {
    sample_event("UserUpdated", id, version)
}

fn events(id: &str, versions: std::ops::RangeInclusive<u64>) -> Vec<Event> {
    versions.map(|version| event(id, version)).collect()
}

async fn record_all(bus: &MemoryBus, subscription: Subscription) -> (SubscriptionHandle, Recorder) {
    let seen = Recorder::new();
    let recorder = seen.clone();
    let handle = bus
        .subscribe(subscription, move |event: Event| {
            recorder.record(event);
            async {}
        })
        .await
        .unwrap();
    (handle, seen)
}

/// A subscriber whose handler never returns.
async fn stuck(bus: &MemoryBus, subscription: Subscription) -> (SubscriptionHandle, Recorder) {
    let seen = Recorder::new();
    let recorder = seen.clone();
    let handle = bus
        .subscribe(subscription, move |event: Event| {
            recorder.record(event);
            std::future::pending::<()>()
        })
        .await
        .unwrap();
    (handle, seen)
}

/// Lets everything happen that can happen now; with paused time nothing else can.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

struct Counter(AtomicUsize);

#[async_trait]
impl EventHandler for Counter {
    async fn handle(&self, _: Event) -> Result<(), BoxError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

#[tokio::test]
async fn handlers_are_closures_and_types_and_infer() {
    let bus = MemoryBus::new();
    let (sender, mut received) = tokio::sync::mpsc::unbounded_channel::<String>();
    let to = sender.clone();
    bus.subscribe(Subscription::to("UserUpdated"), move |event: Event| {
        let to = to.clone();
        async move {
            to.send(format!("unit {}", event.version()))?;
            Ok::<_, tokio::sync::mpsc::error::SendError<String>>(())
        }
    })
    .await
    .unwrap();
    bus.subscribe(Subscription::to_all(), |event: Event| async move {
        let _ = event;
    })
    .await
    .unwrap();
    async fn named(event: Event) -> nodestorage::Result<()> {
        event.data_as::<serde_json::Value>().map(drop)
    }
    bus.subscribe(Subscription::to_all(), named).await.unwrap();
    let counter = Arc::new(Counter(AtomicUsize::new(0)));
    let shared: Arc<dyn EventBus> = Arc::new(bus.clone());
    // In a spawned task, through the trait object, with a shared handler of a type.
    let handler = Arc::clone(&counter);
    tokio::spawn(async move {
        shared
            .attach(Subscription::to_all(), handler)
            .await
            .unwrap();
        shared
            .subscribe(Subscription::matching("User*"), |event: Event| async move {
                println!("{}", event.version());
            })
            .await
            .unwrap();
    })
    .await
    .unwrap();
    bus.publish(&[event("u", 1)]).await.unwrap();
    assert_eq!(received.recv().await.unwrap(), "unit 1");
    bus.close().await.unwrap();
    assert_eq!(counter.0.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn publishing_waits_for_a_full_queue_after_handing_the_batch_to_the_others() {
    let bus = MemoryBus::new();
    let (_, fast) = record_all(&bus, Subscription::to_all()).await;
    let gate = Arc::new(Semaphore::new(0));
    let turnstile = Arc::clone(&gate);
    bus.subscribe(Subscription::to_all().with_queue(10), move |_: Event| {
        let turnstile = Arc::clone(&turnstile);
        async move { turnstile.acquire().await.map(SemaphorePermit::forget) }
    })
    .await
    .unwrap();
    let publishing = tokio::spawn({
        let bus = bus.clone();
        async move { bus.publish(&events("u", 1..=30)).await }
    });
    settle().await;
    assert_eq!(fast.len(), 30);
    assert!(!publishing.is_finished());
    gate.add_permits(19);
    settle().await;
    assert!(!publishing.is_finished());
    gate.add_permits(1);
    settle().await;
    publishing.await.unwrap().unwrap();
    gate.add_permits(10);
    bus.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_dropped_publish_leaves_a_prefix_and_repeating_it_completes_it() {
    let bus = MemoryBus::new();
    let (handle, seen) = stuck(&bus, Subscription::to_all().with_group("g").with_queue(3)).await;
    let batch = events("u", 1..=5);
    let cut_off = timeout(Duration::from_secs(1), bus.publish(&batch)).await;
    assert!(cut_off.is_err());
    assert_eq!(seen.len(), 1);
    // Aborting hands over; the new member can take what the queue held, and the repetition adds the rest.
    let subscription = Subscription::to_all().with_group("g").with_queue(3);
    handle.abort();
    let (_, seen) = record_all(&bus, subscription).await;
    bus.publish(&batch).await.unwrap();
    bus.close().await.unwrap();
    assert_eq!(seen.events(), batch);
}

#[tokio::test(start_paused = true)]
async fn full_dead_letters_stall_the_subscription_until_there_is_room() {
    let bus = MemoryBus::new();
    let seen = Recorder::new();
    let recorder = seen.clone();
    let subscription = Subscription::to_all()
        .with_queue(4)
        .with_max_dead_letters(2)
        .with_retry(
            // Without chance the three fail in the order they were published.
            RedeliveryPolicy::new().with_attempts(2).with_jitter(false),
        );
    let handle = bus
        .subscribe(subscription, move |event: Event| {
            let fails = event.event_type() == "Bad";
            if !fails {
                recorder.record(event);
            }
            async move { if fails { Err("bad") } else { Ok(()) } }
        })
        .await
        .unwrap();
    let bad: Vec<_> = (0..3)
        .map(|n| sample_event("Bad", &format!("b{n}"), 1))
        .collect();
    bus.publish(&bad).await.unwrap();
    let mut state = handle.state_changes();
    state
        .wait_for(|state| matches!(state, SubscriptionState::Stalled { .. }))
        .await
        .unwrap();
    assert_eq!(handle.dead_letters(10).await.unwrap().len(), 2);

    // Events wait while there is room, then publishing says why it cannot go on.
    let good = events("u", 1..=5);
    let error = bus.publish(&good).await.unwrap_err();
    assert_eq!(error.confirmed(), 3);
    assert_eq!(error.error().kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("dead letters"), "{error}");
    assert!(seen.is_empty());

    assert_eq!(handle.discard(&[bad[0].id()]).await.unwrap(), 1);
    bus.publish(&good).await.unwrap();
    bus.close().await.unwrap();
    assert_eq!(seen.events(), good);
    let letters = handle.dead_letters(10).await.unwrap();
    let ids: Vec<_> = letters.iter().map(|letter| letter.id).collect();
    assert_eq!(ids.len(), 2);
    assert!(ids.contains(&bad[1].id()) && ids.contains(&bad[2].id()));
    let late = handle.redrive(&ids).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_never_returns_holds_up_the_end_until_the_deadline() {
    let options = MemoryBusOptions::new().with_drain_timeout(Duration::from_secs(3));
    let bus = MemoryBus::with_options(options);
    let (handle, seen) = stuck(&bus, Subscription::to_all()).await;
    let (_, other) = record_all(&bus, Subscription::to_all()).await;
    bus.publish(&events("u", 1..=3)).await.unwrap();
    settle().await;
    assert_eq!(seen.len(), 1);
    let begin = Instant::now();
    let error = bus.close().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("3 events"), "{error}");
    assert_eq!(begin.elapsed(), Duration::from_secs(3));
    assert_eq!(handle.state(), SubscriptionState::Closed);
    assert_eq!(other.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_close_or_unsubscribe_can_be_called_again() {
    let bus = MemoryBus::new();
    let gate = Arc::new(Semaphore::new(0));
    let turnstile = Arc::clone(&gate);
    let seen = Recorder::new();
    let recorder = seen.clone();
    let handle = bus
        .subscribe(Subscription::to_all(), move |event: Event| {
            let (turnstile, recorder) = (Arc::clone(&turnstile), recorder.clone());
            async move {
                if let Ok(permit) = turnstile.acquire().await {
                    permit.forget();
                }
                recorder.record(event);
            }
        })
        .await
        .unwrap();
    bus.publish(&events("u", 1..=3)).await.unwrap();
    for _ in 0..2 {
        assert!(
            timeout(Duration::from_secs(1), handle.unsubscribe())
                .await
                .is_err()
        );
        assert!(timeout(Duration::from_secs(1), bus.close()).await.is_err());
    }
    gate.add_permits(3);
    handle.unsubscribe().await.unwrap();
    bus.close().await.unwrap();
    assert_eq!(seen.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_group_outlives_an_aborted_last_member_but_not_for_ever() {
    let bus = MemoryBus::new();
    let subscription = Subscription::to_all().with_group("g").with_queue(3);
    let (handle, _) = stuck(&bus, subscription.clone()).await;
    let batch = events("u", 1..=4);
    bus.publish(&batch[..1]).await.unwrap();
    settle().await;
    handle.abort();
    let error = bus.publish(&batch[1..]).await.unwrap_err();
    assert_eq!(
        (error.confirmed(), error.error().kind()),
        (2, ErrorKind::Unavailable)
    );
    let (_, seen) = record_all(&bus, subscription).await;
    bus.publish(&batch[1..]).await.unwrap();
    bus.close().await.unwrap();
    assert_eq!(seen.events(), batch);
}

#[tokio::test(start_paused = true)]
async fn an_ended_group_and_an_aborted_broadcast_hold_up_nobody() {
    let bus = MemoryBus::new();
    let small = Subscription::to_all().with_queue(1);
    let (broadcast, _) = stuck(&bus, small.clone()).await;
    let (group, _) = record_all(&bus, small.with_group("g")).await;
    let publishing = tokio::spawn({
        let bus = bus.clone();
        async move { bus.publish(&events("u", 1..=10)).await }
    });
    settle().await;
    assert!(!publishing.is_finished());
    broadcast.abort();
    publishing.await.unwrap().unwrap();
    group.unsubscribe().await.unwrap();
    bus.publish(&events("v", 1..=10)).await.unwrap();
    bus.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_member_that_joins_a_draining_group_takes_it_over() {
    let bus = MemoryBus::new();
    let subscription = Subscription::to_all().with_group("g");
    let gate = Arc::new(Semaphore::new(0));
    let turnstile = Arc::clone(&gate);
    let first = Recorder::new();
    let recorder = first.clone();
    let leaving = bus
        .subscribe(subscription.clone(), move |event: Event| {
            let (turnstile, recorder) = (Arc::clone(&turnstile), recorder.clone());
            async move {
                if let Ok(permit) = turnstile.acquire().await {
                    permit.forget();
                }
                recorder.record(event);
            }
        })
        .await
        .unwrap();
    let batch = events("u", 1..=5);
    bus.publish(&batch[..4]).await.unwrap();
    let ending = tokio::spawn({
        let leaving = leaving.clone();
        async move { leaving.unsubscribe().await }
    });
    settle().await;
    let (_, second) = record_all(&bus, subscription).await;
    bus.publish(&batch[4..]).await.unwrap();
    gate.add_permits(1);
    ending.await.unwrap().unwrap();
    bus.close().await.unwrap();
    assert_eq!(first.events(), batch[..1]);
    assert_eq!(second.events(), batch[1..]);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_handle_stops_the_handlers() {
    struct Notices(tokio::sync::mpsc::UnboundedSender<()>);
    impl Drop for Notices {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }
    let (sender, mut dropped) = tokio::sync::mpsc::unbounded_channel();
    let bus = MemoryBus::new();
    let handle = bus
        .subscribe(Subscription::to_all(), move |_: Event| {
            let notices = Notices(sender.clone());
            async move {
                std::future::pending::<()>().await;
                drop(notices);
            }
        })
        .await
        .unwrap();
    bus.publish(&events("u", 1..=1)).await.unwrap();
    settle().await;
    let clone = bus.clone();
    drop(bus);
    assert!(dropped.try_recv().is_err());
    drop(clone);
    dropped.recv().await.unwrap();
    assert_eq!(handle.state(), SubscriptionState::Closed);
    handle.unsubscribe().await.unwrap();
}

#[test]
fn subscribing_without_a_runtime_is_an_error() {
    let bus = MemoryBus::new();
    let result = futures_util::FutureExt::now_or_never(
        bus.subscribe(Subscription::to_all(), |_: Event| async {}),
    );
    assert_eq!(
        result.unwrap().unwrap_err().kind(),
        ErrorKind::InvalidConfig
    );
}

/// The story: workers of two members, one of which keeps dying and coming back, handlers that fail,
/// panic and are dropped in the middle, a thousand documents, a small queue. Nothing may be lost, and
/// the first success of every version must come in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_workers_a_thousand_documents_and_every_kind_of_failure_keep_the_order() {
    const DOCUMENTS: u64 = 1_000;
    const VERSIONS: u64 = 10;
    let bus = MemoryBus::new();
    let seen = Recorder::new();
    let calls = Arc::new(AtomicUsize::new(0));
    let subscription = Subscription::to_all()
        .with_group("g")
        .with_workers(4)
        .with_queue(300)
        .with_retry(
            RedeliveryPolicy::new()
                .with_attempts(1_000)
                .with_delays(Duration::from_micros(50), Duration::from_millis(1)),
        );
    let join = || {
        let (recorder, calls) = (seen.clone(), Arc::clone(&calls));
        bus.subscribe(subscription.clone(), move |event: Event| {
            let (recorder, call) = (recorder.clone(), calls.fetch_add(1, Ordering::SeqCst));
            async move {
                if call % 5 == 0 {
                    tokio::time::sleep(Duration::from_micros(200)).await;
                } else {
                    tokio::task::yield_now().await;
                }
                match call % 7 {
                    1 => Err("fails"),
                    2 if call % 2 == 0 => std::panic::resume_unwind(Box::new("panics")),
                    _ => {
                        recorder.record(event);
                        Ok(())
                    }
                }
            }
        })
    };
    join().await.unwrap();
    let publishing = tokio::spawn({
        let bus = bus.clone();
        async move {
            for version in 1..=VERSIONS {
                let batch: Vec<_> = (0..DOCUMENTS)
                    .map(|n| event(&format!("u{n}"), version))
                    .collect();
                for chunk in batch.chunks(64) {
                    bus.publish(chunk).await.unwrap();
                }
            }
        }
    });
    while !publishing.is_finished() {
        let mortal = join().await.unwrap();
        tokio::time::sleep(Duration::from_millis(3)).await;
        mortal.abort();
    }
    publishing.await.unwrap();
    bus.close().await.unwrap();

    let mut last = std::collections::HashMap::new();
    let seen = seen.events();
    for event in &seen {
        let last = last.entry(event.document().clone()).or_insert(0);
        let version = event.version().get();
        // A handler that was dropped after its last await does not exist here, so not even repetitions.
        assert_eq!(version, *last + 1, "{}", event.document());
        *last = version;
    }
    assert_eq!(seen.len() as u64, DOCUMENTS * VERSIONS);
}
