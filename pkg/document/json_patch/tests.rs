use bson::RawDocumentBuf;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::document::testing::pair;

fn as_json(document: &RawDocument) -> Value {
    object(RawValue::document(document), &[], 1).unwrap().into()
}

fn between(before: &RawDocument, after: &RawDocument) -> ::json_patch::Patch {
    from_patch(&Patch::between(before, after, &[]).unwrap()).unwrap()
}

proptest! {
    #[test]
    fn the_json_patch_gives_the_new_json((before, after) in pair()) {
        let mut patched = as_json(&before);
        let patch = between(&before, &after);
        ::json_patch::patch(&mut patched, &patch).unwrap();
        prop_assert_eq!(patched, as_json(&after), "{}", patch);

        let mut patched = Value::Null;
        ::json_patch::patch(&mut patched, &whole(Some(&after), &[]).unwrap()).unwrap();
        prop_assert_eq!(&patched, &as_json(&after));
        ::json_patch::patch(&mut patched, &whole(None, &[]).unwrap()).unwrap();
        prop_assert_eq!(patched, Value::Null);
    }
}

/// Computes the patch between two JSON documents. Both get a long field more, or setting the whole
/// document would be the shorter patch.
#[track_caller]
fn check(before: Value, after: Value, expected: Value) {
    let raw = |value: Value| {
        let mut document = bson::serialize_to_document(&value).unwrap();
        document.insert("filler", "x".repeat(500));
        RawDocumentBuf::try_from(document).unwrap()
    };
    let patch = between(&raw(before), &raw(after));
    assert_eq!(serde_json::to_value(patch).unwrap(), expected);
}

// The examples of RFC 6902, appendix A, that end in a change. `move` (A.6, A.7), `copy` and `test`
// (A.8, A.9) are not written, a move shows as what it does.

#[test]
fn rfc_6902_a1_adding_an_object_member() {
    check(
        json!({ "foo": "bar" }),
        json!({ "baz": "qux", "foo": "bar" }),
        json!([{ "op": "add", "path": "/baz", "value": "qux" }]),
    );
}

#[test]
fn rfc_6902_a2_adding_an_array_element() {
    let long = "x".repeat(50);
    check(
        json!({ "foo": ["bar", long] }),
        json!({ "foo": ["bar", "qux", long] }),
        json!([{ "op": "add", "path": "/foo/1", "value": "qux" }]),
    );
}

#[test]
fn rfc_6902_a3_removing_an_object_member() {
    check(
        json!({ "baz": "qux", "foo": "bar" }),
        json!({ "foo": "bar" }),
        json!([{ "op": "remove", "path": "/baz" }]),
    );
}

#[test]
fn rfc_6902_a4_removing_an_array_element() {
    let long = "x".repeat(50);
    check(
        json!({ "foo": ["bar", "qux", long] }),
        json!({ "foo": ["bar", long] }),
        json!([{ "op": "remove", "path": "/foo/1" }]),
    );
}

#[test]
fn rfc_6902_a5_replacing_a_value() {
    check(
        json!({ "baz": "qux", "foo": "bar" }),
        json!({ "baz": "boo", "foo": "bar" }),
        json!([{ "op": "replace", "path": "/baz", "value": "boo" }]),
    );
}

#[test]
fn rfc_6902_a7_a_moved_array_element() {
    let long = "x".repeat(80);
    check(
        json!({ "foo": ["all", "grass", "cows", "eat", long] }),
        json!({ "foo": ["all", "cows", "eat", "grass", long] }),
        json!([
            { "op": "remove", "path": "/foo/1" },
            { "op": "add", "path": "/foo/3", "value": "grass" },
        ]),
    );
}

#[test]
fn rfc_6902_a10_adding_a_nested_member_object() {
    check(
        json!({ "foo": "bar" }),
        json!({ "foo": "bar", "child": { "grandchild": {} } }),
        json!([{ "op": "add", "path": "/child", "value": { "grandchild": {} } }]),
    );
}

#[test]
fn rfc_6902_a14_escaped_pointers() {
    check(
        json!({ "/": 9, "~1": 10 }),
        json!({ "/": 8, "~1": 11 }),
        json!([
            { "op": "replace", "path": "/~1", "value": 8 },
            { "op": "replace", "path": "/~01", "value": 11 },
        ]),
    );
}

#[test]
fn rfc_6902_a16_adding_an_array_value() {
    let long = "x".repeat(50);
    check(
        json!({ "foo": [long] }),
        json!({ "foo": [long, ["abc", "def"]] }),
        json!([{ "op": "add", "path": "/foo/1", "value": ["abc", "def"] }]),
    );
}
