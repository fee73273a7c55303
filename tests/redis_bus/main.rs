//! The bus on Redis: the conformance suite in both modes, and faults.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

#[cfg(not(all(feature = "testing", feature = "redis")))]
compile_error!("tests need every feature: run scripts/test, or cargo test --all-features");

#[path = "../support/certificates.rs"]
mod certificates;
#[path = "../support/fatal.rs"]
mod fatal;
mod fatal_events;
mod foreign;
mod full;
mod killed;
mod opening;
mod outages;
#[path = "../support/proxy.rs"]
mod proxy;
#[allow(dead_code, reason = "other binaries use the rest")]
#[path = "../support/redis.rs"]
mod redis;
#[allow(dead_code, reason = "other binaries use the rest")]
#[path = "../support/server_process.rs"]
mod server_process;
mod speed;
mod tls;
mod world;

mod streams {
    use std::sync::Arc;
    use std::time::Duration;

    use nodestorage::bus::EventBus;
    use nodestorage::bus::redis::{RedisBus, RedisBusOptions};

    use crate::redis::{Redis, fresh_prefix};

    async fn bus() -> Arc<dyn EventBus> {
        let options = RedisBusOptions::new()
            .with_prefix(fresh_prefix())
            .with_claim_ttl(Duration::from_secs(2))
            .with_max_event_bytes(2_000_000);
        Arc::new(
            RedisBus::connect(Redis::shared().url(), options)
                .await
                .unwrap(),
        )
    }

    nodestorage::bus_conformance!(bus);
}

mod pub_sub {
    use std::sync::Arc;

    use nodestorage::bus::EventBus;
    use nodestorage::bus::redis::{RedisBus, RedisMode};

    use crate::redis::{Redis, fresh_prefix};
    use crate::world::options;

    async fn bus() -> Arc<dyn EventBus> {
        let options = options(&fresh_prefix())
            .with_mode(RedisMode::PubSub)
            .with_max_event_bytes(2_000_000);
        Arc::new(
            RedisBus::connect(Redis::shared().url(), options)
                .await
                .unwrap(),
        )
    }

    nodestorage::bus_conformance!(bus);
}
