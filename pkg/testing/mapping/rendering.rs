//! Events whose data is the change itself: told twice, from the change and from the log.

use bson::{Bson, Document, doc};
use serde_json::json;

use crate::document::DocumentKey;
use crate::event::Event;
use crate::storage::{Storage, UpdateOptions};
use crate::testing::storage::bytes::every_type;
use crate::testing::support::open;
use crate::testing::{TestStore, check_log};

/// The documents one after the other; each change's own events must equal those that its log entry
/// renders.
async fn tells_the_same(storage: &Storage, documents: &[Option<Document>]) -> Vec<Event> {
    let mut told = Vec::new();
    for document in documents {
        let change = storage.update_with(
            "things",
            "t",
            UpdateOptions::new(),
            |_: Option<Document>, _| Ok::<_, std::convert::Infallible>(document.clone()),
        );
        told.extend(change.await.unwrap().events().iter().cloned());
    }
    let log = check_log(storage.backend().as_ref(), &DocumentKey::new("things", "t")).await;
    let mut logged = Vec::new();
    for entry in &log.entries {
        logged.extend(entry.to_events().unwrap());
    }
    assert_eq!(told.len(), logged.len());
    for (told, logged) in told.iter().zip(&logged) {
        assert_eq!(told, logged, "version {}", told.version());
    }
    told
}

/// Creations, updates and deletions render `{ diff, merge_patch }` with the change as RFC 6902 and as
/// RFC 7396, without `_id` and version.
pub async fn default_events_hold_diff_and_merge_patch(store: &dyn TestStore) {
    let storage = open(store).await;
    let told = tells_the_same(
        &storage,
        &[
            Some(doc! { "a": 1, "b": { "c": "x", "d": true } }),
            Some(doc! { "a": 2, "b": { "c": "x", "e": [1] } }),
            None,
        ],
    )
    .await;
    let data: Vec<_> = told.iter().map(|event| event.data().clone()).collect();
    assert_eq!(
        data[0],
        json!({
            "diff": [{ "op": "replace", "path": "", "value": { "a": 1, "b": { "c": "x", "d": true } } }],
            "merge_patch": { "a": 1, "b": { "c": "x", "d": true } },
        })
    );
    assert_eq!(
        data[1]["merge_patch"],
        json!({ "a": 2, "b": { "d": null, "e": [1] } })
    );
    let mut document = json!({ "a": 1, "b": { "c": "x", "d": true } });
    let patch: json_patch::Patch = serde_json::from_value(data[1]["diff"].clone()).unwrap();
    json_patch::patch(&mut document, &patch).unwrap();
    assert_eq!(document, json!({ "a": 2, "b": { "c": "x", "e": [1] } }));
    assert_eq!(
        data[2],
        json!({ "diff": [{ "op": "replace", "path": "", "value": null }], "merge_patch": null })
    );
}

/// The log renders what the change told, whatever changed: edits of arrays at any level, nulls that come
/// and go, replaced shapes, odd keys, every BSON type.
pub async fn the_log_renders_what_the_change_told(store: &dyn TestStore) {
    let storage = open(store).await;
    let all: Document = every_type()
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    let line = |n: i32| Bson::from(doc! { "n": n, "tags": ["a", "b"] });
    tells_the_same(
        &storage,
        &[
            Some(doc! { "list": [1, 2, 3], "n": null }),
            Some(doc! { "list": [1, 3], "n": null }),
            Some(doc! { "list": [0, 1, 3, 4], "n": {} }),
            Some(doc! { "list": [line(1), line(2)], "n": { "x": null } }),
            Some(doc! { "list": [line(1), { "n": 2, "tags": ["a", "c"] }], "n": { "x": { "y": 1 } } }),
            Some(doc! { "list": [line(2), line(1)], "n": { "x": { "y": null } }, "a.b": { "$c": 1 }, "": 0 }),
            Some(doc! { "list": [], "n": [null], "a.b": { "$c": { "~/": 2 } }, "": null }),
            Some(doc! { "list": [[1], [2, [3]]], "n": [null, null] }),
            Some(doc! { "list": [[1], [2, [3, 4]]], "n": { "0": null } }),
            None,
            Some(all.clone()),
            Some(doc! { "all": all.clone(), "list": [all.clone()] }),
            Some(doc! { "all": all, "list": [] }),
            Some(doc! {}),
            None,
        ],
    )
    .await;
}

/// The same for random documents that turn into each other.
pub async fn random_changes_tell_and_render_the_same(store: &dyn TestStore) {
    let storage = open(store).await;
    let mut random = crate::testing::random::Random::new(0x7e11);
    let documents: Vec<_> = (0..40).map(|_| Some(random.document(3))).collect();
    tells_the_same(&storage, &documents).await;
}
