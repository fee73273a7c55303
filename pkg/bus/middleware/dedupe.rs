use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::{Middleware, Next};
use crate::bus::work::Recent;
use crate::error::BoxError;
use crate::event::Event;

/// Drops an event whose id was handled before, among the last so many: what is handled again because a
/// relay or a broker repeated it.
///
/// Only a success is remembered, so a failed handling is tried again. Memory holds ids alone, about 50
/// bytes each, and ends with the process: a handler that must not repeat anything after a restart
/// keeps the last `(version, index)` of each document beside what it writes.
///
/// Clones share what they remember, so that members of a group in one process can. Two handlings of one
/// event at the same time are not kept apart; within a group they do not happen.
///
/// A dead letter that is redriven has never succeeded, so it is handled.
#[derive(Debug, Clone)]
pub struct Dedupe {
    handled: Arc<Mutex<Recent>>,
}

impl Dedupe {
    /// Remembers the ids of the last `events` that were handled. Repetitions by a relay lie within what
    /// it publishes between two checkpoints, by default some thousand events.
    #[must_use]
    pub fn remembering(events: usize) -> Self {
        Self {
            handled: Arc::new(Mutex::new(Recent::new(events))),
        }
    }

    /// No code of others runs under this lock, so a poisoned one means nothing.
    fn handled<T>(&self, see: impl FnOnce(&mut Recent) -> T) -> T {
        see(&mut self.handled.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl Middleware for Dedupe {
    async fn handle(&self, event: Event, next: Next<'_>) -> Result<(), BoxError> {
        let id = event.id();
        if self.handled(|recent| recent.contains(id)) {
            tracing::debug!(event = %id, "event was handled before and is dropped");
            return Ok(());
        }
        next.run(event).await?;
        self.handled(|recent| recent.remember(id));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures_util::FutureExt;

    use super::*;
    use crate::bus::samples::event;
    use crate::bus::{EventHandler, EventHandlerExt};

    #[tokio::test]
    async fn a_success_is_remembered_and_nothing_else() {
        let calls = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&calls);
        let handler = move |_: Event| {
            let call = counter.fetch_add(1, Ordering::SeqCst);
            async move {
                match call {
                    0 => Err("not yet"),
                    1 => std::future::pending().await,
                    2 => panic!("in the handler"),
                    _ => Ok(()),
                }
            }
        };
        let dedupe = Dedupe::remembering(2);
        let handler = handler.with(dedupe.clone());
        assert!(handler.handle(event("E", 1)).await.is_err());
        // Dropped in the middle, as when the subscription is aborted.
        assert!(handler.handle(event("E", 1)).now_or_never().is_none());
        let panicking = std::panic::AssertUnwindSafe(handler.handle(event("E", 1)));
        assert!(panicking.catch_unwind().await.is_err());
        for _ in 0..3 {
            handler.handle(event("E", 1)).await.unwrap();
        }
        assert_eq!(calls.load(Ordering::SeqCst), 4);
        // A clone knows it too; two more make room for it to come again.
        let shared = (|_: Event| async { Err("never called") }).with(dedupe);
        shared.handle(event("E", 1)).await.unwrap();
        for version in [2, 3, 1] {
            handler.handle(event("E", version)).await.unwrap();
        }
        assert_eq!(calls.load(Ordering::SeqCst), 7);
    }
}
