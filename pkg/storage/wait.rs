//! Waiting with an end.

use std::future::Future;
use std::time::Instant;

/// Waits for a future, at most until the limit.
///
/// What is waited for works in real time. Where the runtime's clock is ahead of it, because a test has
/// paused it, the runtime's word that the limit has passed does not count.
pub(super) async fn before<F: Future>(limit: Instant, future: F) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    loop {
        match tokio::time::timeout_at(limit.into(), &mut future).await {
            Ok(output) => return Some(output),
            Err(_) if Instant::now() >= limit => return None,
            Err(_) => tokio::task::yield_now().await,
        }
    }
}
