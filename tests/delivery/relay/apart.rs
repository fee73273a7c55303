use std::collections::HashSet;
use std::sync::Arc;

use super::stores::Stores;
use super::support::*;
use nodestorage::bus::EventBus;
use nodestorage::{EventId, Storage};

/// The same documents with the same versions in two databases, published on one stream.
pub(super) async fn two_databases_on_one_stream_share_no_event_id(stores: Stores) {
    let stream = TestBus::new();
    for _ in 0..2 {
        let bus: Arc<dyn EventBus> = Arc::clone(&stream) as _;
        let storage = Storage::builder()
            .shared_backend(stores.open().await)
            .shared_bus(bus)
            .relay_options(options())
            .open()
            .await
            .unwrap();
        for n in 0..30 {
            let id = format!("u{}", n % 10);
            let set = |_: Option<bson::Document>| bson::doc! { "n": n };
            storage.update("users", id.as_str(), set).await.unwrap();
        }
        storage.flush().await.unwrap();
        storage.close().await;
    }
    let events = stream.published.events();
    assert_eq!(events.len(), 60);
    let ids: HashSet<EventId> = events.iter().map(|event| event.id()).collect();
    assert_eq!(ids.len(), 60);
    let versions: HashSet<_> = events
        .iter()
        .map(|event| (event.document().to_string(), event.version()))
        .collect();
    assert_eq!(versions.len(), 30, "they differ in nothing else");
}
