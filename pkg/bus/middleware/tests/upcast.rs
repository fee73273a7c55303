use std::sync::{Arc, Mutex};

use serde_json::json;

use super::super::*;
use crate::bus::samples::event;
use crate::bus::{EventHandler, EventHandlerExt};
use crate::event::{EventRegistry, UnknownEvents, Upcaster};

#[tokio::test]
async fn events_are_handled_in_their_current_form() {
    let registry = EventRegistry::new(UnknownEvents::Fail)
        .with_type("OrderPlaced", 3)
        .unwrap()
        .with_upcaster(Upcaster::renaming(
            "OrderPlacedV1",
            1,
            "OrderPlaced",
            2,
            |data| Ok(json!({"total": data, "currency": "EUR"})),
        ))
        .unwrap()
        .with_upcaster(Upcaster::new("OrderPlaced", 2, |mut data| {
            data["paid"] = json!(false);
            Ok(data)
        }))
        .unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let handler = {
        let seen = Arc::clone(&seen);
        move |event: Event| {
            seen.lock().unwrap().push(event);
            async {}
        }
    };
    let handler = handler.with(Upcast::by(Arc::new(registry)));
    handler.handle(event("OrderPlacedV1", 1)).await.unwrap();
    {
        let seen = seen.lock().unwrap();
        assert_eq!((seen[0].event_type(), seen[0].schema()), ("OrderPlaced", 3));
        assert_eq!(seen[0].data()["currency"], "EUR");
        assert_eq!(seen[0].data()["paid"], false);
    }
    let error = handler.handle(event("OrderLost", 1)).await.unwrap_err();
    assert!(error.to_string().contains("OrderLost"), "{error}");
    assert_eq!(seen.lock().unwrap().len(), 1);
}
