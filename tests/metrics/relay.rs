//! The relay.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bson::DateTime;
use nodestorage::bus::{
    BusCapabilities, EventBus, EventHandler, PublishError, RedeliveryPolicy, Subscription,
    SubscriptionHandle,
};
use nodestorage::clock::Clock;
use nodestorage::relay::{Relay, RelayHandle, RelayOptions};
use nodestorage::storage::Delivery;
use nodestorage::storage::backend::{
    Backend, EntryKind, LogEntry, LoggedData, LoggedEvent, Position, Unit,
};
use nodestorage::storage::embedded::EmbeddedBackend;
use nodestorage::testing::bus::eventually;
use nodestorage::{DocumentKey, Error, ErrorKind, Event, EventId, Metadata, Result, Version};
use serde_json::json;
use uuid::Uuid;

use crate::recorder::kept;

/// Down on demand, and never takes an event of the type `Bad`.
#[derive(Debug, Default)]
struct MoodyBus {
    down: AtomicBool,
    well: AtomicBool,
}

#[async_trait]
impl EventBus for MoodyBus {
    fn capabilities(&self) -> BusCapabilities {
        BusCapabilities::default()
    }

    async fn publish(&self, events: &[Event]) -> Result<(), PublishError> {
        for (confirmed, event) in events.iter().enumerate() {
            if self.down.load(Ordering::SeqCst) {
                let error = Error::new(ErrorKind::Unavailable, "bus is down");
                return Err(PublishError::unavailable(confirmed, error));
            }
            if event.event_type() == "Bad" && !self.well.load(Ordering::SeqCst) {
                let error = Error::new(ErrorKind::TooLarge, "event is too large");
                return Err(PublishError::poison(confirmed, error));
            }
        }
        Ok(())
    }

