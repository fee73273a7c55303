use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::support::{NO_GROUPS, assert_same_order, fail, interleaved, must, publish, quick};
use super::{Harness, Recorder, Verdict, eventually, sample_event};
use crate::bus::{EventBus, EventBusExt, Subscription, SubscriptionHandle, SubscriptionState};
use crate::error::{Error, ErrorKind};
use crate::event::Event;

/// What a bus is reported not to be where it forgets groups without members.
const NO_DURABLE_GROUPS: Verdict = Verdict::NotApplicable("able to keep groups without members");

async fn recording(
    bus: &Arc<dyn EventBus>,
    subscription: Subscription,
    seen: &Recorder,
) -> SubscriptionHandle {
    let recorder = seen.clone();
    must(
        bus.subscribe(subscription, move |event: Event| {
            recorder.record(event);
            async {}
        })
        .await,
    )
}

/// All members have left; what is published meanwhile waits for the next one.
pub async fn a_group_collects_while_nobody_is_there(harness: impl Harness) -> Verdict {
    let bus = harness().await;
    if !bus.capabilities().durable_groups {
        return NO_DURABLE_GROUPS;
    }
    let subscription = Subscription::to_all().with_group("patient");
    let seen = Recorder::new();
    let handle = recording(&bus, subscription.clone(), &seen).await;
    must(handle.unsubscribe().await);
    let events = interleaved(5, 20);
    publish(&bus, &events).await;
    assert!(seen.is_empty());
    recording(&bus, subscription, &seen).await;
    seen.wait_for_exactly(&events).await;
    Verdict::Passed
}

/// A member that leaves in good order has acknowledged what it handled.
pub async fn what_was_handled_is_not_handled_again(harness: impl Harness) -> Verdict {
    let bus = harness().await;
    if !bus.capabilities().durable_groups {
        return NO_DURABLE_GROUPS;
    }
    let subscription = Subscription::to_all().with_group("once").with_workers(3);
    let events = interleaved(6, 30);
    let all = Recorder::new();
    for part in events.chunks(60) {
        let seen = Recorder::new();
        let handle = recording(&bus, subscription.clone(), &seen).await;
        publish(&bus, part).await;
        seen.wait_for_exactly(part).await;
        must(handle.unsubscribe().await);
        for event in seen.events() {
            all.record(event);
        }
    }
    assert_same_order(&all.events(), &events);
    Verdict::Passed
}

/// The letters are the group's: its next member lists and redrives what the one before gave up.
pub async fn dead_letters_outlive_their_member(harness: impl Harness) -> Verdict {
    let bus = harness().await;
    if !bus.capabilities().durable_groups {
        return NO_DURABLE_GROUPS;
    }
    let subscription = Subscription::to_all()
        .with_group("heirs")
        .with_retry(quick(2));
    let handle = must(
        bus.subscribe(subscription.clone(), |_: Event| async {
            Err::<(), _>("never")
        })
        .await,
    );
    let events = interleaved(3, 1);
    publish(&bus, &events).await;
    eventually("all are given up", || async {
        must(handle.dead_letters(10).await).len() == events.len()
    })
    .await;
    must(handle.unsubscribe().await);
    let seen = Recorder::new();
    let handle = recording(&bus, subscription, &seen).await;
    let ids: Vec<_> = must(handle.dead_letters(10).await)
        .iter()
        .map(|letter| letter.id)
        .collect();
    assert_eq!(must(handle.redrive(&ids).await), events.len());
    seen.wait_for_exactly(&events).await;
    assert!(must(handle.dead_letters(10).await).is_empty());
    Verdict::Passed
}

