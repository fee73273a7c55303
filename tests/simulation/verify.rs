//! Compares what the calls were told with what the store holds.

use std::collections::BTreeMap;

use nodestorage::DocumentKey;
use nodestorage::storage::backend::{EntryKind, LogEntry, LoggedData};
use nodestorage::testing::check_log;

use crate::calls::is_expected;
use crate::ledger::{Call, Ledger, Verdict};
use crate::model::Model;

/// Where each tag is in the log.
type Found = BTreeMap<i64, Vec<(DocumentKey, u64)>>;

pub(crate) async fn verify(model: &Model, ledger: &Ledger) {
    let offences = model.offences.lock().unwrap().clone();
    assert!(offences.is_empty(), "the backend's contract: {offences:?}");
    let mut found = Found::new();
    let keys = model.world().keys();
    for key in keys {
        check_document(model, ledger, &key, &mut found).await;
    }
    for (tag, call) in ledger.calls().iter() {
        let places = found.remove(tag).unwrap_or_default();
        check_call(model, *tag, call, places);
    }
    assert!(found.is_empty(), "tags that nobody gave out: {found:?}");
}

/// The log is in order, replays to the document, and every update was decided on what the one before
/// has left.
async fn check_document(model: &Model, ledger: &Ledger, key: &DocumentKey, found: &mut Found) {
    if crate::number("NODESTORAGE_SEED").is_some() {
        for entry in model.world().log(key) {
            let tags: Vec<_> = tags(entry).collect();
            println!("{key} {} {} {tags:?}", entry.version, entry.kind);
        }
        println!("{key} {:?}", model.world().states(key));
    }
    let log = check_log(model, key).await;
    let mut value = 0;
    for (entry, state) in log.entries.iter().zip(&log.states) {
        for tag in tags(entry) {
            let place = (key.clone(), entry.version.get());
            found.entry(tag).or_default().push(place);
            let calls = ledger.calls();
            let call = calls.get(&tag).expect("a tag that was given out");
            let after = state.as_ref().map(|state| state.get_i64("value").unwrap());
            let expected = match call.what {
                "increment" => Some(value + 1),
                "emit" | "poison" | "touch" => after.map(|_| value),
                "delete" | "append" => None,
                "transfer" if call.keys[0] == *key => Some(value - 1),
                "transfer" => Some(value + 1),
                what => panic!("{what} {tag} left something in the log of {key}"),
            };
            assert_eq!(
                after, expected,
                "{} {tag} on {key} at {}",
                call.what, entry.version
            );
        }
        assert!(
            entry.kind == EntryKind::Adopted || tags(entry).count() == 1,
            "{key} at {}: one update each",
            entry.version
        );
        value = state
            .as_ref()
            .map_or(0, |state| state.get_i64("value").unwrap_or(0));
    }
}

fn tags(entry: &LogEntry) -> impl Iterator<Item = i64> {
    entry
        .events
        .iter()
        .filter(|event| event.event_type == "Tagged")
        .map(|event| match &event.data {
            LoggedData::Json(tag) => tag.as_i64().expect("a tag is a number"),
            other => panic!("a tag is a number: {other:?}"),
        })
}

fn check_call(model: &Model, tag: i64, call: &Call, mut places: Vec<(DocumentKey, u64)>) {
    let at = format!("{} {tag}: {call:?}", call.what);
    let mut keys = call.keys.clone();
    keys.sort();
    places.sort();
    let placed: Vec<_> = places.iter().map(|(key, _)| key.clone()).collect();
    let was = |key: &DocumentKey, is_it: &dyn Fn(_) -> bool| {
        let world = model.world();
        let was = world.was(key, is_it, call.from, call.to);
        assert!(
            was,
            "{at}\n{key} never was like that meanwhile: {:?}",
            world.states(key)
        );
    };
    match &call.verdict {
        Verdict::Committed(versions) => {
            assert_eq!(placed, keys, "exactly once, {at}, found {places:?}");
            for place in versions {
                assert!(places.contains(place), "{at}: {place:?} in {places:?}");
            }
        }
        Verdict::Nothing(seen) => {
            assert!(places.is_empty(), "{at}: found {places:?}");
            assert!(!seen.is_empty(), "{at}: decided on something");
            for (key, seen) in seen {
                was(key, &|state| state == *seen);
            }
        }
        Verdict::NothingAt(key, version) => {
            assert!(places.is_empty(), "{at}: found {places:?}");
            was(key, &|state: Option<(u64, i64)>| {
                state.map(|it| it.0) == *version
            });
        }
        Verdict::Failed(kind) => {
            assert!(places.is_empty(), "{at}: found {places:?}");
            assert!(is_expected(*kind, call.what), "{at}: no reason for that");
        }
        Verdict::Unknown | Verdict::Silent => {
            assert!(
                placed.is_empty() || placed == keys,
                "at most once, {at}, found {places:?}"
            );
        }
    }
    // A closure that always panics never gets anywhere.
    assert!(call.what != "panic" || places.is_empty(), "{at}");
}
