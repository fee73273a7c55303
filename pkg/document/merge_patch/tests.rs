use bson::{Bson, RawDocumentBuf, rawdoc};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::document::testing::{nested, pair};
use crate::error::ErrorKind;

const SKIP: &[&str] = &["_id", "version"];

fn as_json(document: &RawDocument) -> Value {
    object(RawValue::document(document), SKIP, 1)
        .unwrap()
        .into()
}

fn raw(value: &Value) -> RawDocumentBuf {
    let document = bson::serialize_to_document(value).unwrap();
    RawDocumentBuf::try_from(document).unwrap()
}

proptest! {
    #[test]
    fn an_exact_merge_patch_gives_the_new_json((before, after) in pair()) {
        let (old, new) = (as_json(&before), as_json(&after));
        let patch = MergePatch::between(Some(&before), Some(&after), SKIP).unwrap();
        let mut merged = old.clone();
        ::json_patch::merge(&mut merged, patch.value());
        if patch.is_exact() {
            prop_assert_eq!(&merged, &new, "{}", patch);
        }
        if old == new && before.as_bytes() == after.as_bytes() {
            prop_assert_eq!(patch.to_string(), "{}");
        }

        let created = MergePatch::between(None, Some(&after), SKIP).unwrap();
        let mut merged = Value::Null;
        ::json_patch::merge(&mut merged, created.value());
        if created.is_exact() {
            prop_assert_eq!(&merged, &new);
        }

        let patch = Patch::between(&before, &after, SKIP).unwrap();
        let short_cut = MergePatch::of_patch(&patch, &before, &after, SKIP).unwrap();
        let walked = MergePatch::between(Some(&before), Some(&after), SKIP).unwrap();
        prop_assert_eq!(short_cut, walked);
        if let Some(patch) = MergePatch::from_patch(&patch).unwrap() {
            let mut merged = old;
            ::json_patch::merge(&mut merged, patch.value());
            if patch.is_exact() {
                prop_assert_eq!(&merged, &new, "{}", patch);
            }
        }
    }
}