/// No event is dropped for want of room among the dead letters: everything waits, says so, and goes on
/// when there is room.
pub async fn full_dead_letters_stall_the_subscription(harness: impl Harness) -> Verdict {
    let bus = harness().await;
    let seen = Recorder::new();
    let recorder = seen.clone();
    let subscription = Subscription::to_all()
        .with_retry(quick(1))
        .with_max_dead_letters(2);
    let handle = must(
        bus.subscribe(subscription, move |event: Event| {
            let fails = event.event_type() == "Hopeless";
            if !fails {
                recorder.record(event);
            }
            async move { if fails { Err("no") } else { Ok(()) } }
        })
        .await,
    );
    let hopeless: Vec<_> = (0..3)
        .map(|n| sample_event("Hopeless", &format!("u{n}"), 1))
        .collect();
    publish(&bus, &hopeless).await;
    let stalled = || matches!(handle.state(), SubscriptionState::Stalled { .. });
    eventually("the subscription stalls", || async { stalled() }).await;
    let letters = must(handle.dead_letters(10).await);
    assert_eq!(letters.len(), 2);
    let fine = sample_event("Fine", "fine", 1);
    publish(&bus, std::slice::from_ref(&fine)).await;
    assert!(stalled());
    assert!(seen.is_empty());
    assert_eq!(must(handle.discard(&[letters[0].id]).await), 1);
    seen.wait_for_exactly(&[fine]).await;
    eventually("the third lies there as well", || async {
        must(handle.dead_letters(10).await).len() == 2
    })
    .await;
    assert_eq!(handle.state(), SubscriptionState::Running);
    Verdict::Passed
}

/// Members join, leave and die while events flow and handlers fail: each document's events are first
/// seen in order, and all of them.
pub async fn members_come_and_go_and_nothing_is_lost(harness: impl Harness) -> Verdict {
    let bus = harness().await;
    if !bus.capabilities().groups {
        return NO_GROUPS;
    }
    let seen = Recorder::new();
    let subscription = Subscription::to_all()
        .with_group("crowd")
        .with_workers(3)
        .with_retry(quick(1_000));
    let calls = Arc::new(AtomicU64::new(0));
    let join = || {
        let (recorder, calls) = (seen.clone(), Arc::clone(&calls));
        bus.subscribe(subscription.clone(), move |event: Event| {
            let (recorder, call) = (recorder.clone(), calls.fetch_add(1, Ordering::Relaxed));
            async move {
                tokio::task::yield_now().await;
                if call % 5 == 0 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                if call % 7 == 3 {
                    return Err("not now");
                }
                recorder.record(event);
                Ok(())
            }
        })
    };
    let stays = must(join().await);
    let events = interleaved(12, 60);
    let publishing = tokio::spawn({
        let (bus, events) = (Arc::clone(&bus), events.clone());
        async move {
            for batch in events.chunks(16) {
                publish(&bus, batch).await;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    });
    let mut round = 0;
    while !publishing.is_finished() {
        let member = must(join().await);
        tokio::time::sleep(Duration::from_millis(40)).await;
        round += 1;
        if round % 2 == 0 {
            member.abort();
        } else {
            must(member.unsubscribe().await);
        }
    }
    must(publishing.await);
    let firsts = || {
        let mut known = HashMap::new();
        let mut firsts = seen.events();
        firsts.retain(|event| known.insert(event.id(), ()).is_none());
        firsts
    };
    eventually("everything arrives", || async {
        firsts().len() == events.len()
    })
    .await;
    must(stays.unsubscribe().await);
    assert_same_order(&firsts(), &events);
    Verdict::Passed
}

/// The events before it are published, the bus says which one cannot be, and lives on.
pub async fn an_event_that_is_too_large_is_poison(harness: impl Harness) -> Verdict {
    let bus = harness().await;
    let Some(max) = bus.capabilities().max_event_bytes else {
        return Verdict::NotApplicable("limited in the size of events");
    };
    let seen = Recorder::new();
    recording(&bus, Subscription::to_all(), &seen).await;
    let mut events = interleaved(1, 3);
    let mut parts = events[1].clone().into_parts();
    parts.data = "x".repeat(max).into();
    events[1] = Event::from_parts(parts);
    match bus.publish(&events).await {
        Ok(()) => fail("published an event that is too large"),
        Err(error) => {
            assert!(error.is_poison());
            assert_eq!(error.confirmed(), 1);
            assert_eq!(Error::from(error).kind(), ErrorKind::TooLarge);
        }
    }
    publish(&bus, &events[2..]).await;
    seen.wait_for_exactly(&[events[0].clone(), events[2].clone()])
        .await;
    Verdict::Passed
}

/// A bus that cannot share events between processes does not pretend to.
pub async fn a_bus_without_groups_refuses_them(harness: impl Harness) -> Verdict {
    let bus = harness().await;
    let subscription = Subscription::to_all().with_group("g");
    let result = bus.subscribe(subscription, |_: Event| async {}).await;
    if bus.capabilities().groups {
        must(result);
    } else {
        let kind = result.err().map(|error| error.kind());
        assert_eq!(kind, Some(ErrorKind::Unsupported));
    }
    Verdict::Passed
}
