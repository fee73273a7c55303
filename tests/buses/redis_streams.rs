//! Redis Streams.

use std::collections::HashMap;
use std::sync::Arc;

use ::redis::AsyncCommands;
use async_trait::async_trait;
use nodestorage::Result;
use nodestorage::bus::EventBus;
use nodestorage::bus::redis::{RedisBus, RedisBusOptions};

use crate::broker::{Broker, CLAIM_TTL};
use crate::ledger::Sighting;
use crate::redis::{Redis, fresh_prefix};

/// Entries that are read at a time.
const PAGE: usize = 1_000;

pub(crate) struct RedisStreams {
    server: Redis,
    prefix: String,
}

impl RedisStreams {
    pub(crate) fn start() -> Self {
        Self {
            server: Redis::private(&[]),
            prefix: fresh_prefix(),
        }
    }
}

pub(crate) async fn connect(address: &str) -> Result<Arc<dyn EventBus>> {
    let (url, prefix) = address.split_once(' ').expect("URL and prefix");
    let options = RedisBusOptions::new()
        .with_prefix(prefix)
        .with_timeout(CLAIM_TTL)
        .with_claim_ttl(CLAIM_TTL)
        // All of it is read back at the end.
        .with_max_length(10_000_000);
    Ok(Arc::new(RedisBus::connect(url, options).await?))
}

#[async_trait]
impl Broker for RedisStreams {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn address(&self) -> String {
        format!("redis {} {}", self.server.url(), self.prefix)
    }

    fn kill(&self) {
        self.server.kill();
    }

    fn restart(&self) {
        self.server.restart();
    }

    async fn read_back(&self) -> Vec<Sighting> {
        let client = ::redis::Client::open(self.server.url()).unwrap();
        let mut raw = client.get_multiplexed_async_connection().await.unwrap();
        let base = format!("{{{}}}", self.prefix);
        let partitions: u32 = raw.hget(&base, "partitions").await.unwrap();
        let (mut seen, mut partition_of) = (Vec::new(), HashMap::new());
        for partition in 0..partitions {
            let key = format!("{base}:events:{partition}");
            let mut from = "-".to_owned();
            loop {
                let page: Vec<(String, HashMap<String, Vec<u8>>)> =
                    raw.xrange_count(&key, &from, "+", PAGE).await.unwrap();
                let Some((last, _)) = page.last() else { break };
                from = format!("({last}");
                for (_, fields) in page {
                    let sighting = Sighting::from_cloud_event(&fields["event"]);
                    assert_eq!(fields["id"], sighting.id.as_bytes());
                    // Else there would be no order between its events.
                    let home = partition_of.entry(sighting.document.clone());
                    assert_eq!(*home.or_insert(partition), partition);
                    seen.push(sighting);
                }
            }
        }
        seen
    }
}
