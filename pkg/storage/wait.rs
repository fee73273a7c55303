//! Waiting with an end.

use std::future::Future;
use std::time::{Duration, Instant};

/// Waits for a future, at most until the limit.
///
/// What is waited for works in real time. Where the runtime's clock is ahead of it, because a test has
/// paused it, the runtime's word that the limit has passed does not count.
pub(super) async fn before<F: Future>(limit: Instant, future: F) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    // Relative, because the runtime's clock may have been ahead of the limit from the start.
    let mut left = limit.saturating_duration_since(Instant::now());
    loop {
        match tokio::time::timeout(left, &mut future).await {
            Ok(output) => return Some(output),
            Err(_) if Instant::now() >= limit => return None,
            Err(_) => tokio::task::yield_now().await,
        }
        left = Duration::ZERO;
    }
}
