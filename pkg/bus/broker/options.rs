use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::event::{CloudEvents, EventSerializer};

/// What the machine of durable brokers needs to know; every bus's own options bring it.
#[derive(Debug, Clone)]
pub(in crate::bus) struct MachineOptions {
    /// How events become bytes. Default [`CloudEvents`].
    pub(in crate::bus) serializer: Arc<dyn EventSerializer>,
    /// How long a member may be silent before others take its partitions over. Default 10 s.
    pub(in crate::bus) claim_ttl: Duration,
    /// How long closing and unsubscribing wait for handlers. Default 30 s.
    pub(in crate::bus) drain_timeout: Duration,
    /// How long a broadcast is kept whose process is gone. Default a minute.
    pub(in crate::bus) broadcast_ttl: Duration,
}

/// Below this, claims would be lost to ordinary delays of network and scheduler.
const SHORTEST_TTL: Duration = Duration::from_millis(100);

impl Default for MachineOptions {
    fn default() -> Self {
        Self {
            serializer: Arc::new(CloudEvents),
            claim_ttl: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(30),
            broadcast_ttl: Duration::from_secs(60),
        }
    }
}

impl MachineOptions {
    pub(in crate::bus) fn validate(&self) -> Result<()> {
        if self.claim_ttl < SHORTEST_TTL || self.broadcast_ttl < self.claim_ttl {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                format!(
                    "a claim must last at least {SHORTEST_TTL:?}, and a broadcast as long as a claim"
                ),
            ));
        }
        Ok(())
    }
}
