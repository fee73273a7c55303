use std::time::Duration;

use async_trait::async_trait;

use super::{Middleware, Next};
use crate::error::{BoxError, Error, ErrorKind};
use crate::event::Event;

/// Gives a handler so much time: one that takes longer is dropped at the `await` it is in, which counts
/// as a failure of kind [`Timeout`](ErrorKind::Timeout).
///
/// A handler that blocks its thread reaches no `await` and cannot be stopped.
#[derive(Debug, Clone, Copy)]
pub struct Timeout {
    limit: Duration,
}

impl Timeout {
    /// Stops a handler that has not finished after this time, in each of its attempts.
    #[must_use]
    pub fn after(limit: Duration) -> Self {
        Self { limit }
    }
}

#[async_trait]
impl Middleware for Timeout {
    async fn handle(&self, event: Event, next: Next<'_>) -> Result<(), BoxError> {
        let (id, limit) = (event.id(), self.limit);
        match tokio::time::timeout(limit, next.run(event)).await {
            Ok(result) => result,
            Err(_) => {
                let message = format!("handler did not finish event {id} within {limit:?}");
                Err(Error::new(ErrorKind::Timeout, message).into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::samples::event;
    use crate::bus::{EventHandler, EventHandlerExt};

    #[tokio::test(start_paused = true)]
    async fn what_takes_too_long_fails_and_is_dropped() {
        let handler = |event: Event| async move {
            tokio::time::sleep(Duration::from_secs(event.version().get())).await;
        };
        let handler = handler.with(Timeout::after(Duration::from_millis(1_500)));
        handler.handle(event("Quick", 1)).await.unwrap();
        let begin = tokio::time::Instant::now();
        let error = handler.handle(event("Slow", 3)).await.unwrap_err();
        let error = error.downcast::<Error>().unwrap();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(error.to_string().contains("within 1.5s"), "{error}");
        assert!(begin.elapsed() < Duration::from_secs(2));
    }
}
