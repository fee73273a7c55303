//! docs/events.md against the serializers.

use std::collections::BTreeSet;

use bson::{DateTime, Decimal128, doc};
use nodestorage::event::{CloudEvents, EventParts, EventSerializer, PlainJson};
use nodestorage::{DocumentKey, Event, Metadata, Storage, Version};
use serde_json::{Value, json};
use uuid::Uuid;

use super::read;

/// The event that the document shows.
fn shown() -> Event {
    let metadata = Metadata::new()
        .with_correlation("request-17")
        .with_causation("command-3")
        .with_actor("alice")
        .with_tenant("acme")
        .with_trace(
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            Some("congo=t61rcWkgMzE".into()),
        )
        .with_extra("note", "by phone");
    Event::from_parts(EventParts {
        id: Uuid::parse_str("8e1e9c55-1cd5-5bf2-9c34-9d6f0e7a51f3")
            .unwrap()
            .into(),
        event_type: "UserEmailChanged".into(),
        aggregate_type: "User".into(),
        document: DocumentKey::new("app.users", "user123"),
        version: Version::new(7),
        index: 1,
        time: DateTime::parse_rfc3339_str("2026-01-02T03:04:05.678Z").unwrap(),
        schema: 2,
        data: json!({ "new_email": "john.doe@example.com" }),
        metadata,
    })
}

/// A section of the document: its first block of JSON, and field and example of each row of its table.
fn section(title: &str) -> (Value, Vec<(String, Value)>) {
    let text = read("docs/events.md");
    let (_, rest) = text.split_once(&format!("\n## {title}\n")).unwrap();
    let text = rest.split("\n## ").next().unwrap();
    let (_, block) = text.split_once("```json\n").unwrap();
    let block = serde_json::from_str(block.split("```").next().unwrap()).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    let rows = rows.map(|row| {
        let mut cells = row.split(" | ");
        let field = cells.next().unwrap().trim_end_matches('`').to_owned();
        let example = cells.next().unwrap().trim_matches('`');
        let example = serde_json::from_str(example);
        let example = example.unwrap_or_else(|e| panic!("example of {field}: {e}"));
        (field, example)
    });
    (block, rows.collect())
}

fn field<'a>(object: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(object, |value, name| &value[name])
}

#[track_caller]
fn is_shown_as_written(title: &str, form: &dyn EventSerializer) {
    let event = shown();
    let written: Value = serde_json::from_slice(&form.serialize(&event).unwrap()).unwrap();
    let (block, rows) = section(title);
    assert_eq!(block, written, "{title}: the block");
    let block = serde_json::to_vec(&block).unwrap();
    assert_eq!(form.deserialize(&block).unwrap(), event, "{title}: read");
    for (name, example) in &rows {
        assert_eq!(example, field(&written, name), "{title}: {name}");
    }
    // Every field has a row, in the order of the block.
    let mut names = Vec::new();
    for (name, value) in written.as_object().unwrap() {
        match value {
            Value::Object(inner) if name == "metadata" => {
                names.extend(inner.keys().map(|inner| format!("{name}.{inner}")));
            }
            _ => names.push(name.clone()),
        }
    }
    let names: BTreeSet<_> = names.into_iter().collect();
    let listed: BTreeSet<_> = rows.into_iter().map(|(name, _)| name).collect();
    assert_eq!(listed, names, "{title}: the rows");
}

#[test]
fn every_field_of_both_forms_is_shown_as_it_is_written() {
    is_shown_as_written("CloudEvents 1.0", &CloudEvents);
    is_shown_as_written("Plain JSON", &PlainJson);
    let text = read("docs/events.md");
    assert!(text.contains(&format!("`{}`", CloudEvents.content_type())));
}

/// What "only where set" and the bound of whole numbers mean.
#[test]
fn what_is_not_set_is_left_out_and_large_numbers_are_text() {
    let mut parts = shown().into_parts();
    parts.metadata = Metadata::new();
    parts.version = Version::new(5_000_000_000);
    let event = Event::from_parts(parts);
    let written = CloudEvents.serialize(&event).unwrap();
    let written: Value = serde_json::from_slice(&written).unwrap();
    assert_eq!(written["aggregateversion"], "5000000000");
    let text = read("docs/events.md");
    let rows = text
        .lines()
        .filter(|line| line.ends_with("only where set |"));
    let mut optional = 0;
    for row in rows {
        optional += 1;
        let name = row.split('`').nth(1).unwrap();
        assert_eq!(written.get(name), None, "{name}");
    }
    assert_eq!(optional, 7);
    let kept = written.as_object().unwrap().len();
    assert_eq!(kept + optional, section("CloudEvents 1.0").1.len());
}

#[tokio::test]
async fn the_payload_of_a_change_is_shown_as_it_is_written() {
    let storage = Storage::builder().url("embedded::memory:").open().await;
    let storage = storage.unwrap();
    let set = |name: &str, tags: &[&str]| doc! { "name": name, "tags": tags };
    let created = storage.update("users", "u", |_| set("John", &["a"]));
    assert_eq!(created.await.unwrap().version(), 1);
    let updated = storage.update("users", "u", |_| set("John Doe", &["a", "b"]));
    let updated = updated.await.unwrap();
    let event = &updated.events()[0];
    assert_eq!(event.event_type(), "UsersUpdated");
    let (block, _) = section("The payload of a change");
    assert_eq!(*event.data(), block);

    let decimal: Decimal128 = "9.99".parse().unwrap();
    let id = bson::oid::ObjectId::parse_str("65a1b2c3d4e5f60718293a4b").unwrap();
    let at = DateTime::parse_rfc3339_str("2026-01-02T03:04:05.678Z").unwrap();
    let odd = storage.update("users", "odd", |_| {
        doc! { "at": at, "price": decimal, "ref": id, "big": i64::MAX }
    });
    let odd = odd.await.unwrap();
    let merge = &odd.events()[0].data()["merge_patch"];
    let text = read("docs/events.md");
    for (field, shown) in [
        ("at", "{\"$date\": \"2026-01-02T03:04:05.678Z\"}"),
        ("price", "{\"$numberDecimal\": \"9.99\"}"),
        ("ref", "{\"$oid\": \"65a1b2c3d4e5f60718293a4b\"}"),
    ] {
        assert!(text.contains(&format!("`{shown}`")), "{shown}");
        let shown: Value = serde_json::from_str(shown).unwrap();
        assert_eq!(merge[field], shown);
    }
    assert_eq!(merge["big"], i64::MAX);
    storage.close().await;
}
