use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::support::{NO_GROUPS, assert_same_order, grouped, interleaved, must, publish, quick};
use super::{Harness, Recorder, Verdict, eventually, sample_event};
use crate::bus::{EventBusExt, RedeliveryPolicy, Subscription};
use crate::event::{Event, EventId};

/// Counts attempts per event.
#[derive(Debug, Clone, Default)]
struct Attempts(Arc<Mutex<HashMap<EventId, u32>>>);

impl Attempts {
    /// The number of this attempt, from 1.
    fn next(&self, event: &Event) -> u32 {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(event.id()).or_default();
        *count += 1;
        *count
    }
}

async fn order_under_redelivery(harness: impl Harness, members: usize, workers: usize) -> Verdict {
    let bus = harness().await;
    if members > 1 && !bus.capabilities().groups {
        return NO_GROUPS;
    }
    let (seen, attempts) = (Recorder::new(), Attempts::default());
    for _ in 0..members {
        let (recorder, attempts) = (seen.clone(), attempts.clone());
        let subscription = Subscription::to_all()
            .with_workers(workers)
            .with_retry(quick(5));
        let subscription = grouped(&bus, "retried", subscription);
        must(
            bus.subscribe(subscription, move |event: Event| {
                let (recorder, attempts) = (recorder.clone(), attempts.clone());
                async move {
                    let attempt = attempts.next(&event);
                    tokio::task::yield_now().await;
                    // Every third event fails once or twice.
                    let number = event.version().get() + event.document().to_string().len() as u64;
                    if number.is_multiple_of(3) && u64::from(attempt) <= number % 2 + 1 {
                        return Err(format!("attempt {attempt}"));
                    }
                    recorder.record(event);
                    Ok(())
                }
            })
            .await,
        );
    }
    let events = interleaved(25, 20);
    publish(&bus, &events).await;
    seen.wait_for(events.len()).await;
    assert_same_order(&seen.events(), &events);
    Verdict::Passed
}

/// A failing event makes the later ones of its document wait.
pub async fn order_under_redelivery_with_one_worker(harness: impl Harness) -> Verdict {
    order_under_redelivery(harness, 1, 1).await
}

/// The same when another worker could take the later event.
pub async fn order_under_redelivery_with_eight_workers(harness: impl Harness) -> Verdict {
    order_under_redelivery(harness, 1, 8).await
}

/// The same when another member could take the later event.
pub async fn order_under_redelivery_with_three_members(harness: impl Harness) -> Verdict {
    order_under_redelivery(harness, 3, 4).await
}

/// While one document's event is being retried, the events of all others go through, even with a single
/// worker.
pub async fn a_failing_document_holds_back_only_itself(harness: impl Harness) -> Verdict {
    let bus = harness().await;
    let (seen, attempts) = (Recorder::new(), Attempts::default());
    let recorder = seen.clone();
    let retry = RedeliveryPolicy::new()
        .with_attempts(2)
        .with_delays(Duration::from_millis(400), Duration::from_secs(1))
        .with_jitter(false);
    must(
        bus.subscribe(
            Subscription::to_all().with_retry(retry),
            move |event: Event| {
                let failing = event.aggregate_id().to_string() == "u0" && event.version() == 1;
                let fails = failing && attempts.next(&event) == 1;
                if !fails {
                    recorder.record(event);
                }
                async move { if fails { Err("not yet") } else { Ok(()) } }
            },
        )
        .await,
    );
    let events = interleaved(5, 4);
    publish(&bus, &events).await;
    seen.wait_for(events.len()).await;
    let seen = seen.events();
    assert_same_order(&seen, &events);
    let first_of_failing = seen
        .iter()
        .position(|event| event.aggregate_id().to_string() == "u0");
    assert_eq!(first_of_failing, Some(4 * 4), "others went first");
    Verdict::Passed
}

/// The waits between attempts are at least those of the policy.
pub async fn an_error_is_retried_after_a_backoff(harness: impl Harness) -> Verdict {
    let bus = harness().await;
    let times = Arc::new(Mutex::new(Vec::new()));
    let recorder = Arc::clone(&times);
    let base = Duration::from_millis(40);
    let retry = RedeliveryPolicy::new()
        .with_attempts(3)
        .with_delays(base, base * 10)
        .with_jitter(false);
    let subscription = grouped(&bus, "patient", Subscription::to_all().with_retry(retry));
    must(
        bus.subscribe(subscription, move |_: Event| {
            let mut times = recorder.lock().unwrap_or_else(PoisonError::into_inner);
            times.push(Instant::now());
            let attempt = times.len();
            async move { if attempt < 3 { Err("not yet") } else { Ok(()) } }
        })
        .await,
    );
    publish(&bus, &[sample_event("UserCreated", "u", 1)]).await;
    let count = || times.lock().unwrap_or_else(PoisonError::into_inner).len();
    eventually("three attempts", || async { count() >= 3 }).await;
    let times = times.lock().unwrap_or_else(PoisonError::into_inner).clone();
    assert!(times[1] - times[0] >= base, "{times:?}");
    assert!(times[2] - times[1] >= base * 2, "{times:?}");
    Verdict::Passed
}

