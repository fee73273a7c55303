//! Old events in the log and the code of today.

use serde_json::json;

use crate::error::ErrorKind;
use crate::event::{EventRegistry, NewEvent, UnknownEvents, Upcaster};
use crate::storage::UpdateOptions;
use crate::testing::TestStore;
use crate::testing::support::open;

fn registry(unknown: UnknownEvents) -> EventRegistry {
    EventRegistry::new(unknown)
        .with_type("OrderPlaced", 3)
        .unwrap()
        .with_upcaster(Upcaster::renaming(
            "OrderCreated",
            1,
            "OrderPlaced",
            2,
            |mut data| {
                data["currency"] = json!("EUR");
                Ok(data)
            },
        ))
        .unwrap()
        .with_upcaster(Upcaster::new("OrderPlaced", 2, |data| {
            let total = data["total"].as_i64().ok_or("no total")?;
            Ok(json!({ "amount": { "value": total, "currency": data["currency"] } }))
        }))
        .unwrap()
}

/// Events of schema 1 that were read from the log become schema 3 through the chain of upcasters, ids and
/// versions as they were; current ones stay.
pub async fn old_events_from_the_log_are_upcast_through_the_chain(store: &dyn TestStore) {
    let storage = open(store).await;
    let events = vec![
        NewEvent::new("OrderCreated", json!({ "total": 5 })).unwrap(),
        NewEvent::new("OrderPlaced", json!({ "total": 7, "currency": "CHF" }))
            .unwrap()
            .with_schema(2),
        NewEvent::new(
            "OrderPlaced",
            json!({ "amount": { "value": 9, "currency": "USD" } }),
        )
        .unwrap()
        .with_schema(3),
    ];
    storage
        .append("order-1", events, UpdateOptions::new())
        .await
        .unwrap();
    let registry = registry(UnknownEvents::Fail);
    let mut amounts = Vec::new();
    for event in storage.read("order-1", ..).await.unwrap() {
        let new = registry.upcast(event.clone()).unwrap();
        assert_eq!((new.event_type(), new.schema()), ("OrderPlaced", 3));
        assert_eq!((new.id(), new.version()), (event.id(), event.version()));
        amounts.push((
            new.data()["amount"]["value"].clone(),
            new.data()["amount"]["currency"].clone(),
        ));
    }
    assert_eq!(
        amounts,
        [
            (json!(5), json!("EUR")),
            (json!(7), json!("CHF")),
            (json!(9), json!("USD"))
        ]
    );
}

/// Unknown types and schemas are typed errors that name them, or passed on as they are, as configured;
/// an upcaster that fails is an error either way.
pub async fn unknown_events_fail_or_pass_as_configured(store: &dyn TestStore) {
    let storage = open(store).await;
    let events = vec![
        NewEvent::new("Unheard", json!(1)).unwrap(),
        NewEvent::new("OrderPlaced", json!(1))
            .unwrap()
            .with_schema(9),
        NewEvent::new("OrderPlaced", json!({ "odd": true }))
            .unwrap()
            .with_schema(2),
    ];
    storage
        .append("order-1", events, UpdateOptions::new())
        .await
        .unwrap();
    let read = storage.read("order-1", ..).await.unwrap();
    for event in &read[..2] {
        let error = registry(UnknownEvents::Fail)
            .upcast(event.clone())
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Serialization);
        assert!(error.to_string().contains(event.event_type()), "{error}");
        assert_eq!(
            &registry(UnknownEvents::Pass).upcast(event.clone()).unwrap(),
            event
        );
    }
    for unknown in [UnknownEvents::Fail, UnknownEvents::Pass] {
        let error = registry(unknown).upcast(read[2].clone()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Serialization);
    }
}
