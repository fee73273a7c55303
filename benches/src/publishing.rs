//! Publishing in batches: a bus, and the raw client that sends the same bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use fastrand::Rng;
use nodestorage::bus::EventBus;
use nodestorage::event::{CloudEvents, EventParts, EventSerializer as _};
use nodestorage::{DocumentKey, Event, EventId, Metadata, Version};
use serde_json::json;
use uuid::Uuid;

use crate::broker::Broker;
use crate::contender::Contender;
use crate::load::{Length, Sample, micros};
use crate::run::DOCUMENTS;
use crate::user::{COLLECTION, id, new_status};

/// As the relay publishes by default.
pub(crate) const BATCH: usize = 256;

/// Events of random documents, and their bytes on the wire.
pub(crate) struct Batch {
    pub(crate) events: Vec<Event>,
    pub(crate) payloads: Vec<Vec<u8>>,
}

/// Makes events as the relay makes them of updates, each once.
struct Source {
    store: Uuid,
    version: AtomicU64,
}

impl Source {
    fn new() -> Self {
        Self {
            store: Uuid::now_v7(),
            version: AtomicU64::new(1),
        }
    }

    fn batch(&self, rng: &mut Rng) -> Result<Batch> {
        let events: Vec<Event> = (0..BATCH).map(|_| self.event(rng)).collect();
        let payloads: nodestorage::Result<Vec<Vec<u8>>> =
            events.iter().map(|it| CloudEvents.serialize(it)).collect();
        Ok(Batch {
            payloads: payloads?,
            events,
        })
    }

    fn event(&self, rng: &mut Rng) -> Event {
        let document = DocumentKey::new(COLLECTION, id(rng.usize(0..DOCUMENTS)));
        let version = self.version.fetch_add(1, Ordering::Relaxed) + 1;
        let status = new_status(rng);
        Event::from_parts(EventParts {
            id: EventId::derive(self.store, &document, Version::new(version), 0),
            event_type: "UsersUpdated".into(),
            aggregate_type: COLLECTION.into(),
            document,
            version: Version::new(version),
            index: 0,
            time: bson::DateTime::now(),
            schema: 1,
            // What the default mapper makes of an update.
            data: json!({
                "diff": [
                    { "op": "replace", "path": "/status", "value": status },
                    { "op": "replace", "path": "/counter", "value": version },
                ],
                "merge_patch": { "status": status, "counter": version },
            }),
            metadata: Metadata::default(),
        })
    }
}

/// What publishes a batch and returns when all of it is confirmed.
pub(crate) trait Publisher {
    fn publish(&self, batch: &Batch) -> impl Future<Output = Result<()>>;
}

/// Ours; it makes the bytes itself.
pub(crate) struct OnBus(pub(crate) Arc<dyn EventBus>);

impl Publisher for OnBus {
    async fn publish(&self, batch: &Batch) -> Result<()> {
        Ok(self.0.publish(&batch.events).await?)
    }
}

/// A publisher that sends one batch after the other.
pub(crate) struct Publishing<'a, P> {
    publisher: P,
    source: Source,
    broker: &'a Broker,
    prefix: &'static str,
}

impl<'a, P> Publishing<'a, P> {
    pub(crate) fn new(publisher: P, broker: &'a Broker, prefix: &'static str) -> Self {
        Self {
            publisher,
            source: Source::new(),
            broker,
            prefix,
        }
    }
}

impl<P: Publisher> Contender for Publishing<'_, P> {
    /// Only the calls are measured; making the events is not.
    async fn run(&self, length: Length, round: usize) -> Result<Sample> {
        let mut rng = Rng::with_seed(round as u64);
        let mut sample = Sample::default();
        let begin = Instant::now() + length.warm_up;
        let mut spent = Duration::ZERO;
        while spent < length.measured {
            let batch = self.source.batch(&mut rng)?;
            let started = Instant::now();
            self.publisher.publish(&batch).await?;
            let ended = Instant::now();
            sample.acknowledged += BATCH as u64;
            if begin <= started {
                spent += ended - started;
                sample.measured += BATCH as u64;
                sample.latencies_us.push(micros(ended - started));
            }
        }
        sample.seconds = spent.as_secs_f64();
        sample.latencies_us.sort_unstable_by(f32::total_cmp);
        Ok(sample)
    }

    async fn check(&self, acknowledged: u64) -> Result<()> {
        let stored = self.broker.stored(self.prefix).await?;
        ensure!(
            stored == acknowledged,
            "the broker has {stored} events, {acknowledged} were acknowledged"
        );
        Ok(())
    }
}
