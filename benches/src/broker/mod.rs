//! The brokers that buses are measured on, each a server of its own for the run.

#[allow(dead_code, reason = "the tests use the rest")]
#[allow(clippy::expect_used, clippy::panic, reason = "written for tests")]
#[path = "../../../tests/support/nats.rs"]
mod nats_server;
#[allow(dead_code, reason = "the tests use the rest")]
#[allow(clippy::expect_used, clippy::panic, reason = "written for tests")]
#[path = "../../../tests/support/redis.rs"]
mod redis_server;
#[allow(dead_code, reason = "the tests use the rest")]
#[allow(clippy::expect_used, clippy::panic, reason = "written for tests")]
#[path = "../../../tests/support/server_process.rs"]
mod server_process;

pub(crate) mod gauge;
pub(crate) mod nats;
pub(crate) mod redis;

use std::sync::Arc;

use anyhow::{Context as _, Result};
use nodestorage::bus::EventBus;
use nodestorage::bus::nats::{NatsBus, NatsBusOptions};
use nodestorage::bus::redis::{RedisBus, RedisBusOptions};
use serde_json::{Value, json};

use self::nats_server::Nats;
use self::redis_server::Redis;

/// Which broker a scenario is measured on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Redis,
    Nats,
}

/// A running broker; it ends with this value.
#[derive(Debug)]
pub(crate) enum Broker {
    Redis(Redis),
    Nats(Nats),
}

/// As Redis is run where events matter and the default of its append-only file is kept: written at once, forced
/// to the disk every second.
const REDIS_SETTINGS: &[&str] = &["--appendfsync", "everysec"];

impl Broker {
    pub(crate) async fn start(kind: Kind) -> Result<Self> {
        // The fixture waits for the server, and panics without one.
        let started = tokio::task::spawn_blocking(move || match kind {
            Kind::Redis => Self::Redis(Redis::private(REDIS_SETTINGS)),
            Kind::Nats => Self::Nats(Nats::private("")),
        });
        started.await.context("the broker does not start")
    }

    pub(crate) fn url(&self) -> String {
        match self {
            Self::Redis(server) => server.url().to_owned(),
            Self::Nats(server) => server.url().to_owned(),
        }
    }

    /// A bus with default options, under a prefix of its own.
    pub(crate) async fn bus(&self, prefix: &str) -> Result<Arc<dyn EventBus>> {
        Ok(match self {
            Self::Redis(server) => {
                let options = RedisBusOptions::new().with_prefix(prefix);
                Arc::new(RedisBus::connect(server.url(), options).await?)
            }
            Self::Nats(server) => {
                // A round may publish more than the default of 1 GiB keeps, and nobody reads it.
                let options = NatsBusOptions::new()
                    .with_prefix(prefix)
                    .with_max_bytes(None);
                Arc::new(NatsBus::connect(server.url(), options).await?)
            }
        })
    }

    /// How many events were ever stored under a prefix.
    pub(crate) async fn stored(&self, prefix: &str) -> Result<u64> {
        match self {
            Self::Redis(server) => redis::stored(server.url(), prefix).await,
            Self::Nats(server) => nats::stored(server.url(), prefix).await,
        }
    }

    /// How the server is set up, for the record.
    pub(crate) fn settings(&self) -> Value {
        match self {
            Self::Redis(_) => json!({
                "server": "redis-server, appendonly yes, appendfsync everysec, no snapshots",
                "bus": "RedisBusOptions::default",
            }),
            Self::Nats(_) => json!({
                "server": "nats-server with JetStream in files, default sync_interval (2 minutes)",
                "bus": "NatsBusOptions::default without max_bytes",
            }),
        }
    }
}
