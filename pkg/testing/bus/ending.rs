use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::support::{fail, grouped, interleaved, must, publish};
use super::{Harness, Recorder, Verdict, eventually};
use crate::bus::{EventBus, EventBusExt, Subscription, SubscriptionHandle, SubscriptionState};
use crate::error::{Error, ErrorKind};
use crate::event::Event;

/// A subscription in the middle of its work: 30 events published, one in its handler.
async fn at_work(
    bus: &Arc<dyn EventBus>,
) -> (SubscriptionHandle, Recorder, Arc<Semaphore>, Vec<Event>) {
    let seen = Recorder::new();
    let gate = Arc::new(Semaphore::new(0));
    let (recorder, turnstile) = (seen.clone(), Arc::clone(&gate));
    let handle = must(
        bus.subscribe(
            grouped(bus, "worker", Subscription::to_all()),
            move |event: Event| {
                let (recorder, turnstile) = (recorder.clone(), Arc::clone(&turnstile));
                async move {
                    turnstile.acquire().await?.forget();
                    tokio::time::sleep(Duration::from_micros(100)).await;
                    recorder.record(event);
                    Ok::<_, tokio::sync::AcquireError>(())
                }
            },
        )
        .await,
    );
    let events = interleaved(3, 10);
    publish(bus, &events).await;
    (handle, seen, gate, events)
}

/// The only member handles everything that was delivered before it ends, and nothing later.
pub async fn unsubscribing_drains_and_ends(harness: impl Harness) -> Verdict {
    let bus = harness().await;
    let (handle, seen, gate, events) = at_work(&bus).await;
    let ending = tokio::spawn({
        let handle = handle.clone();
        async move { handle.unsubscribe().await }
    });
    eventually("it drains", || async {
        handle.state() == SubscriptionState::Draining
    })
    .await;
    gate.add_permits(events.len() * 2);
    must(must(ending.await));
    seen.wait_for_exactly(&events).await;
    assert_eq!(handle.state(), SubscriptionState::Closed);
    publish(&bus, &interleaved(3, 11)[30..]).await;
    must(handle.unsubscribe().await);
    must(bus.close().await);
    assert_eq!(seen.len(), events.len());
    Verdict::Passed
}

/// The same for the whole bus.
pub async fn closing_drains_and_ends(harness: impl Harness) -> Verdict {
    let bus = harness().await;
    let (handle, seen, gate, events) = at_work(&bus).await;
    let closing = tokio::spawn({
        let bus = Arc::clone(&bus);
        async move { bus.close().await }
    });
    eventually("it drains", || async {
        handle.state() == SubscriptionState::Draining
    })
    .await;
    gate.add_permits(events.len());
    must(must(closing.await));
    assert_eq!(handle.state(), SubscriptionState::Closed);
    seen.wait_for_exactly(&events).await;
    must(bus.close().await);
    Verdict::Passed
}

/// After closing, publishing and subscribing fail with `Closed`.
pub async fn a_closed_bus_says_so(harness: impl Harness) -> Verdict {
    let bus = harness().await;
    must(bus.close().await);
    match bus.publish(&interleaved(1, 1)).await {
        Ok(()) => fail("published on a closed bus"),
        Err(error) => {
            assert!(!error.is_poison());
            assert_eq!(error.confirmed(), 0);
            assert_eq!(Error::from(error).kind(), ErrorKind::Closed);
        }
    }
    match bus
        .subscribe(Subscription::to_all(), |_: Event| async {})
        .await
    {
        Ok(_) => fail("subscribed to a closed bus"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Closed),
    }
    Verdict::Passed
}
