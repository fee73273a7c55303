use std::sync::Arc;
use std::time::Duration;

use crate::bus::RedeliveryPolicy;
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, ErrorKind, Result};

/// Options of a [`Relay`](super::Relay).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RelayOptions {
    /// The name of lease and checkpoint: relays of one name share the work by taking turns. Default
    /// `relay`.
    pub name: String,
    /// How long a lease lives without being renewed, thus how soon another relay takes over from a dead
    /// one. Renewed at a third of it. Default 10 s.
    pub lease_ttl: Duration,
    /// At most this many events are published in one call. Default 256.
    pub batch: usize,
    /// A batch also ends with the log entry that brings it to about this many bytes of payload. Default
    /// 4 MiB: 256 events of a usual size stay far below, while 256 of the largest would be gigabytes. An
    /// event exists twice while it is published, once as bytes for the wire, and some brokers refuse or
    /// buffer more than a few megabytes at a time.
    pub batch_bytes: usize,
    /// The checkpoint is stored after at most this many confirmed log entries. Default 1,000.
    pub checkpoint_entries: usize,
    /// The checkpoint is stored at most this long after a confirmation. Default 200 ms: five small
    /// writes per second.
    pub checkpoint_interval: Duration,
    /// Attempts at an event that a bus says it can never take, and the pauses between attempts, which
    /// outages use as well. Default 5 attempts, pauses from 10 ms to 5 s.
    pub attempts: RedeliveryPolicy,
    /// With more parked documents than this the relay stops. Default 10,000: by then it is no longer a
    /// few documents that are ill.
    pub max_parked: usize,
    /// How long shutting down waits for a publish in flight. Default 5 s.
    pub drain_timeout: Duration,
    /// Tells the time that dead letters carry.
    pub clock: Arc<dyn Clock>,
}

impl Default for RelayOptions {
    fn default() -> Self {
        Self {
            name: "relay".to_owned(),
            lease_ttl: Duration::from_secs(10),
            batch: 256,
            batch_bytes: 4 << 20,
            checkpoint_entries: 1_000,
            checkpoint_interval: Duration::from_millis(200),
            attempts: RedeliveryPolicy::new()
                .with_delays(Duration::from_millis(10), Duration::from_secs(5)),
            max_parked: 10_000,
            drain_timeout: Duration::from_secs(5),
            clock: Arc::new(SystemClock),
        }
    }
}

impl RelayOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the name of lease and checkpoint.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets how long a lease lives without being renewed.
    #[must_use]
    pub fn with_lease_ttl(mut self, ttl: Duration) -> Self {
        self.lease_ttl = ttl;
        self
    }

    /// Sets how many events are published in one call.
    #[must_use]
    pub fn with_batch(mut self, events: usize) -> Self {
        self.batch = events;
        self
    }

    /// Sets about how many bytes of payload are published in one call.
    #[must_use]
    pub fn with_batch_bytes(mut self, bytes: usize) -> Self {
        self.batch_bytes = bytes;
        self
    }

    /// Sets after how many entries, and how long after a confirmation, the checkpoint is stored.
    #[must_use]
    pub fn with_checkpoints(mut self, entries: usize, interval: Duration) -> Self {
        self.checkpoint_entries = entries;
        self.checkpoint_interval = interval;
        self
    }

    /// Sets the attempts at a poison event, and the pauses.
    #[must_use]
    pub fn with_attempts(mut self, policy: RedeliveryPolicy) -> Self {
        self.attempts = policy;
        self
    }

    /// Sets how many documents may be parked.
    #[must_use]
    pub fn with_max_parked(mut self, documents: usize) -> Self {
        self.max_parked = documents;
        self
    }

    /// Sets how long shutting down waits for a publish in flight.
    #[must_use]
    pub fn with_drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    /// Sets the clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    pub(super) fn validate(&self) -> Result<()> {
        for (wrong, what) in [
            (self.name.is_empty(), "an empty name"),
            (self.lease_ttl.is_zero(), "a lease that ends at once"),
            (self.batch == 0, "batches of no events"),
            (self.batch_bytes == 0, "batches of no bytes"),
            (self.attempts.attempts == 0, "no attempts"),
        ] {
            if wrong {
                return Err(Error::new(
                    ErrorKind::InvalidConfig,
                    format!("relay has {what}"),
                ));
            }
        }
        Ok(())
    }
}
