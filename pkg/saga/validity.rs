//! Until when the work under a lease may go on.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// Shared by a runner, which prolongs it, and the sagas in its work.
#[derive(Debug, Clone)]
pub(crate) struct Validity {
    until: Arc<Mutex<Option<Instant>>>,
    /// Cancelled when no further step may begin.
    pub(super) stop: CancellationToken,
}

impl Validity {
    /// Without an end, until [`prolong`](Self::prolong) sets one.
    pub(crate) fn new(stop: CancellationToken) -> Self {
        Self {
            until: Arc::default(),
            stop,
        }
    }

    /// Nobody else can have the lease before then.
    pub(super) fn prolong(&self, until: Instant) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
    }

    fn until(&self) -> Option<Instant> {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.until().is_some_and(|until| Instant::now() >= until)
    }

    /// Polls work only while the lease is certain, so that after a pause of the whole process it goes on
    /// nowhere; `None`, and the work is dropped, once it is not.
    pub(super) async fn keep<F: Future>(&self, work: F) -> Option<F::Output> {
        let mut work = pin!(work);
        let mut end = pin!(sleep_until(self.until().unwrap_or_else(far)));
        poll_fn(|cx| {
            loop {
                if self.has_ended() {
                    return Poll::Ready(None);
                }
                // It may have been prolonged: then the end is a later one.
                match end.as_mut().poll(cx) {
                    Poll::Pending => break,
                    Poll::Ready(()) => end.as_mut().reset(self.until().unwrap_or_else(far)),
                }
            }
            work.as_mut().poll(cx).map(Some)
        })
        .await
    }
}

/// Longer than any process runs, and not so long that timers overflow.
fn far() -> Instant {
    Instant::now() + Duration::from_secs(365 * 24 * 3_600)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_is_dropped_at_the_end_and_goes_on_when_prolonged() {
        let validity = Validity::new(CancellationToken::new());
        let second = Duration::from_secs(1);
        validity.prolong(Instant::now() + second);
        assert_eq!(validity.keep(std::future::pending::<()>()).await, None);
        assert!(validity.has_ended());
        validity.prolong(Instant::now() + second);
        let other = validity.clone();
        let work = async {
            tokio::time::sleep(second / 2).await;
            other.prolong(Instant::now() + 2 * second);
            tokio::time::sleep(second).await;
            7
        };
        assert_eq!(validity.keep(work).await, Some(7));
    }
}