    async fn attach(
        &self,
        _: Subscription,
        _: Arc<dyn EventHandler>,
    ) -> Result<SubscriptionHandle> {
        Err(Error::new(ErrorKind::Unsupported, "nobody listens here"))
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

/// Three seconds after the commits of these tests.
#[derive(Debug)]
struct Later;

impl Clock for Later {
    fn now(&self) -> DateTime {
        DateTime::from_millis(1_700_000_003_000)
    }
}

async fn commit(
    store: &Arc<dyn Backend>,
    id: &str,
    versions: std::ops::RangeInclusive<u64>,
    event_type: &str,
) -> Position {
    let mut last = Position::START;
    for version in versions {
        let (key, version) = (DocumentKey::new("users", id), Version::new(version));
        let event = LoggedEvent {
            id: EventId::derive(store.store_id(), &key, version, 0),
            event_type: event_type.to_owned(),
            schema: 1,
            data: LoggedData::Json(json!({})),
        };
        let entry = LogEntry {
            key,
            version,
            position: Position::START,
            at: DateTime::from_millis(1_700_000_000_000),
            commit: Uuid::now_v7(),
            kind: EntryKind::Appended,
            patch: None,
            after: None,
            events: vec![event],
            aggregate_type: "User".to_owned(),
            version_field: "version".into(),
            metadata: Metadata::default(),
        };
        let unit = Unit {
            entries: vec![entry],
            ..Unit::default()
        };
        let deadline = Instant::now() + Duration::from_secs(10);
        last = store.commit(&[unit], deadline).await.unwrap().position;
    }
    last
}

fn start(store: &Arc<dyn Backend>, bus: &Arc<MoodyBus>, name: &str) -> RelayHandle {
    let attempts = RedeliveryPolicy::new()
        .with_attempts(3)
        .with_delays(Duration::from_millis(1), Duration::from_millis(10));
    let options = RelayOptions::new()
        .with_name(name)
        .with_attempts(attempts)
        .with_batch(7)
        .with_clock(Arc::new(Later));
    Relay::new(Arc::clone(store))
        .with_bus(Arc::clone(bus) as Arc<dyn EventBus>)
        .with_options(options)
        .start()
        .unwrap()
}

#[tokio::test]
async fn the_relays_numbers_are_those_of_its_work() {
    let kept = kept();
    let of = |name: &str| kept.get(&format!("nodestorage_relay_{name} relay=counted"));
    let store: Arc<dyn Backend> = Arc::new(EmbeddedBackend::in_memory().unwrap());
    let bus = Arc::new(MoodyBus::default());
    commit(&store, "a", 1..=20, "Fine").await;
    commit(&store, "b", 1..=1, "Bad").await;
    let last = commit(&store, "b", 2..=4, "Fine").await;
    let relay = start(&store, &bus, "counted");
    relay.flush(last).await.unwrap_err();
    assert_eq!(of("published_total").value, 20.0);
    assert_eq!(of("entries_total").value, 24.0);
    assert_eq!(of("dead_letters_total").value, 1.0);
    assert_eq!(of("leading").value, 1.0);
    assert_eq!(of("parked_documents").value, 1.0);
    let batches = of("batch_events").values;
    assert!(batches.iter().all(|events| *events <= 7.0), "{batches:?}");
    assert!(batches.iter().sum::<f64>() >= 21.0, "{batches:?}");
    let took = of("publish_seconds").values;
    assert!(took.len() >= batches.len() && took.iter().all(|took| *took < 60.0));
    assert_eq!(of("delay_seconds").values, [3.0; 24]);
    let retries = of("retries_total").value;

    bus.well.store(true, Ordering::SeqCst);
    relay
        .release(&DocumentKey::new("users", "b"))
        .await
        .unwrap();
    assert_eq!(of("published_total").value, 24.0);
    assert_eq!(of("parked_documents").value, 0.0);
    eventually("it has caught up", || async {
        of("backlog_entries").value == 0.0 && of("lag_seconds").value == 0.0
    })
    .await;

    bus.down.store(true, Ordering::SeqCst);
    let last = commit(&store, "a", 21..=30, "Fine").await;
    eventually("it retries", || async {
        of("retries_total").value > retries
    })
    .await;
    let lag = relay.lag().await.unwrap();
    assert_eq!((lag.entries, lag.age), (10, Duration::from_secs(3)));
    assert_eq!(of("backlog_entries").value, 10.0);
    assert_eq!(of("lag_seconds").value, 3.0);
    bus.down.store(false, Ordering::SeqCst);
    relay.flush(last).await.unwrap();
    eventually("it has caught up", || async {
        of("backlog_entries").value == 0.0 && of("lag_seconds").value == 0.0
    })
    .await;
    relay.shutdown().await;
    assert_eq!(of("leading").value, 0.0);
    // What is documented is what there is.
    let expected = [
        "backlog_entries",
        "batch_events",
        "dead_letters_total",
        "delay_seconds",
        "entries_total",
        "lag_seconds",
        "leading",
        "parked_documents",
        "publish_seconds",
        "published_total",
        "retries_total",
    ];
    let names: Vec<String> = kept
        .names()
        .into_iter()
        .filter_map(|name| {
            let name = name.strip_prefix("nodestorage_relay_")?;
            Some(name.strip_suffix(" relay=counted")?.to_owned())
        })
        .collect();
    assert_eq!(names, expected);
}

/// Nobody asks, the gauges move all the same.
#[tokio::test(start_paused = true)]
async fn a_stalled_relay_shows_in_the_gauges_within_seconds() {
    let kept = kept();
    let of = |name: &str| kept.get(&format!("nodestorage_relay_{name} relay=stalled"));
    let store: Arc<dyn Backend> = Arc::new(EmbeddedBackend::in_memory().unwrap());
    let bus = Arc::new(MoodyBus::default());
    bus.down.store(true, Ordering::SeqCst);
    commit(&store, "a", 1..=10, "Fine").await;
    let relay = start(&store, &bus, "stalled");
    let begin = tokio::time::Instant::now();
    eventually("the gauges show it", || async {
        of("backlog_entries").value == 10.0 && of("lag_seconds").value == 3.0
    })
    .await;
    assert!(begin.elapsed() < Duration::from_secs(15));
    bus.down.store(false, Ordering::SeqCst);
    eventually("and its end", || async {
        of("backlog_entries").value == 0.0 && of("lag_seconds").value == 0.0
    })
    .await;
    relay.shutdown().await;
}
