use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::support::{interleaved, must, publish, quick};
use super::{Harness, Recorder, Verdict, eventually, sample_event};
use crate::bus::middleware::{Dedupe, Timeout, Tracing};
use crate::bus::{EventBusExt, EventHandlerExt, Middleware, Next, Subscription};
use crate::error::BoxError;
use crate::event::Event;

/// Writes down how each attempt came out.
#[derive(Debug, Clone, Default)]
struct Outcomes(Arc<Mutex<Vec<(u64, bool)>>>);

impl Outcomes {
    fn all(&self) -> Vec<(u64, bool)> {
        let outcomes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        outcomes.clone()
    }
}

#[async_trait]
impl Middleware for Outcomes {
    async fn handle(&self, event: Event, next: Next<'_>) -> Result<(), BoxError> {
        let version = event.version().get();
        let result = next.run(event).await;
        let mut outcomes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        outcomes.push((version, result.is_ok()));
        result
    }
}

/// It surrounds every attempt, successful or not, and what it returns decides about the event.
pub async fn middleware_surrounds_every_attempt(harness: impl Harness) -> Verdict {
    let bus = harness().await;
    let (seen, outcomes) = (Recorder::new(), Outcomes::default());
    let recorder = seen.clone();
    let failures = Arc::new(AtomicUsize::new(0));
    let handler = move |event: Event| {
        let fails = event.version() == 2 && failures.fetch_add(1, Ordering::SeqCst) < 2;
        if !fails {
            recorder.record(event);
        }
        async move { if fails { Err("not yet") } else { Ok(()) } }
    };
    let subscription = Subscription::to_all().with_retry(quick(5));
    let handler = handler.with(outcomes.clone()).with(Tracing::new());
    must(bus.subscribe(subscription, handler).await);
    let events = interleaved(1, 3);
    publish(&bus, &events).await;
    seen.wait_for_exactly(&events).await;
    let expected = [(1, true), (2, false), (2, false), (2, true), (3, true)];
    eventually("the last attempt is over", || async {
        outcomes.all().len() == expected.len()
    })
    .await;
    assert_eq!(outcomes.all(), expected);
    Verdict::Passed
}

/// A handler that hangs is stopped, tried again, and given up in the end; its document goes on.
pub async fn a_handler_over_its_time_has_failed(harness: impl Harness) -> Verdict {
    let bus = harness().await;
    let (seen, attempts) = (Recorder::new(), Arc::new(AtomicUsize::new(0)));
    let (recorder, counter) = (seen.clone(), Arc::clone(&attempts));
    let handler = move |event: Event| {
        let hangs = event.version() == 1;
        if hangs {
            counter.fetch_add(1, Ordering::SeqCst);
        } else {
            recorder.record(event);
        }
        async move {
            if hangs {
                std::future::pending::<()>().await;
            }
        }
    };
    let subscription = Subscription::to_all().with_retry(quick(3));
    let handler = handler.with(Timeout::after(Duration::from_millis(20)));
    let handle = must(bus.subscribe(subscription, handler).await);
    let events = interleaved(1, 2);
    publish(&bus, &events).await;
    seen.wait_for_exactly(&events[1..]).await;
    assert_eq!(attempts.load(Ordering::SeqCst), 3);
    let letters = must(handle.dead_letters(10).await);
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].attempts, 3);
    let error = &letters[0].error;
    assert!(error.contains("did not finish"), "{error}");
    Verdict::Passed
}

/// What a bus delivers twice is handled once; what failed is handled again.
pub async fn dedupe_drops_what_was_handled_before(harness: impl Harness) -> Verdict {
    let bus = harness().await;
    let (seen, attempts) = (Recorder::new(), Arc::new(AtomicUsize::new(0)));
    let (recorder, counter) = (seen.clone(), Arc::clone(&attempts));
    let handler = move |event: Event| {
        let fails = counter.fetch_add(1, Ordering::SeqCst) == 0;
        if !fails {
            recorder.record(event);
        }
        async move { if fails { Err("not yet") } else { Ok(()) } }
    };
    let subscription = Subscription::to_all().with_retry(quick(5));
    let handler = handler.with(Dedupe::remembering(100));
    must(bus.subscribe(subscription, handler).await);
    let events = interleaved(4, 10);
    publish(&bus, &events).await;
    publish(&bus, &events).await;
    let last = sample_event("UserDeleted", "last", 1);
    publish(&bus, std::slice::from_ref(&last)).await;
    seen.wait_for_exactly(&[events, vec![last]].concat()).await;
    assert_eq!(attempts.load(Ordering::SeqCst), seen.len() + 1);
    Verdict::Passed
}