/// RFC 7396, appendix A: the rows whose original and result are objects, computed the other way
/// round, from the two documents to the patch.
#[test]
fn rfc_7396_appendix_a_computed() {
    for (original, patch, result) in [
        (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
        (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
        (json!({"a":"b"}), json!({"a":null}), json!({})),
        (
            json!({"a":"b","b":"c"}),
            json!({"a":null}),
            json!({"b":"c"}),
        ),
        (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
        (json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]})),
        (
            json!({"a":{"b":"c"}}),
            json!({"a":{"b":"d"}}),
            json!({"a":{"b":"d"}}),
        ),
        (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
        (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
        (json!({}), json!({"a":{"bb":{}}}), json!({"a":{"bb":{}}})),
    ] {
        let computed = MergePatch::between(Some(&raw(&original)), Some(&raw(&result)), &[]);
        let computed = computed.unwrap();
        assert_eq!(*computed.value(), patch, "from {original} to {result}");
        assert!(computed.is_exact());
    }
    // One row sets one field and removes an absent one; what is absent needs no removal.
    let computed = MergePatch::between(
        Some(&raw(&json!({"a":{"b":"c"}}))),
        Some(&raw(&json!({"a":{"b":"d"}}))),
        &[],
    );
    assert_eq!(computed.unwrap().into_value(), json!({"a":{"b":"d"}}));
}

/// RFC 7396, appendix A, all rows, applied: the oracle of these tests does what the RFC says.
#[test]
fn rfc_7396_appendix_a_applied() {
    for (mut original, patch, result) in [
        (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
        (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
        (json!({"a":"b"}), json!({"a":null}), json!({})),
        (
            json!({"a":"b","b":"c"}),
            json!({"a":null}),
            json!({"b":"c"}),
        ),
        (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
        (json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]})),
        (
            json!({"a":{"b":"c"}}),
            json!({"a":{"b":"d","c":null}}),
            json!({"a":{"b":"d"}}),
        ),
        (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
        (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
        (json!({"a":"b"}), json!(["c"]), json!(["c"])),
        (json!({"a":"foo"}), json!(null), json!(null)),
        (json!({"a":"foo"}), json!("bar"), json!("bar")),
        (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
        (json!([1, 2]), json!({"a":"b","c":null}), json!({"a":"b"})),
        (
            json!({}),
            json!({"a":{"bb":{"ccc":null}}}),
            json!({"a":{"bb":{}}}),
        ),
    ] {
        ::json_patch::merge(&mut original, &patch);
        assert_eq!(original, result);
    }
}

#[test]
fn a_null_is_not_exact_where_it_would_mean_removal() {
    let is_exact = |before: Value, after: Value| {
        let patch = MergePatch::between(Some(&raw(&before)), Some(&raw(&after)), &[]);
        patch.unwrap().is_exact()
    };
    assert!(!is_exact(json!({"a": 1}), json!({"a": null})));
    assert!(!is_exact(json!({}), json!({"a": {"b": {"c": null}}})));
    assert!(!is_exact(json!({"a": [1]}), json!({"a": {"b": null}})));
    assert!(is_exact(json!({}), json!({"a": [null, {"b": null}]})));
    assert!(is_exact(json!({"a": null}), json!({"a": 1})));
    assert!(is_exact(
        json!({"a": null, "b": 1}),
        json!({"a": null, "b": 2})
    ));
    let created = MergePatch::between(None, Some(&raw(&json!({"a": null}))), &[]).unwrap();
    assert!(!created.is_exact());
}

#[test]
fn types_in_extended_json_merge_as_the_objects_that_they_are() {
    let date = bson::DateTime::from_millis(0);
    let before = rawdoc! { "a": bson::oid::ObjectId::from_bytes([1; 12]), "b": { "x": 1 } };
    let after = rawdoc! { "a": date, "b": date };
    let patch = MergePatch::between(Some(&before), Some(&after), &[]).unwrap();
    let date = "1970-01-01T00:00:00Z";
    let expected =
        json!({ "a": { "$oid": null, "$date": date }, "b": { "x": null, "$date": date } });
    assert_eq!(*patch.value(), expected);
    assert!(patch.is_exact());
}

#[test]
fn a_patch_alone_gives_the_merge_patch_unless_it_edits_arrays() {
    let long = "long enough ".repeat(20);
    let long = long.as_str();
    let before = rawdoc! { "k": long, "a": { "k": long, "b": 1, "c": 1 }, "l": [long, long, 1] };
    let view = |after: RawDocumentBuf| {
        let patch = Patch::between(&before, &after, SKIP).unwrap();
        MergePatch::from_patch(&patch).unwrap()
    };
    let after = rawdoc! { "k": long, "a": { "k": long, "c": 2, "d": [1] }, "l": [long, long, 1] };
    let patch = view(after).unwrap();
    assert_eq!(
        *patch.value(),
        json!({ "a": { "b": null, "c": 2, "d": [1] } })
    );
    assert!(patch.is_exact());
    let after = rawdoc! { "k": long, "a": { "k": long, "b": 1, "c": 1 }, "l": [long, long, 1, 2] };
    assert_eq!(view(after), None);
}

#[test]
fn the_order_of_keys_does_not_show() {
    let (a, b) = (
        rawdoc! { "a": { "x": 1, "y": 2 } },
        rawdoc! { "a": { "y": 2, "x": 1 } },
    );
    let patch = MergePatch::between(Some(&a), Some(&b), &[]).unwrap();
    assert_eq!(patch.to_string(), "{}");
}

#[test]
fn hostile_nesting_is_a_typed_error() {
    let deep = nested(10_000);
    for before in [None, Some(&*rawdoc! { "a": 1 }), Some(&*nested(9_999))] {
        let error = MergePatch::between(before, Some(&deep), &[]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
    }
    let wrapped = RawValue::document(&deep).to_bson().unwrap_err();
    assert_eq!(wrapped.kind(), ErrorKind::TooLarge);
    assert!(matches!(
        RawValue::document(&nested(100)).to_bson(),
        Ok(Bson::Document(_))
    ));
}
