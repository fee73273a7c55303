//! Events that a projection cannot take.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::support::{Listing, WITHIN, assert_lists, count_up, key, quick, until_state};
use crate::document::DocumentId;
use crate::error::{BoxError, ErrorKind};
use crate::event::{Event, EventRegistry, NewEvent, UnknownEvents, Upcaster};
use crate::projection::{Projection, ProjectionState};
use crate::storage::Index;
use crate::testing::TestStore;
use crate::testing::support::{kind_of, open};

/// An event at which the fold fails, or panics, goes to the dead letters after some attempts. The later
/// events of its document wait, those of others do not. When the fold is mended they are replayed in order.
pub async fn a_failing_event_waits_in_the_dead_letters(store: &dyn TestStore) {
    let storage = open(store).await;
    let listing = Listing::new();
    let trouble = listing.trouble.clone();
    trouble.at("a", 2).at("b", 3);
    let listing = storage.project(listing, quick()).unwrap();
    for id in ["a", "b", "c"] {
        count_up(&storage, id, 5).await;
    }
    listing.wait_for(&key("c"), 5_u64, WITHIN).await.unwrap();
    assert_lists(&listing, "a", 1).await;
    assert_lists(&listing, "b", 2).await;
    assert_lists(&listing, "c", 5).await;
    for (id, version) in [("a", 2_u64), ("a", 5), ("b", 3)] {
        let waiting = listing.wait_for(&key(id), version, WITHIN).await;
        assert_eq!(kind_of(waiting), ErrorKind::DeadLettered);
    }
    listing.wait_for(&key("b"), 2_u64, WITHIN).await.unwrap();
    let mut letters = listing.dead_letters(None, 10).await.unwrap();
    letters.sort_by_key(|letter| letter.document.clone());
    let [a, b] = &letters[..] else {
        panic!("{letters:?}")
    };
    assert_eq!(
        (a.document.clone(), a.version.get(), a.index),
        (key("a"), 2, 0)
    );
    assert_eq!((a.attempts, a.event_type.as_str()), (3, "CountersUpdated"));
    assert_eq!(a.error, "projection panicked: at version 2");
    assert_eq!(b.error, "no version 3 today");
    let page = listing.dead_letters(None, 1).await.unwrap();
    let next = listing
        .dead_letters(Some(&page[0].document), 9)
        .await
        .unwrap();
    assert_eq!(page.len() + next.len(), 2);

    // It fails again; then it does not.
    let replayed = listing.replay(&key("a")).await;
    assert_eq!(kind_of(replayed), ErrorKind::DeadLettered);
    trouble.mend("a");
    listing.replay(&key("a")).await.unwrap();
    assert_lists(&listing, "a", 5).await;
    assert_eq!(
        kind_of(listing.replay(&key("a")).await),
        ErrorKind::NotFound
    );
    let version = count_up(&storage, "a", 1).await;
    listing.wait_for(&key("a"), version, WITHIN).await.unwrap();
    assert_lists(&listing, "a", 6).await;

    // Mended at one place, it may fail at a later one.
    trouble.mend("b");
    trouble.at("b", 5);
    let replayed = listing.replay(&key("b")).await;
    assert_eq!(kind_of(replayed), ErrorKind::DeadLettered);
    assert_lists(&listing, "b", 4).await;
    let letters = listing.dead_letters(None, 10).await.unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].version, 5);
    trouble.mend("b");
    assert_eq!(listing.replay_all().await.unwrap(), 1);
    assert_lists(&listing, "b", 5).await;
    assert!(listing.dead_letters(None, 10).await.unwrap().is_empty());
    listing.shutdown().await;
}

/// An event that is given up is left out, and nothing else.
pub async fn a_failing_event_can_be_discarded(store: &dyn TestStore) {
    let storage = open(store).await;
    let listing = Listing::new();
    listing.trouble.at("a", 2).at("a", 4);
    let listing = storage.project(listing, quick()).unwrap();
    let version = count_up(&storage, "a", 5).await;
    let waiting = listing.wait_for(&key("a"), version, WITHIN).await;
    assert_eq!(kind_of(waiting), ErrorKind::DeadLettered);
    let discarded = listing.discard(&key("a")).await;
    assert_eq!(kind_of(discarded), ErrorKind::DeadLettered);
    listing.discard(&key("a")).await.unwrap();
    let version = count_up(&storage, "a", 1).await;
    listing.wait_for(&key("a"), version, WITHIN).await.unwrap();
    let view = listing.views().load("a").await.unwrap();
    assert_eq!(view.seen, [1, 3, 5, 6]);
    listing.shutdown().await;
}

