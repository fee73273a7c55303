use std::fmt::Display;
use std::time::Duration;

use async_trait::async_trait;

use super::{Middleware, Next, Traced};
use crate::error::{BoxError, Error, ErrorKind};

/// Gives the handling of a message so much time: what takes longer is dropped at the `await` it is in, which
/// is a failure of kind [`Timeout`](ErrorKind::Timeout).
///
/// What blocks its thread reaches no `await` and cannot be stopped.
///
/// # Examples
/// ```
/// use std::time::Duration;
///
/// use nodestorage::command::Dispatcher;
/// use nodestorage::middleware::Timeout;
///
/// let dispatcher = Dispatcher::builder().with(Timeout::after(Duration::from_secs(5))).build();
/// # let _ = dispatcher;
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Timeout {
    limit: Duration,
}

impl Timeout {
    /// Stops what has not finished after this time, in each attempt.
    #[must_use]
    pub fn after(limit: Duration) -> Self {
        Self { limit }
    }
}

#[async_trait]
impl<M, R> Middleware<M, R> for Timeout
where
    M: Traced + Send + 'static,
    R: Send + 'static,
{
    async fn handle(&self, message: M, next: Next<'_, M, R>) -> Result<R, BoxError> {
        let (name, limit) = (message.label(), self.limit);
        match tokio::time::timeout(limit, next.run(message)).await {
            Ok(result) => result,
            Err(_) => Err(late(name, limit).into()),
        }
    }
}

fn late(name: impl Display, limit: Duration) -> Error {
    let message = format!("handler did not finish {name} within {limit:?}");
    Error::new(ErrorKind::Timeout, message)
}
