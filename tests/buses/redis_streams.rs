//! Redis Streams.

use std::collections::HashMap;
use std::sync::Arc;

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncCommands, Client};
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

    fn events_key(&self, partition: u32) -> String {
        format!("{{{}}}:events:{partition}", self.prefix)
    }

    async fn client(&self) -> MultiplexedConnection {
        let client = Client::open(self.server.url()).unwrap();
        client.get_multiplexed_async_connection().await.unwrap()
    }

    /// The entries of all partitions, one partition after the other.
    async fn entries(&self) -> Vec<(u32, HashMap<String, Vec<u8>>)> {
        let mut raw = self.client().await;
        let base = format!("{{{}}}", self.prefix);
        let partitions: u32 = raw.hget(base, "partitions").await.unwrap();
        let mut entries = Vec::new();
        for partition in 0..partitions {
            let key = self.events_key(partition);
            let mut from = "-".to_owned();
            loop {
                let page: Vec<(String, HashMap<String, Vec<u8>>)> =
                    raw.xrange_count(&key, &from, "+", PAGE).await.unwrap();
                let Some((last, _)) = page.last() else { break };
                from = format!("({last}");
                entries.extend(page.into_iter().map(|(_, fields)| (partition, fields)));
            }
        }
        entries
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
        let (mut seen, mut partition_of) = (Vec::new(), HashMap::new());
        for (partition, fields) in self.entries().await {
            let sighting = Sighting::from_cloud_event(&fields["event"]);
            assert_eq!(fields["id"], sighting.id.as_bytes());
            // Else there would be no order between its events.
            let home = partition_of.entry(sighting.document.clone());
            assert_eq!(*home.or_insert(partition), partition);
            seen.push(sighting);
        }
        seen
    }

    async fn repeat(&self) {
        let mut raw = self.client().await;
        for (partition, fields) in self.entries().await {
            let fields: Vec<_> = fields.into_iter().collect();
            let key = self.events_key(partition);
            let _id: String = raw.xadd(key, "*", &fields).await.unwrap();
        }
    }
}