/// The letter has the event, the last error and the number of attempts; the document's next event gets
/// its turn.
pub async fn the_last_failure_goes_to_the_dead_letters(harness: impl Harness) -> Verdict {
    let bus = harness().await;
    let (seen, attempts) = (Recorder::new(), Attempts::default());
    let recorder = seen.clone();
    let subscription = grouped(&bus, "dead", Subscription::to_all().with_retry(quick(3)));
    let handle = must(
        bus.subscribe(subscription, move |event: Event| {
            let result = if event.version() == 2 {
                Err(format!("failure {}", attempts.next(&event)))
            } else {
                recorder.record(event);
                Ok(())
            };
            async move { result }
        })
        .await,
    );
    let events = interleaved(1, 3);
    publish(&bus, &events).await;
    seen.wait_for_exactly(&[events[0].clone(), events[2].clone()])
        .await;
    let letters = must(handle.dead_letters(10).await);
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].event(), Some(&events[1]));
    assert_eq!(letters[0].attempts, 3);
    assert!(
        letters[0].error.contains("failure 3"),
        "{}",
        letters[0].error
    );
    Verdict::Passed
}

/// A redriven letter has all its attempts again, and is gone when it succeeds.
pub async fn a_dead_letter_is_redriven(harness: impl Harness) -> Verdict {
    let bus = harness().await;
    let (seen, attempts) = (Recorder::new(), Attempts::default());
    let recorder = seen.clone();
    let subscription = grouped(
        &bus,
        "redriven",
        Subscription::to_all().with_retry(quick(2)),
    );
    let handle = must(
        bus.subscribe(subscription, move |event: Event| {
            // Fails for good twice: the second time after the first redrive.
            let fails = attempts.next(&event) <= 4;
            if !fails {
                recorder.record(event);
            }
            async move { if fails { Err("no") } else { Ok(()) } }
        })
        .await,
    );
    let event = sample_event("UserCreated", "u", 1);
    publish(&bus, std::slice::from_ref(&event)).await;
    for _ in 0..2 {
        eventually("the event is given up", || async {
            must(handle.dead_letters(10).await).len() == 1
        })
        .await;
        assert!(seen.is_empty());
        let unknown: EventId = uuid::Uuid::from_u128(3).into();
        assert_eq!(must(handle.redrive(&[event.id(), unknown]).await), 1);
    }
    seen.wait_for_exactly(&[event]).await;
    assert!(must(handle.dead_letters(10).await).is_empty());
    Verdict::Passed
}

/// A discarded letter never comes again.
pub async fn a_dead_letter_is_discarded(harness: impl Harness) -> Verdict {
    let bus = harness().await;
    let subscription = grouped(
        &bus,
        "discarded",
        Subscription::to_all().with_retry(quick(1)),
    );
    let handle = must(
        bus.subscribe(subscription, |_: Event| async { Err::<(), _>("no") })
            .await,
    );
    let events = interleaved(2, 1);
    publish(&bus, &events).await;
    eventually("both are given up", || async {
        must(handle.dead_letters(10).await).len() == 2
    })
    .await;
    assert_eq!(must(handle.dead_letters(1).await).len(), 1);
    assert_eq!(must(handle.discard(&[events[0].id()]).await), 1);
    assert_eq!(must(handle.redrive(&[events[0].id()]).await), 0);
    let letters = must(handle.dead_letters(10).await);
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].event(), Some(&events[1]));
    Verdict::Passed
}

/// A panic while the future is made, polled or dropped takes the way of an error, and the worker lives on.
pub async fn a_panic_is_a_handler_error(harness: impl Harness) -> Verdict {
    struct PanicsOnDrop(bool);
    impl Drop for PanicsOnDrop {
        #[allow(clippy::panic)]
        fn drop(&mut self) {
            if self.0 {
                panic!("panic on drop");
            }
        }
    }

    let bus = harness().await;
    let (seen, attempts) = (Recorder::new(), Attempts::default());
    let recorder = seen.clone();
    let subscription = grouped(&bus, "panics", Subscription::to_all().with_retry(quick(2)));
    let handle = must(
        bus.subscribe(subscription, move |event: Event| {
            let kind = event.event_type().to_owned();
            let first = attempts.next(&event) == 1;
            assert!(kind != "PanicsAtCall" || !first, "panic at call");
            let guard = PanicsOnDrop(kind == "PanicsOnDrop" && first);
            let recorder = recorder.clone();
            async move {
                tokio::task::yield_now().await;
                assert!(kind != "PanicsAtPoll" || !first, "panic at poll");
                assert!(kind != "PanicsAlways", "panic for good");
                drop(guard);
                recorder.record(event);
            }
        })
        .await,
    );
    let events: Vec<_> = [
        "PanicsAtCall",
        "PanicsAtPoll",
        "PanicsOnDrop",
        "PanicsAlways",
        "Fine",
    ]
    .into_iter()
    .enumerate()
    .map(|(n, kind)| sample_event(kind, &format!("u{n}"), 1))
    .collect();
    publish(&bus, &events).await;
    eventually("the hopeless one is given up", || async {
        must(handle.dead_letters(10).await).len() == 1
    })
    .await;
    let letters = must(handle.dead_letters(10).await);
    assert_eq!(letters[0].event(), Some(&events[3]));
    assert!(
        letters[0].error.contains("panic for good"),
        "{}",
        letters[0].error
    );
    let mut fine = events;
    fine.remove(3);
    seen.wait_for_exactly(&fine).await;
    Verdict::Passed
}
