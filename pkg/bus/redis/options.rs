use std::sync::Arc;
use std::time::Duration;

use crate::bus::RootCertificates;
use crate::bus::broker::MachineOptions;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{CloudEvents, EventSerializer};

/// By what events travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum RedisMode {
    /// Streams: events are stored, groups are durable, nothing is lost.
    #[default]
    Streams,
    /// Pub/Sub: events reach who is connected at the moment, and nobody else.
    PubSub,
}

/// What happens when a partition has its [`max_length`](RedisBusOptions::max_length) and no event that
/// every group has acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum WhenFull {
    /// Publishing fails with `Unavailable` until the slowest group has caught up. A relay waits and tries
    /// again; the log of the database is the buffer.
    #[default]
    Refuse,
    /// The oldest events go, unread: **groups that are too far behind lose them**.
    DropOldest,
}

/// Options of a [`RedisBus`](super::RedisBus).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RedisBusOptions {
    /// By what events travel. Default [`RedisMode::Streams`].
    pub mode: RedisMode,
    /// What every key and channel of the bus begins with, in braces. Two buses with different prefixes
    /// share nothing. Default `nodestorage`.
    pub prefix: String,
    /// How many partitions the bus has, and so how many members of a group can work at a time. It is
    /// recorded when a bus is opened for the first time and cannot be changed. Default 8.
    pub partitions: u32,
    /// How many events a partition keeps, about. What every group has acknowledged is kept up to there
    /// for [`StartFrom::Beginning`](crate::bus::StartFrom::Beginning). Default 50,000.
    pub max_length: u64,
    /// What happens beyond it. Default [`WhenFull::Refuse`].
    pub when_full: WhenFull,
    /// The largest event, in bytes on the wire; a larger one is poison. Default 64 MiB.
    pub max_event_bytes: usize,
    /// How events become bytes. Default [`CloudEvents`].
    pub serializer: Arc<dyn EventSerializer>,
    /// The authorities that a server's certificate must come from, for `rediss://`. Client certificates go through
    /// a client of your own, and so do its authorities then. Default: those that browsers trust.
    pub root_certificates: Option<RootCertificates>,
    /// How long to wait for a connection and for an answer. Default 5 s.
    pub timeout: Duration,
    /// How long a member may be silent before others take its partitions over. Default 10 s.
    pub claim_ttl: Duration,
    /// How long closing and unsubscribing wait for handlers. Default 30 s.
    pub drain_timeout: Duration,
    /// How long a broadcast is kept whose process is gone. Default 60 s.
    pub broadcast_ttl: Duration,
}

impl Default for RedisBusOptions {
    fn default() -> Self {
        let machine = MachineOptions::default();
        Self {
            mode: RedisMode::default(),
            prefix: "nodestorage".to_owned(),
            partitions: 8,
            max_length: 50_000,
            when_full: WhenFull::default(),
            max_event_bytes: 64 << 20,
            serializer: Arc::new(CloudEvents),
            root_certificates: None,
            timeout: Duration::from_secs(5),
            claim_ttl: machine.claim_ttl,
            drain_timeout: machine.drain_timeout,
            broadcast_ttl: machine.broadcast_ttl,
        }
    }
}

/// More would cost every member a key per partition in each read, and bring nothing.
const MOST_PARTITIONS: u32 = 256;

/// A node of a stream holds 100 entries, and streams are shortened by whole nodes.
const LEAST_LENGTH: u64 = 200;

impl RedisBusOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets by what events travel.
    #[must_use]
    pub fn with_mode(mut self, mode: RedisMode) -> Self {
        self.mode = mode;
        self
    }

    /// Sets what every key and channel begins with.
    #[must_use]
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Sets the number of partitions.
    #[must_use]
    pub fn with_partitions(mut self, partitions: u32) -> Self {
        self.partitions = partitions;
        self
    }

    /// Sets how many events a partition keeps.
    #[must_use]
    pub fn with_max_length(mut self, events: u64) -> Self {
        self.max_length = events;
        self
    }

    /// Sets what happens beyond that.
    #[must_use]
    pub fn with_when_full(mut self, when_full: WhenFull) -> Self {
        self.when_full = when_full;
        self
    }

    /// Sets the largest event.
    #[must_use]
    pub fn with_max_event_bytes(mut self, bytes: usize) -> Self {
        self.max_event_bytes = bytes;
        self
    }

    /// Sets how events become bytes.
    #[must_use]
    pub fn with_serializer(mut self, serializer: Arc<dyn EventSerializer>) -> Self {
        self.serializer = serializer;
        self
    }

    /// Sets the authorities that a server's certificate must come from.
    #[must_use]
    pub fn with_root_certificates(mut self, certificates: RootCertificates) -> Self {
        self.root_certificates = Some(certificates);
        self
    }

    /// Sets how long to wait for a connection and for an answer.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets how long a member may be silent.
    #[must_use]
    pub fn with_claim_ttl(mut self, ttl: Duration) -> Self {
        self.claim_ttl = ttl;
        self
    }

    /// Sets how long closing and unsubscribing wait for handlers.
    #[must_use]
    pub fn with_drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    /// Sets how long a broadcast is kept whose process is gone.
    #[must_use]
    pub fn with_broadcast_ttl(mut self, ttl: Duration) -> Self {
        self.broadcast_ttl = ttl;
        self
    }

    pub(super) fn validate(&self) -> Result<()> {
        let bad_prefix = self.prefix.is_empty()
            || self.prefix.len() > 128
            || self.prefix.contains(['{', '}'])
            || self.prefix.chars().any(char::is_control);
        for (wrong, what) in [
            (
                bad_prefix,
                "a prefix that is empty, longer than 128 bytes, or has braces or control characters",
            ),
            (
                !(1..=MOST_PARTITIONS).contains(&self.partitions),
                "no partitions, or more than 256",
            ),
            (
                self.max_length < LEAST_LENGTH,
                "a maximal length below 200 events",
            ),
            (self.max_event_bytes == 0, "no room for an event"),
            (self.timeout.is_zero(), "no time to wait for an answer"),
        ] {
            if wrong {
                return Err(Error::new(
                    ErrorKind::InvalidConfig,
                    format!("redis bus has {what}"),
                ));
            }
        }
        if let Some(certificates) = &self.root_certificates {
            certificates.validate("redis bus")?;
        }
        self.machine().validate()
    }

    pub(super) fn machine(&self) -> MachineOptions {
        MachineOptions {
            serializer: Arc::clone(&self.serializer),
            claim_ttl: self.claim_ttl,
            drain_timeout: self.drain_timeout,
            broadcast_ttl: self.broadcast_ttl,
        }
    }
}
