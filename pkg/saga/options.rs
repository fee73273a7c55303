use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};

/// Options of a [`SagaRunner`](super::SagaRunner).
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use nodestorage::saga::SagaOptions;
///
/// let options = SagaOptions::new().with_concurrency(16).with_lease_ttl(Duration::from_secs(5));
/// assert_eq!(options.concurrency, 16);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SagaOptions {
    /// How many sagas are worked on at a time. Those that wait, for a signal or their next attempt, do not
    /// count. Default 64: steps mostly wait for others.
    pub concurrency: usize,
    /// How long the sagas stay with their process when that dies, thus how soon another takes over. Renewed
    /// at a third of it. Default 10 s.
    pub lease_ttl: Duration,
    /// How often the stored sagas are looked through without an occasion. Starts, signals and due times are
    /// noticed at once; this is what remains if a clock jumps. Default 30 s.
    pub look_interval: Duration,
    /// How long shutting down waits for steps in work. Default 5 s.
    pub drain_timeout: Duration,
}

impl Default for SagaOptions {
    fn default() -> Self {
        Self {
            concurrency: 64,
            lease_ttl: Duration::from_secs(10),
            look_interval: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(5),
        }
    }
}

impl SagaOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how many sagas are worked on at a time.
    #[must_use]
    pub fn with_concurrency(mut self, sagas: usize) -> Self {
        self.concurrency = sagas;
        self
    }

    /// Sets how soon another process takes over.
    #[must_use]
    pub fn with_lease_ttl(mut self, ttl: Duration) -> Self {
        self.lease_ttl = ttl;
        self
    }

    /// Sets how often the stored sagas are looked through without an occasion.
    #[must_use]
    pub fn with_look_interval(mut self, interval: Duration) -> Self {
        self.look_interval = interval;
        self
    }

    /// Sets how long shutting down waits for steps in work.
    #[must_use]
    pub fn with_drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    pub(super) fn validate(&self) -> Result<()> {
        let wrong = if self.concurrency == 0 {
            "a concurrency of 0"
        } else if self.lease_ttl < Duration::from_millis(10) {
            "a lease_ttl below 10 ms"
        } else if self.look_interval.is_zero() {
            "a look_interval of 0"
        } else {
            return Ok(());
        };
        let what = format!("a saga runner cannot work with {wrong}");
        Err(Error::new(ErrorKind::InvalidConfig, what))
    }
}
