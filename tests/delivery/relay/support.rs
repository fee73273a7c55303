use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bson::DateTime;
use serde_json::json;
use tokio::sync::{Semaphore, watch};
use uuid::Uuid;

use nodestorage::bus::{
    BusCapabilities, EventBus, EventHandler, PublishError, RedeliveryPolicy, Subscription,
    SubscriptionHandle,
};
use nodestorage::document::{DocumentKey, Version};
use nodestorage::error::{Error, ErrorKind, Result};
use nodestorage::event::{Event, EventId, Metadata};
use nodestorage::relay::{Relay, RelayHandle, RelayOptions, RelayState};
use nodestorage::storage::backend::{
    Backend, EntryKind, LogEntry, LoggedData, LoggedEvent, Position, Unit,
};
use nodestorage::testing::bus::Recorder;

/// Long enough for renewals on a busy machine, short enough for tests.
pub(super) const TTL: Duration = Duration::from_millis(600);

pub(super) fn options() -> RelayOptions {
    RelayOptions::new()
        .with_lease_ttl(TTL)
        .with_checkpoints(10, Duration::from_millis(20))
        .with_attempts(
            RedeliveryPolicy::new()
                .with_attempts(3)
                .with_delays(Duration::from_millis(1), Duration::from_millis(10)),
        )
        .with_drain_timeout(Duration::from_millis(300))
}

pub(super) fn start(store: &Arc<dyn Backend>, bus: &Arc<TestBus>) -> RelayHandle {
    start_with(store, bus, options())
}

pub(super) fn start_with(
    store: &Arc<dyn Backend>,
    bus: &Arc<TestBus>,
    options: RelayOptions,
) -> RelayHandle {
    let bus: Arc<dyn EventBus> = Arc::clone(bus) as _;
    Relay::new(Arc::clone(store))
        .with_bus(bus)
        .with_options(options)
        .start()
        .unwrap()
}

pub(super) fn key(id: &str) -> DocumentKey {
    DocumentKey::new("users", id)
}

/// Commits a version whose event stands for a change to a damaged document.
pub(super) async fn commit_unreadable(store: &Arc<dyn Backend>, id: &str, version: u64) {
    let mut entry = entry(store, id, version, &["Odd"]);
    // A field "a" of a type that BSON does not have.
    let damaged = vec![8, 0, 0, 0, 0x7E, b'a', 0, 0];
    entry.after = Some(bson::RawDocumentBuf::from_bytes(damaged).unwrap());
    entry.events[0].data = LoggedData::Change { merge_patch: None };
    write(store, entry).await;
}

/// Commits one version with events of these types.
pub(super) async fn commit(
    store: &Arc<dyn Backend>,
    id: &str,
    version: u64,
    types: &[&str],
) -> Position {
    write(store, entry(store, id, version, types)).await
}

fn entry(store: &Arc<dyn Backend>, id: &str, version: u64, types: &[&str]) -> LogEntry {
    let key = key(id);
    let version = Version::new(version);
    let events = types
        .iter()
        .zip(0..)
        .map(|(event_type, index)| LoggedEvent {
            id: EventId::derive(store.store_id(), &key, version, index),
            event_type: (*event_type).to_owned(),
            schema: 1,
            data: LoggedData::Json(json!({ "index": index })),
        })
        .collect();
    LogEntry {
        key,
        version,
        position: Position::START,
        at: DateTime::from_millis(1_700_000_000_000),
        commit: Uuid::now_v7(),
        kind: EntryKind::Appended,
        patch: None,
        after: None,
        events,
        aggregate_type: "User".to_owned(),
        version_field: "version".into(),
        metadata: Metadata::default(),
    }
}

