use std::sync::Arc;

use tokio::sync::Semaphore;

use super::support::{NO_GROUPS, assert_same_order, fail, interleaved, must, publish};
use super::{Harness, Recorder, Verdict, eventually};
use crate::bus::{EventBusExt, Subscription, SubscriptionState};
use crate::error::ErrorKind;
use crate::event::Event;

/// Two groups of three members, and a broadcast: everyone gets everything, each group once.
pub async fn each_event_reaches_one_member_of_each_group(harness: impl Harness) -> Verdict {
    let bus = harness().await;
    if !bus.capabilities().groups {
        return NO_GROUPS;
    }
    let recorders: Vec<_> = (0..3).map(|_| Recorder::new()).collect();
    for (group, members) in [(Some("a"), 3), (Some("b"), 3), (None, 1)] {
        let recorder = &recorders[match group {
            Some("a") => 0,
            Some(_) => 1,
            None => 2,
        }];
        for _ in 0..members {
            let mut subscription = Subscription::to_all().with_workers(2);
            if let Some(group) = group {
                subscription = subscription.with_group(group);
            }
            let recorder = recorder.clone();
            must(
                bus.subscribe(subscription, move |event: Event| {
                    let recorder = recorder.clone();
                    async move {
                        tokio::task::yield_now().await;
                        recorder.record(event);
                    }
                })
                .await,
            );
        }
    }
    let events = interleaved(10, 20);
    publish(&bus, &events).await;
    for recorder in &recorders {
        recorder.wait_for_exactly(&events).await;
    }
    must(bus.close().await);
    for recorder in &recorders {
        assert_same_order(&recorder.events(), &events);
    }
    Verdict::Passed
}

/// A second member with another filter would silently miss or steal events.
pub async fn members_of_a_group_ask_for_the_same(harness: impl Harness) -> Verdict {
    let bus = harness().await;
    if !bus.capabilities().groups {
        return NO_GROUPS;
    }
    let first = Subscription::to("UserCreated").with_group("g");
    must(bus.subscribe(first.clone(), |_: Event| async {}).await);
    let other = Subscription::to("UserDeleted").with_group("g");
    match bus.subscribe(other, |_: Event| async {}).await {
        Ok(_) => fail("accepted a member with another filter"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::InvalidConfig),
    }
    // How many workers it has is a member's own business.
    must(
        bus.subscribe(first.with_workers(4), |_: Event| async {})
            .await,
    );
    Verdict::Passed
}

/// A member dies in the middle of its work: a second one, there or joining later, does the rest in order.
pub async fn an_aborted_member_hands_over_in_order(harness: impl Harness) -> Verdict {
    for joins_late in [false, true] {
        let bus = harness().await;
        if !bus.capabilities().groups {
            return NO_GROUPS;
        }
        let (seen, started) = (Recorder::new(), Recorder::new());
        let subscription = Subscription::to_all().with_group("g").with_workers(3);
        let begun = started.clone();
        let mortal = must(
            bus.subscribe(subscription.clone(), move |event: Event| {
                begun.record(event);
                std::future::pending::<()>()
            })
            .await,
        );
        let join = || {
            let recorder = seen.clone();
            bus.subscribe(subscription.clone(), move |event: Event| {
                recorder.record(event);
                async {}
            })
        };
        let events = interleaved(8, 10);
        publish(&bus, &events[..40]).await;
        started.wait_for(3).await;
        if !joins_late {
            must(join().await);
        }
        mortal.abort();
        if joins_late {
            must(join().await);
        }
        publish(&bus, &events[40..]).await;
        seen.wait_for_exactly(&events).await;
        assert_eq!(mortal.state(), SubscriptionState::Closed);
    }
    Verdict::Passed
}

/// A member that leaves finishes what it has in work and handles nothing more; the rest of the group does.
pub async fn an_unsubscribed_member_finishes_its_work_and_leaves_the_rest(
    harness: impl Harness,
) -> Verdict {
    let bus = harness().await;
    if !bus.capabilities().groups {
        return NO_GROUPS;
    }
    let (first, second) = (Recorder::new(), Recorder::new());
    let gate = Arc::new(Semaphore::new(0));
    let subscription = Subscription::to_all().with_group("g");
    let join = |recorder: &Recorder| {
        let (recorder, gate) = (recorder.clone(), Arc::clone(&gate));
        bus.subscribe(subscription.clone(), move |event: Event| {
            let (recorder, gate) = (recorder.clone(), Arc::clone(&gate));
            async move {
                recorder.record(event);
                gate.acquire().await?.forget();
                Ok::<_, tokio::sync::AcquireError>(())
            }
        })
    };
    let leaving = must(join(&first).await);
    let events = interleaved(6, 5);
    publish(&bus, &events).await;
    first.wait_for(1).await;
    must(join(&second).await);
    let ending = tokio::spawn({
        let leaving = leaving.clone();
        async move { leaving.unsubscribe().await }
    });
    eventually("the member stops taking events", || async {
        leaving.state() == SubscriptionState::Draining
    })
    .await;
    gate.add_permits(events.len());
    must(must(ending.await));
    let handled = first.len();
    assert_eq!(leaving.state(), SubscriptionState::Closed);
    eventually("the rest is handled", || async {
        first.len() + second.len() == events.len()
    })
    .await;
    assert_eq!(first.len(), handled, "nothing after unsubscribe returned");
    let all = [first.events(), second.events()].concat();
    assert_same_order(&all, &events);
    Verdict::Passed
}
