use std::sync::Arc;

use crate::bus::{EventBus, MemoryBus};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::backend::Backend;

/// Opens the backend that an URL names.
pub(super) async fn open_backend(url: &str) -> Result<Arc<dyn Backend>> {
    let scheme = url.split(':').next().unwrap_or_default();
    match scheme {
        #[cfg(feature = "embedded")]
        "embedded" => {
            use crate::storage::embedded::{EmbeddedBackend, EmbeddedOptions};
            let backend = match &url["embedded:".len()..] {
                ":memory:" => EmbeddedBackend::in_memory()?,
                "" => {
                    return Err(Error::new(
                        ErrorKind::InvalidConfig,
                        "the URL embedded: needs a path or :memory:",
                    ));
                }
                path => EmbeddedBackend::open(path, EmbeddedOptions::default())?,
            };
            Ok(Arc::new(backend))
        }
        #[cfg(feature = "mongodb")]
        "mongodb" | "mongodb+srv" => {
            use crate::storage::mongodb::{MongoBackend, MongoOptions};
            Ok(Arc::new(
                MongoBackend::connect(url, MongoOptions::default()).await?,
            ))
        }
        // What stands before the first colon of an arbitrary text may be anything, a password too.
        _ => Err(Error::new(
            ErrorKind::InvalidConfig,
            "the storage URL begins with no scheme this build knows: embedded:, embedded::memory: or \
             mongodb:// (feature mongodb)",
        )),
    }
}

/// Opens the bus that an URL names.
pub(super) async fn open_bus(url: &str) -> Result<Arc<dyn EventBus>> {
    let scheme = url.split(':').next().unwrap_or_default();
    match scheme {
        "memory" if url == "memory:" => Ok(Arc::new(MemoryBus::new())),
        "memory" => Err(Error::new(
            ErrorKind::InvalidConfig,
            "a bus in memory has no name: its URL is memory:",
        )),
        #[cfg(feature = "redis")]
        "redis" | "rediss" => {
            use crate::bus::redis::{RedisBus, RedisBusOptions};
            Ok(Arc::new(
                RedisBus::connect(url, RedisBusOptions::default()).await?,
            ))
        }
        #[cfg(not(feature = "redis"))]
        "redis" | "rediss" => Err(missing("redis:// and rediss://", "redis")),
        #[cfg(feature = "nats")]
        "nats" | "tls" => {
            use crate::bus::nats::{NatsBus, NatsBusOptions};
            Ok(Arc::new(
                NatsBus::connect(url, NatsBusOptions::default()).await?,
            ))
        }
        #[cfg(not(feature = "nats"))]
        "nats" | "tls" => Err(missing("nats:// and tls://", "nats")),
        // What stands before the first colon of an arbitrary text may be anything, a password too.
        _ => Err(Error::new(
            ErrorKind::InvalidConfig,
            "the bus URL begins with no scheme this build knows: memory:, redis:// or rediss:// (feature \
             redis), nats:// or tls:// (feature nats)",
        )),
    }
}

/// Shows no URL: it may hold credentials.
#[cfg(not(all(feature = "redis", feature = "nats")))]
fn missing(schemes: &str, feature: &str) -> Error {
    Error::new(
        ErrorKind::InvalidConfig,
        format!("bus URLs with {schemes} need the feature {feature} of nodestorage"),
    )
}
