//! `Change::delivered` and `Storage::flush` of a storage that has no bus of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::stores::Stores;
use super::support::*;
use nodestorage::error::ErrorKind;
use nodestorage::storage::backend::Backend;
use nodestorage::{Change, ChangeView, MapError, NewEvent, Storage};

/// Maps every change to one event; the documents say of which type.
fn mapper(change: &ChangeView<'_>) -> Result<Vec<NewEvent>, MapError> {
    let document = change.after_as::<bson::Document>()?.unwrap_or_default();
    match document.get_str("event") {
        Ok(event_type) => Ok(vec![NewEvent::of_change(event_type)?]),
        Err(_) => Ok(Vec::new()),
    }
}

async fn without_bus(store: &Arc<dyn Backend>) -> Storage {
    Storage::builder()
        .shared_backend(Arc::clone(store))
        .mapper("users", mapper)
        .relay_options(options())
        .open()
        .await
        .unwrap()
}

async fn set(storage: &Storage, id: &str, event: &str) -> Change<bson::Document> {
    let set = |before: Option<bson::Document>| {
        let mut document = before.unwrap_or_default();
        document.insert("n", document.get_i64("n").unwrap_or_default() + 1);
        document.insert("event", event);
        if event.is_empty() {
            document.remove("event");
        }
        document
    };
    storage.update("users", id, set).await.unwrap()
}

pub(super) async fn a_change_without_events_is_delivered_at_once(stores: Stores) {
    let storage = without_bus(&stores.open().await).await;
    let change = set(&storage, "a", "").await;
    assert!(change.events().is_empty());
    change.delivered().await.unwrap();
    storage.close().await;
}

pub(super) async fn without_any_relay_nothing_confirms_a_delivery(stores: Stores) {
    let storage = without_bus(&stores.open().await).await;
    let change = set(&storage, "a", "Fine").await;
    let error = change.delivered().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("no relay"), "{error}");
    let error = storage.flush().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(storage.relay().is_none());
    storage.close().await;
}

/// The relay runs in another process: it confirms, parks, and is asked again and again.
pub(super) async fn a_storage_without_a_bus_waits_for_a_relay_elsewhere(stores: Stores) {
    let ((here, there), bus) = (stores.open_twice().await, TestBus::new());
    bus.set_poison("Bad", true);
    let relay = start(&there, &bus);
    until_following(&relay).await;
    let storage = without_bus(&here).await;
    bus.shut_gate();
    let change = set(&storage, "a", "Fine").await;
    let waiting = tokio::spawn(async move { change.delivered().await });
    while bus.calls() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(!waiting.is_finished());
    bus.open_gate();
    waiting.await.unwrap().unwrap();
    storage.flush().await.unwrap();
    assert_eq!(bus.names(), ["Fine a@1.0"]);

    let error = set(&storage, "a", "Bad").await.delivered().await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::DeadLettered);
    // What comes after it in its document is held back, other documents are not.
    let error = set(&storage, "a", "Fine").await.delivered().await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::DeadLettered);
    set(&storage, "b", "Fine").await.delivered().await.unwrap();
    let error = storage.flush().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadLettered);
    relay.shutdown().await;
    storage.close().await;
}

/// Somebody may take over, but not for ever.
pub(super) async fn waiting_for_a_relay_elsewhere_ends_some_time_after_it(stores: Stores) {
    let ((here, there), bus) = (stores.open_twice().await, TestBus::new());
    let relay = start(&there, &bus);
    let storage = without_bus(&here).await;
    set(&storage, "a", "Fine").await.delivered().await.unwrap();
    relay.shutdown().await;
    // What it had confirmed before is known as long as its checkpoint is.
    storage.flush().await.unwrap();
    let change = set(&storage, "a", "Fine").await;
    let begin = Instant::now();
    let error = change.delivered().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    // The lease may have been missed already by the question before.
    assert!(begin.elapsed() > TTL / 2 && begin.elapsed() < TTL * 20);
    // The next one answers for it.
    let relay = start(&there, &bus);
    change.delivered().await.unwrap();
    relay.shutdown().await;
    storage.close().await;
}
