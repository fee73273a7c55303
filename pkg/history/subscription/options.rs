use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::storage::backend::TailFrom;

/// Options of a subscription to the log.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LogSubscription {
    /// Where to begin if no checkpoint is stored under the name. Default: the beginning of the log.
    pub start: TailFrom,
    /// How long the subscription stays with its process when that dies, thus how soon another process
    /// takes over. Renewed at a third of it. Default 10 s.
    pub lease_ttl: Duration,
    /// The checkpoint is stored after at most this many handled log entries. Default 1,000.
    pub checkpoint_entries: usize,
    /// The checkpoint is stored at most this long after an entry was handled. Default 200 ms: five small
    /// writes per second.
    pub checkpoint_interval: Duration,
    /// The pause after a handler's first failure; each further one is twice as long. Default 100 ms.
    pub retry_base: Duration,
    /// The longest pause. Default 10 s.
    pub retry_max: Duration,
    /// How long shutting down waits for the handler. Default 5 s.
    pub drain_timeout: Duration,
}

impl Default for LogSubscription {
    fn default() -> Self {
        Self {
            start: TailFrom::Beginning,
            lease_ttl: Duration::from_secs(10),
            checkpoint_entries: 1_000,
            checkpoint_interval: Duration::from_millis(200),
            retry_base: Duration::from_millis(100),
            retry_max: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(5),
        }
    }
}

impl LogSubscription {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets where to begin if no checkpoint is stored.
    #[must_use]
    pub fn with_start(mut self, start: TailFrom) -> Self {
        self.start = start;
        self
    }

    /// Sets how soon another process takes over.
    #[must_use]
    pub fn with_lease_ttl(mut self, ttl: Duration) -> Self {
        self.lease_ttl = ttl;
        self
    }

    /// Sets after how many entries, and how long after one, the checkpoint is stored.
    #[must_use]
    pub fn with_checkpoints(mut self, entries: usize, interval: Duration) -> Self {
        self.checkpoint_entries = entries;
        self.checkpoint_interval = interval;
        self
    }

    /// Sets the first and the longest pause after failures of the handler.
    #[must_use]
    pub fn with_retry(mut self, base: Duration, max: Duration) -> Self {
        self.retry_base = base;
        self.retry_max = max;
        self
    }

    /// Sets how long shutting down waits for the handler.
    #[must_use]
    pub fn with_drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    pub(super) fn validate(&self) -> Result<()> {
        // Below a few milliseconds a lease would end between two looks at the clock.
        let wrong = if self.lease_ttl < Duration::from_millis(10) {
            "a lease below 10 ms"
        } else if self.retry_base.is_zero() {
            "no pause between attempts"
        } else {
            return Ok(());
        };
        Err(Error::new(
            ErrorKind::InvalidConfig,
            format!("subscription has {wrong}"),
        ))
    }
}
