//! A bus that is a file: what is in it was published, whoever dies afterwards.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use nodestorage::bus::{
    BusCapabilities, EventBus, EventHandler, PublishError, Subscription, SubscriptionHandle,
};
use nodestorage::error::{Error, ErrorKind, Result};
use nodestorage::event::{EventSerializer, PlainJson};
use nodestorage::storage::backend::LogRange;
use nodestorage::{DocumentKey, Event, EventId, Storage, Version};

use crate::check::COLLECTION;

/// Appends events to a file, one per line. Several processes may write to one file: each batch is one
/// write at its end.
#[derive(Debug)]
pub(crate) struct FileBus(Mutex<File>);

impl FileBus {
    pub(crate) fn open(path: &Path) -> Self {
        let file = OpenOptions::new().append(true).create(true).open(path);
        Self(Mutex::new(file.unwrap()))
    }
}

#[async_trait]
impl EventBus for FileBus {
    fn capabilities(&self) -> BusCapabilities {
        BusCapabilities::default()
    }

    async fn publish(&self, events: &[Event]) -> Result<(), PublishError> {
        // A process that is killed in the middle of a write leaves half a line, which was not confirmed.
        let mut lines = vec![b'\n'];
        for event in events {
            lines.extend(PlainJson.serialize(event).unwrap());
            lines.push(b'\n');
        }
        self.0.lock().unwrap().write_all(&lines).unwrap();
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

/// Compares what was published with the log of the storage.
///
/// # Panics
/// When an event is missing, first deliveries of a document are out of order, an event came under two ids,
/// or something was published that is not in the log.
pub(crate) async fn compare(what: &str, storage: &Storage, documents: u64, file: &Path) {
    let bytes = std::fs::read(file).unwrap();
    let lines = bytes.split(|byte| *byte == b'\n');
    let published: Vec<Event> = lines
        .filter_map(|line| PlainJson.deserialize(line).ok())
        .collect();
    let mut ids: HashMap<(DocumentKey, Version, u32), EventId> = HashMap::new();
    let mut reached: BTreeMap<String, u64> = BTreeMap::new();
    let (mut repeated, mut out_of_order) = (0, 0);
    for event in &published {
        let place = (event.document().clone(), event.version(), event.index());
        if let Some(known) = ids.insert(place, event.id()) {
            assert_eq!(known, event.id(), "{}", event.document());
            repeated += 1;
            continue;
        }
        let reached = reached.entry(event.aggregate_id().to_string()).or_default();
        // One event per version.
        if event.version() != *reached + 1 {
            out_of_order += 1;
        }
        *reached = event.version().get().max(*reached);
    }
    let (mut logged, mut lost) = (0, 0);
    for document in 0..documents {
        let key = DocumentKey::new(COLLECTION, format!("doc-{document}"));
        let mut from = Version::new(1);
        loop {
            let range = LogRange {
                key: key.clone(),
                from,
                to: Version::MAX,
                until: None,
                newest_first: false,
                limit: 1_000,
            };
            let entries = storage.backend().read_log(&range).await.unwrap();
            let Some(last) = entries.last() else { break };
            for entry in &entries {
                assert_eq!(entry.version, from, "versions of {key} are contiguous");
                from = from.next();
                for event in entry.to_events().unwrap() {
                    logged += 1;
                    let place = (key.clone(), event.version(), event.index());
                    if ids.remove(&place) != Some(event.id()) {
                        lost += 1;
                    }
                }
            }
            from = last.version.next();
        }
    }
    eprintln!(
        "faults: {what}: {logged} events, {lost} lost, {out_of_order} out of order, {repeated} duplicates, all \
         same id"
    );
    assert_eq!((lost, out_of_order), (0, 0));
    assert!(ids.is_empty(), "{} events are not in the log", ids.len());
    assert!(logged > 0);
}
