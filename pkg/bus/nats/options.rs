use std::sync::Arc;
use std::time::Duration;

use crate::bus::RootCertificates;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{CloudEvents, EventSerializer};

/// Which of the two NATS a bus is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum NatsMode {
    /// JetStream: events are stored, groups are durable, nothing confirmed is lost.
    #[default]
    JetStream,
    /// Core NATS: broadcasts only, for whoever is connected, and nothing is stored.
    Core,
}

/// Where JetStream stores events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum NatsStorage {
    /// In files.
    #[default]
    File,
    /// In memory: gone with the server's last replica.
    Memory,
}

/// Options of a [`NatsBus`](super::NatsBus).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NatsBusOptions {
    /// JetStream or core NATS. Default JetStream.
    pub mode: NatsMode,
    /// What the subjects of all events begin with: letters, digits, `-` and `_`, in parts with dots
    /// between. One prefix is one bus. Default `events`.
    pub prefix: String,
    /// The name of the stream; that of its state gets `_STATE` behind it. Default: the prefix in upper
    /// case, with `_` for dots.
    pub stream: Option<String>,
    /// The JetStream domain. Default none.
    pub domain: Option<String>,
    /// How many partitions the bus has, which is how many members a group can share its events between.
    /// Fixed when the stream is created. Default 8.
    pub partitions: u32,
    /// Where events are stored. Default in files.
    pub storage: NatsStorage,
    /// On how many servers of a cluster. Default 1.
    pub replicas: usize,
    /// How many bytes the stream is created with. When it is full, what every group has handled is
    /// removed; when that makes no room, publishing fails with `Unavailable`. An existing stream keeps
    /// what it has. `None` is without a bound. Default 1 GiB.
    pub max_bytes: Option<u64>,
    /// How many bytes the stream of the state is created with, which holds the dead letters of all groups. When
    /// they have all but the last sixteenth, no letter is added and the subscription stalls until some are
    /// redriven or discarded; the rest is for claims and signs of life. An existing stream keeps what it has.
    /// `None` is without a bound. At least 16 MiB. Default 256 MiB.
    pub max_state_bytes: Option<u64>,
    /// For how long an event id that was published is recognised. The relay repeats what it published
    /// since its last checkpoint. Default 2 minutes.
    pub duplicate_window: Duration,
    /// After how long JetStream delivers again what was neither acknowledged nor kept alive. Owners keep
    /// alive what they have in work, and a new owner fetches the rest at once, so this matters only for
    /// what got lost. At least three times `claim_ttl`. Default 30 s.
    pub ack_wait: Duration,
    /// How long a member may be silent before others take its partitions over. The server counts in
    /// whole seconds. Default 10 s.
    pub claim_ttl: Duration,
    /// How long a broadcast is kept whose process is gone. Default a minute.
    pub broadcast_ttl: Duration,
    /// The authorities that a server's certificate must come from. With them the connection is one with TLS or
    /// none, whatever the URL says; they replace the TLS settings of the client's own options. Default: those
    /// that the system trusts.
    pub root_certificates: Option<RootCertificates>,
    /// How long to wait for an answer of the server. Default 5 s.
    pub request_timeout: Duration,
    /// How long closing and unsubscribing wait for handlers. Default 30 s.
    pub drain_timeout: Duration,
    /// How events become bytes. Default [`CloudEvents`].
    pub serializer: Arc<dyn EventSerializer>,
}

impl Default for NatsBusOptions {
    fn default() -> Self {
        Self {
            mode: NatsMode::default(),
            prefix: "events".to_owned(),
            stream: None,
            domain: None,
            partitions: 8,
            storage: NatsStorage::default(),
            replicas: 1,
            max_bytes: Some(1 << 30),
            max_state_bytes: Some(256 << 20),
            duplicate_window: Duration::from_secs(120),
            ack_wait: Duration::from_secs(30),
            claim_ttl: Duration::from_secs(10),
            broadcast_ttl: Duration::from_secs(60),
            root_certificates: None,
            request_timeout: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(30),
            serializer: Arc::new(CloudEvents),
        }
    }
}

/// A sixteenth of it is room for the claims and members of thousands of partitions.
const LEAST_STATE: u64 = 16 << 20;