/// Parked documents are parked for the next owner too, who can replay them.
pub async fn parked_documents_survive_a_takeover(store: &dyn TestStore) {
    let storage = open(store).await;
    let listing = Listing::new();
    let trouble = listing.trouble.clone();
    trouble.at("a", 2);
    let first = storage.project(listing.clone(), quick()).unwrap();
    let version = count_up(&storage, "a", 3).await;
    let waiting = first.wait_for(&key("a"), version, WITHIN).await;
    assert_eq!(kind_of(waiting), ErrorKind::DeadLettered);
    first.shutdown().await;
    count_up(&storage, "a", 2).await;
    count_up(&storage, "b", 2).await;
    let second = storage.project(listing, quick()).unwrap();
    second.wait_for(&key("b"), 2_u64, WITHIN).await.unwrap();
    let waiting = second.wait_for(&key("a"), 5_u64, WITHIN).await;
    assert_eq!(kind_of(waiting), ErrorKind::DeadLettered);
    trouble.mend("a");
    second.replay(&key("a")).await.unwrap();
    assert_lists(&second, "a", 5).await;
    second.shutdown().await;
}

/// When too many documents are parked the projection waits for somebody, and goes on afterwards.
pub async fn too_many_parked_documents_stop_it(store: &dyn TestStore) {
    let storage = open(store).await;
    let listing = Listing::new();
    let trouble = listing.trouble.clone();
    for id in ["a", "b", "c"] {
        trouble.at(id, 1);
        count_up(&storage, id, 2).await;
    }
    let listing = storage
        .project(listing, quick().with_max_parked(3))
        .unwrap();
    let state = until_state(&listing, "it is blocked", |state| {
        matches!(state, ProjectionState::Blocked(_))
    });
    let state = state.await;
    assert_eq!(state.error().unwrap().kind(), ErrorKind::DeadLettered);
    let version = count_up(&storage, "d", 3).await;
    for id in ["a", "b", "c"] {
        trouble.mend(id);
    }
    listing.replay(&key("b")).await.unwrap();
    listing.wait_for(&key("d"), version, WITHIN).await.unwrap();
    assert_eq!(listing.replay_all().await.unwrap(), 2);
    for (id, last) in [("a", 2), ("b", 2), ("c", 2), ("d", 3)] {
        assert_lists(&listing, id, last).await;
    }
    until_state(&listing, "it follows", |state| {
        matches!(state, ProjectionState::Following)
    })
    .await;
    listing.shutdown().await;
}

/// Orders in the form of today: an amount and a currency.
#[derive(Debug)]
struct Orders;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Order {
    placed: Vec<(i64, String)>,
}

impl Projection for Orders {
    type View = Order;

    fn name(&self) -> &str {
        "orders"
    }

    fn handles(&self, event_type: &str, _: &str) -> bool {
        event_type == "OrderPlaced"
    }

    fn apply(
        &self,
        _: &DocumentId,
        view: Option<Order>,
        event: &Event,
    ) -> Result<Option<Order>, BoxError> {
        let data = event.data();
        let amount = data["amount"].as_i64().ok_or("no amount")?;
        let currency = data["currency"].as_str().ok_or("no currency")?;
        let mut view = view.unwrap_or(Order { placed: Vec::new() });
        view.placed.push((amount, currency.to_owned()));
        Ok(Some(view))
    }
}

/// Older events come in today's form, under today's name; one of a newer schema than the code knows goes to
/// the dead letters, and comes when the code knows it. What does not concern the projection need not be
/// known.
pub async fn events_come_in_the_form_that_the_code_knows(store: &dyn TestStore) {
    let registry = |newest: u32| {
        let registry = EventRegistry::new(UnknownEvents::Fail)
            .with_type("OrderPlaced", newest)
            .unwrap()
            .with_upcaster(Upcaster::renaming(
                "OrderPlacedV1",
                1,
                "OrderPlaced",
                2,
                |mut data| {
                    data["currency"] = json!("EUR");
                    Ok(data)
                },
            ))
            .unwrap();
        let to_three = |mut data: serde_json::Value| {
            data["currency"] = json!(data["currency"].as_str().unwrap_or("").to_lowercase());
            Ok(data)
        };
        Arc::new(match newest {
            2 => registry,
            _ => registry
                .with_upcaster(Upcaster::new("OrderPlaced", 2, to_three))
                .unwrap(),
        })
    };
    let storage = open(store).await;
    let placed = |name: &str, schema: u32, data: serde_json::Value| {
        NewEvent::new(name, data).unwrap().with_schema(schema)
    };
    let old = placed("OrderPlacedV1", 1, json!({ "amount": 1 }));
    let today = placed("OrderPlaced", 2, json!({ "amount": 2, "currency": "USD" }));
    let newer = placed("OrderPlaced", 3, json!({ "amount": 3, "currency": "usd" }));
    let other = placed("SomethingElse", 9, json!({}));
    let events = vec![old.clone(), other, today, newer, old];
    storage
        .append("order-1", events, Default::default())
        .await
        .unwrap();
    let options = quick().with_registry(registry(2));
    let orders = storage.project(Orders, options).unwrap();
    orders.caught_up(WITHIN).await.unwrap();
    let view = orders.views().load("order-1").await.unwrap();
    assert_eq!(view.placed, [(1, "EUR".to_owned()), (2, "USD".to_owned())]);
    let letters = orders.dead_letters(None, 10).await.unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].version, 4);
    assert!(letters[0].error.contains("unknown schema 3"), "{letters:?}");
    orders.shutdown().await;
    let options = quick().with_registry(registry(3));
    let orders = storage.project(Orders, options).unwrap();
    let stream = letters[0].document.clone();
    until_state(&orders, "it follows", |state| {
        matches!(state, ProjectionState::Following)
    })
    .await;
    orders.replay(&stream).await.unwrap();
    let view = orders.views().load("order-1").await.unwrap();
    assert_eq!(
        view.placed[2..],
        [(3, "usd".to_owned()), (1, "eur".to_owned())]
    );
    orders.shutdown().await;
}

