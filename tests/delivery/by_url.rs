//! A bus that the storage opens by URL, and subscriptions that the builder is told of.

use bson::{Document, doc};
use nodestorage::bus::{
    EventBus, EventBusExt, MemoryBus, StartFrom, Subscription, SubscriptionState,
};
use nodestorage::error::ErrorKind;
use nodestorage::event::Event;
use nodestorage::testing::bus::{Recorder, sample_event};
use nodestorage::{Storage, StorageBuilder};

fn increment(document: Option<Document>) -> Document {
    let n = document.map_or(0, |document| document.get_i32("n").unwrap());
    doc! { "n": n + 1 }
}

fn recording(recorder: &Recorder) -> impl Fn(Event) -> std::future::Ready<()> + use<> {
    let recorder = recorder.clone();
    move |event| {
        recorder.record(event);
        std::future::ready(())
    }
}

fn in_memory() -> StorageBuilder {
    Storage::builder().url("embedded::memory:")
}

/// What an earlier run has left unpublished is the first thing that the relay publishes: the builder's
/// subscription gets it, one that comes later does not.
#[tokio::test]
async fn a_bus_by_url_loses_nothing_of_what_earlier_runs_left() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("embedded:{}", folder.path().join("store").display());
    let before = Storage::builder().url(&url).open().await.unwrap();
    for _ in 0..20 {
        before.update("users", "a", increment).await.unwrap();
    }
    before.close().await;

    let (early, late) = (Recorder::new(), Recorder::new());
    let storage = Storage::builder()
        .url(&url)
        .bus_url("memory:")
        .subscribe(Subscription::to_all(), recording(&early))
        .open()
        .await
        .unwrap();
    storage.update("users", "a", increment).await.unwrap();
    storage.flush().await.unwrap();
    let bus = storage.bus().unwrap().clone();
    bus.subscribe(Subscription::to_all(), recording(&late))
        .await
        .unwrap();
    let change = storage.update("users", "a", increment).await.unwrap();
    change.delivered().await.unwrap();
    assert_eq!(storage.subscriptions().len(), 1);
    let handle = storage.subscriptions()[0].clone();
    assert_eq!(handle.state(), SubscriptionState::Running);

    // Closing drains the bus and closes it.
    storage.close().await;
    assert_eq!(handle.state(), SubscriptionState::Closed);
    let versions = |seen: &Recorder| -> Vec<u64> {
        let events = seen.events();
        events.iter().map(|event| event.version().get()).collect()
    };
    assert_eq!(versions(&early), (1..=22).collect::<Vec<_>>());
    assert_eq!(versions(&late), [22]);
    let published = bus.publish(&[sample_event("E", "a", 1)]).await;
    let error = nodestorage::Error::from(published.unwrap_err());
    assert_eq!(error.kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn a_bus_by_value_stays_open() {
    let (bus, seen) = (MemoryBus::new(), Recorder::new());
    let storage = in_memory()
        .bus(bus.clone())
        .subscribe(Subscription::to_all(), recording(&seen))
        .open()
        .await
        .unwrap();
    let change = storage.update("users", "a", increment).await.unwrap();
    change.delivered().await.unwrap();
    storage.close().await;
    bus.publish(&[sample_event("E", "a", 1)]).await.unwrap();
    bus.close().await.unwrap();
    assert_eq!(seen.len(), 2);
    // Without a bus there is none to reach.
    let storage = in_memory().open().await.unwrap();
    assert!(storage.bus().is_none() && storage.subscriptions().is_empty());
    storage.close().await;
}

#[tokio::test]
async fn bus_urls_that_cannot_be_served_are_refused_and_not_shown() {
    for (url, says) in [
        ("kafka://user:secret@host", "memory:"),
        ("secret", "memory:"),
        ("", "memory:"),
        ("memory:secret", "has no name"),
        ("redis://user:secret@127.0.0.1:1", ""),
        ("rediss://user:secret@127.0.0.1:1", ""),
        ("nats://user:secret@127.0.0.1:1", ""),
        ("tls://user:secret@127.0.0.1:1", ""),
    ] {
        let error = in_memory().bus_url(url).open().await.unwrap_err();
        // A server that is not there, or a build without its feature.
        let kinds = [ErrorKind::InvalidConfig, ErrorKind::Unavailable];
        assert!(kinds.contains(&error.kind()), "{error:?}");
        assert!(error.to_string().contains(says), "{error}");
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    }
}

/// A storage that does not open leaves no subscription behind.
#[tokio::test]
async fn subscriptions_that_cannot_be_served_are_refused() {
    let nobody = |_: Event| async {};
    let without_bus = in_memory().subscribe(Subscription::to_all(), nobody);
    let error = without_bus.open().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);

    let (bus, seen) = (MemoryBus::new(), Recorder::new());
    let past = Subscription::to_all().with_start(StartFrom::Beginning);
    let error = in_memory()
        .bus(bus.clone())
        .subscribe(Subscription::to_all(), recording(&seen))
        .subscribe(past, nobody)
        .open()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    bus.publish(&[sample_event("E", "a", 1)]).await.unwrap();
    bus.close().await.unwrap();
    assert!(seen.is_empty());
}