async fn write(store: &Arc<dyn Backend>, entry: LogEntry) -> Position {
    let unit = Unit {
        entries: vec![entry],
        ..Unit::default()
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    store.commit(&[unit], deadline).await.unwrap().position
}

/// The first version of so many documents, in a few commits.
pub(super) async fn commit_each(store: &Arc<dyn Backend>, documents: usize, event_type: &str) {
    let units: Vec<_> = (0..documents)
        .map(|n| Unit {
            entries: vec![entry(store, &format!("u{n}"), 1, &[event_type])],
            ..Unit::default()
        })
        .collect();
    for units in units.chunks(1_000) {
        let deadline = Instant::now() + Duration::from_secs(10);
        store.commit(units, deadline).await.unwrap();
    }
}

/// One event whose payload has about so many bytes.
pub(super) async fn commit_large(store: &Arc<dyn Backend>, id: &str, version: u64, bytes: usize) {
    let mut entry = entry(store, id, version, &["Large"]);
    entry.events[0].data = LoggedData::Json(json!({ "text": "x".repeat(bytes) }));
    write(store, entry).await;
}

/// One event per version for each document, versions outside.
pub(super) async fn commit_many(
    store: &Arc<dyn Backend>,
    documents: u64,
    versions: std::ops::RangeInclusive<u64>,
) -> Position {
    let mut last = Position::START;
    for version in versions {
        for document in 0..documents {
            last = commit(store, &format!("u{document}"), version, &["Updated"]).await;
        }
    }
    last
}

pub(super) async fn until(relay: &RelayHandle, what: &str, wanted: impl Fn(&RelayState) -> bool) {
    let mut state = relay.state_changes();
    let waiting = state.wait_for(|state| wanted(state));
    let result = tokio::time::timeout(Duration::from_secs(20), waiting).await;
    assert!(result.is_ok(), "not {what}, but {:?}", relay.state());
}

pub(super) async fn until_following(relay: &RelayHandle) {
    until(relay, "following", |state| {
        matches!(state, RelayState::Following)
    })
    .await;
}

/// `type id@version.index` of events, in order.
pub(super) fn names(events: &[Event]) -> Vec<String> {
    events
        .iter()
        .map(|event| {
            let id = event.aggregate_id();
            format!(
                "{} {id}@{}.{}",
                event.event_type(),
                event.version(),
                event.index()
            )
        })
        .collect()
}

/// Every version of every document is there, first deliveries in order; repetitions may come between.
pub(super) fn assert_complete(events: &[Event], documents: u64, versions: u64) {
    for document in 0..documents {
        let id = format!("u{document}");
        let mut reached = 0;
        for event in events {
            if event.aggregate_id().to_string() == id {
                let version = event.version().get();
                assert!(version <= reached + 1, "{id}: {version} after {reached}");
                reached = reached.max(version);
            }
        }
        assert_eq!(reached, versions, "{id}");
    }
}

/// A bus that records what it confirmed and fails on demand.
#[derive(Debug)]
pub(super) struct TestBus {
    pub(super) published: Recorder,
    pub(super) calls: AtomicUsize,
    /// How many events each call came with.
    pub(super) batches: Mutex<Vec<usize>>,
    up: watch::Sender<bool>,
    poison: Mutex<HashSet<String>>,
    gate: Semaphore,
}

/// Permits of an open gate.
const OPEN: usize = Semaphore::MAX_PERMITS / 2;

impl TestBus {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            published: Recorder::new(),
            calls: AtomicUsize::new(0),
            batches: Mutex::default(),
            up: watch::Sender::new(true),
            poison: Mutex::default(),
            gate: Semaphore::new(OPEN),
        })
    }

    pub(super) fn set_up(&self, up: bool) {
        self.up.send_replace(up);
    }

    /// Makes events of a type impossible to publish, or possible again.
    pub(super) fn set_poison(&self, event_type: &str, poison: bool) {
        let mut types = self.poison.lock().unwrap();
        if poison {
            types.insert(event_type.to_owned());
        } else {
            types.remove(event_type);
        }
    }

    /// Publishing does not return until the gate is opened.
    pub(super) fn shut_gate(&self) {
        self.gate.forget_permits(OPEN);
    }

    pub(super) fn open_gate(&self) {
        self.gate.add_permits(OPEN);
    }

    pub(super) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    pub(super) fn names(&self) -> Vec<String> {
        names(&self.published.events())
    }
}

#[async_trait]
impl EventBus for TestBus {
    fn capabilities(&self) -> BusCapabilities {
        BusCapabilities::default()
    }

    async fn publish(&self, events: &[Event]) -> Result<(), PublishError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.batches.lock().unwrap().push(events.len());
        let _open = self.gate.acquire().await.unwrap();
        for (confirmed, event) in events.iter().enumerate() {
            if !*self.up.borrow() {
                let error = Error::new(ErrorKind::Unavailable, "bus is down");
                return Err(PublishError::unavailable(confirmed, error));
            }
            if self.poison.lock().unwrap().contains(event.event_type()) {
                let error = Error::new(ErrorKind::TooLarge, "event is too large");
                return Err(PublishError::poison(confirmed, error.with_source("bytes")));
            }
            self.published.record(event.clone());
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