/// A view whose form depends on the event.
#[derive(Debug)]
struct Shaping;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Shape {
    Fine { mail: String, last: i64 },
    Number(i64),
}

impl Projection for Shaping {
    type View = Shape;

    fn name(&self) -> &str {
        "shaping"
    }

    fn handles(&self, event_type: &str, _: &str) -> bool {
        event_type == "Shaped"
    }

    fn keys(&self, event: &Event) -> Vec<DocumentId> {
        vec![event.data()["key"].as_str().unwrap_or_default().into()]
    }

    fn apply(
        &self,
        _: &DocumentId,
        _: Option<Shape>,
        event: &Event,
    ) -> Result<Option<Shape>, BoxError> {
        let data = event.data();
        let last = data["last"].as_i64().unwrap_or_default();
        if data["mail"].is_null() {
            return Ok(Some(Shape::Number(last)));
        }
        let length = data["length"].as_u64().unwrap_or(1) as usize;
        let mail = data["mail"].as_str().unwrap_or_default().repeat(length);
        Ok(Some(Shape::Fine { mail, last }))
    }
}

/// A view that cannot be stored, because it is no document, too large, breaks a unique index or has a key
/// that is none, costs the one event that made it so, and holds up nobody else.
pub async fn a_view_that_cannot_be_stored_costs_its_event(store: &dyn TestStore) {
    let storage = open(store).await;
    let shaped = |key: &str, mail: serde_json::Value, last: i64, length: u64| {
        let data = json!({ "key": key, "mail": mail, "last": last, "length": length });
        NewEvent::new("Shaped", data).unwrap()
    };
    let streams = [
        (
            "s-1",
            vec![
                shaped("one", json!("a"), 1, 1),
                shaped("one", json!("b"), 2, 1),
            ],
        ),
        (
            "s-2",
            vec![
                shaped("two", json!("c"), 1, 1),
                shaped("two", json!(null), 2, 1),
            ],
        ),
        (
            "s-3",
            vec![
                shaped("three", json!("d"), 1, 1),
                shaped("three", json!("e"), 2, 17 << 20),
            ],
        ),
        (
            "s-4",
            vec![
                shaped("four", json!("f"), 1, 1),
                shaped("four", json!("b"), 2, 1),
            ],
        ),
        ("s-5", vec![shaped("", json!("g"), 1, 1)]),
        (
            "s-6",
            vec![
                shaped("six", json!("h"), 1, 1),
                shaped("six", json!("i"), 2, 1),
            ],
        ),
    ];
    for (stream, events) in streams {
        storage
            .append(stream, events, Default::default())
            .await
            .unwrap();
    }
    let options = quick().with_index(Index::on("mail").unique());
    let shaping = storage.project(Shaping, options).unwrap();
    shaping.caught_up(WITHIN).await.unwrap();
    let mut failed: Vec<_> = shaping
        .dead_letters(None, 10)
        .await
        .unwrap()
        .into_iter()
        .map(|letter| (letter.document.id().to_string(), letter.version.get()))
        .collect();
    failed.sort();
    let expected = |second| [("s-2", 2), ("s-3", 2), (second, 2), ("s-5", 1)];
    let [first, second] = ["s-1", "s-4"].map(|second| {
        let mut expected = expected(second);
        expected.sort_unstable();
        expected.map(|(stream, version)| (stream.to_owned(), version))
    });
    // Two views want one value at once: either may get it.
    assert!(failed == first || failed == second, "{failed:?}");
    let first_has_it = failed == second;
    for (key, mail, last) in [
        (
            "one",
            if first_has_it { "b" } else { "a" },
            1 + i64::from(first_has_it),
        ),
        ("two", "c", 1),
        ("three", "d", 1),
        (
            "four",
            if first_has_it { "f" } else { "b" },
            2 - i64::from(first_has_it),
        ),
        ("six", "i", 2),
    ] {
        let view = shaping.views().load(key).await.unwrap().into_inner();
        let mail = mail.to_owned();
        assert_eq!(view, Shape::Fine { mail, last }, "{key}");
    }
    shaping.shutdown().await;
}