impl NatsBusOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Chooses JetStream or core NATS.
    #[must_use]
    pub fn with_mode(mut self, mode: NatsMode) -> Self {
        self.mode = mode;
        self
    }

    /// Sets what the subjects begin with.
    #[must_use]
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Sets the name of the stream.
    #[must_use]
    pub fn with_stream(mut self, name: impl Into<String>) -> Self {
        self.stream = Some(name.into());
        self
    }

    /// Sets the JetStream domain.
    #[must_use]
    pub fn with_domain(mut self, domain: impl Into<String>) -> Self {
        self.domain = Some(domain.into());
        self
    }

    /// Sets the number of partitions.
    #[must_use]
    pub fn with_partitions(mut self, partitions: u32) -> Self {
        self.partitions = partitions;
        self
    }

    /// Sets where events are stored.
    #[must_use]
    pub fn with_storage(mut self, storage: NatsStorage) -> Self {
        self.storage = storage;
        self
    }

    /// Sets on how many servers events are stored.
    #[must_use]
    pub fn with_replicas(mut self, replicas: usize) -> Self {
        self.replicas = replicas;
        self
    }

    /// Sets how many bytes the stream is created with.
    #[must_use]
    pub fn with_max_bytes(mut self, bytes: Option<u64>) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Sets how many bytes the stream of the state is created with.
    #[must_use]
    pub fn with_max_state_bytes(mut self, bytes: Option<u64>) -> Self {
        self.max_state_bytes = bytes;
        self
    }

    /// Sets for how long an event id is recognised.
    #[must_use]
    pub fn with_duplicate_window(mut self, window: Duration) -> Self {
        self.duplicate_window = window;
        self
    }

    /// Sets after how long what got lost is delivered again.
    #[must_use]
    pub fn with_ack_wait(mut self, wait: Duration) -> Self {
        self.ack_wait = wait;
        self
    }

    /// Sets how long a member may be silent.
    #[must_use]
    pub fn with_claim_ttl(mut self, ttl: Duration) -> Self {
        self.claim_ttl = ttl;
        self
    }

    /// Sets how long a broadcast is kept whose process is gone.
    #[must_use]
    pub fn with_broadcast_ttl(mut self, ttl: Duration) -> Self {
        self.broadcast_ttl = ttl;
        self
    }

    /// Sets the authorities that a server's certificate must come from.
    #[must_use]
    pub fn with_root_certificates(mut self, certificates: RootCertificates) -> Self {
        self.root_certificates = Some(certificates);
        self
    }

    /// Sets how long to wait for an answer of the server.
    #[must_use]
    pub fn with_request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// Sets how long closing and unsubscribing wait for handlers.
    #[must_use]
    pub fn with_drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    /// Sets how events become bytes.
    #[must_use]
    pub fn with_serializer(mut self, serializer: Arc<dyn EventSerializer>) -> Self {
        self.serializer = serializer;
        self
    }

    pub(super) fn stream_name(&self) -> String {
        let from_prefix = || self.prefix.to_ascii_uppercase().replace('.', "_");
        self.stream.clone().unwrap_or_else(from_prefix)
    }

    pub(super) fn validate(&self) -> Result<()> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let name = self.stream_name();
        // Room for "_STATE"; the server's bound is 255.
        let nameless = name.is_empty() || name.len() > 200 || !name.chars().all(plain);
        for (wrong, what) in [
            (
                nameless,
                "a stream name that is not letters, digits, '-' and '_'",
            ),
            (self.partitions == 0, "no partitions"),
            // Each is a consumer of every group.
            (self.partitions > 1_024, "more than 1,024 partitions"),
            (
                self.replicas == 0 || self.replicas > 5,
                "not 1 to 5 replicas",
            ),
            (self.max_bytes == Some(0), "a stream for no bytes"),
            (
                self.max_state_bytes
                    .is_some_and(|bytes| bytes < LEAST_STATE),
                "less than 16 MiB for its state",
            ),
            (self.request_timeout.is_zero(), "no time for requests"),
            (
                self.ack_wait < self.claim_ttl * 3,
                "an ack_wait of less than three times its claim_ttl",
            ),
        ] {
            if wrong {
                return Err(Error::new(
                    ErrorKind::InvalidConfig,
                    format!("nats bus has {what}"),
                ));
            }
        }
        if let Some(certificates) = &self.root_certificates {
            certificates.validate("nats bus")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_named_after_the_prefix() {
        let options = NatsBusOptions::new().with_prefix("shop.events");
        assert_eq!(options.stream_name(), "SHOP_EVENTS");
        options.validate().unwrap();
        assert_eq!(options.with_stream("x").stream_name(), "x");
    }

    #[test]
    fn nonsense_is_refused() {
        let second = Duration::from_secs(1);
        for options in [
            NatsBusOptions::new().with_partitions(0),
            NatsBusOptions::new().with_partitions(2_000),
            NatsBusOptions::new().with_replicas(6),
            NatsBusOptions::new().with_max_bytes(Some(0)),
            NatsBusOptions::new().with_max_state_bytes(Some(1_000)),
            NatsBusOptions::new().with_stream("a.b"),
            NatsBusOptions::new().with_stream(""),
            NatsBusOptions::new().with_ack_wait(second),
            NatsBusOptions::new().with_request_timeout(Duration::ZERO),
        ] {
            assert_eq!(
                options.validate().unwrap_err().kind(),
                ErrorKind::InvalidConfig
            );
        }
    }
}
