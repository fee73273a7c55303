use bson::rawdoc;

use super::*;
use crate::document::Path;

#[track_caller]
fn check(
    stored: RawDocumentBuf,
    before: RawDocumentBuf,
    after: RawDocumentBuf,
    expected: RawDocumentBuf,
) -> bool {
    let merged = merge(&stored, &before, &after, &["_id", "version"]).unwrap();
    assert_eq!(
        bson::Document::try_from(&merged.document)
            .unwrap()
            .to_string(),
        bson::Document::try_from(&expected).unwrap().to_string()
    );
    assert_eq!(merged.document.as_bytes(), expected.as_bytes());
    assert_eq!(merged.changed, merged.document != stored);
    merged.faithful
}

#[test]
fn unknown_fields_and_their_places_are_kept() {
    let is_faithful = check(
        rawdoc! { "_id": 1, "legacy": true, "a": 1, "sub": { "old": 0, "x": 1 }, "version": 3 },
        rawdoc! { "sub": { "x": 1 }, "a": 1 },
        rawdoc! { "sub": { "x": 2, "y": 3 }, "a": 1, "b": 4 },
        rawdoc! { "_id": 1, "legacy": true, "a": 1, "sub": { "old": 0, "x": 2, "y": 3 }, "version": 3, "b": 4 },
    );
    assert!(is_faithful);
}

#[test]
fn identity_and_version_stay_as_stored() {
    check(
        rawdoc! { "_id": 1, "a": 1, "version": 3_i64 },
        rawdoc! { "_id": 1, "a": 1, "version": 3 },
        rawdoc! { "_id": 9, "a": 2, "version": 9 },
        rawdoc! { "_id": 1, "a": 2, "version": 3_i64 },
    );
}

#[test]
fn an_unchanged_value_keeps_its_stored_form() {
    let is_faithful = check(
        rawdoc! { "n": 1, "d": { "b": 1, "a": 2 } },
        rawdoc! { "n": 1_i64, "d": { "a": 2, "b": 1 } },
        rawdoc! { "n": 1_i64, "d": { "b": 1, "a": 2 } },
        rawdoc! { "n": 1, "d": { "b": 1, "a": 2 } },
    );
    assert!(!is_faithful, "an Int32 does not read back as Int64");
}

#[test]
fn a_removed_key_is_removed() {
    let is_faithful = check(
        rawdoc! { "a": 1, "unknown": 1, "b": { "c": 1, "unknown": 2 } },
        rawdoc! { "a": 1, "b": { "c": 1 } },
        rawdoc! { "b": {} },
        rawdoc! { "unknown": 1, "b": { "unknown": 2 } },
    );
    assert!(is_faithful);
}

#[test]
fn a_changed_value_below_a_defaulted_parent_is_written_whole() {
    let is_faithful = check(
        rawdoc! { "a": 1 },
        rawdoc! { "a": 1, "settings": { "theme": "light", "size": 1 }, "same": { "x": 0 } },
        rawdoc! { "a": 1, "settings": { "theme": "dark", "size": 1 }, "same": { "x": 0 } },
        rawdoc! { "a": 1, "settings": { "theme": "dark", "size": 1 } },
    );
    assert!(!is_faithful);
}

#[test]
fn a_new_key_overwrites_a_stored_one_in_its_place() {
    check(
        rawdoc! { "x": 1, "a": 1 },
        rawdoc! { "a": 1 },
        rawdoc! { "a": 1, "x": 2 },
        rawdoc! { "x": 2, "a": 1 },
    );
}

#[test]
fn removing_an_element_keeps_unknown_fields_of_the_others() {
    let is_faithful = check(
        rawdoc! { "l": [{ "n": 1, "u": "a" }, { "n": 2, "u": "b" }, { "n": 3, "u": "c" }] },
        rawdoc! { "l": [{ "n": 1 }, { "n": 2 }, { "n": 3 }] },
        rawdoc! { "l": [{ "n": 1 }, { "n": 3 }] },
        rawdoc! { "l": [{ "n": 1, "u": "a" }, { "n": 3, "u": "c" }] },
    );
    assert!(is_faithful);
}

#[test]
fn a_changed_element_is_merged_and_an_inserted_one_taken() {
    check(
        rawdoc! { "l": [{ "id": 1, "n": 1, "u": "a" }, { "id": 2, "n": 2, "u": "b" }] },
        rawdoc! { "l": [{ "id": 1, "n": 1 }, { "id": 2, "n": 2 }] },
        rawdoc! { "l": [{ "n": 1, "id": 1 }, { "n": 5, "id": 2 }] },
        rawdoc! { "l": [{ "id": 1, "n": 1, "u": "a" }, { "id": 2, "n": 5, "u": "b" }] },
    );
    check(
        rawdoc! { "l": [{ "id": 1, "u": "a" }, { "id": 2, "u": "b" }] },
        rawdoc! { "l": [{ "id": 1 }, { "id": 2 }] },
        rawdoc! { "l": [{ "id": 1 }, { "id": 7 }, { "id": 2 }] },
        rawdoc! { "l": [{ "id": 1, "u": "a" }, { "id": 7 }, { "id": 2, "u": "b" }] },
    );
}

#[test]
fn an_element_with_another_identity_is_replaced() {
    check(
        rawdoc! { "l": [{ "id": 1, "n": 1, "u": "a" }] },
        rawdoc! { "l": [{ "id": 1, "n": 1 }] },
        rawdoc! { "l": [{ "id": 2, "n": 1 }] },
        rawdoc! { "l": [{ "id": 2, "n": 1 }] },
    );
}

#[test]
fn an_array_in_another_order_is_kept_if_unchanged_and_else_replaced() {
    let stored = rawdoc! { "set": [1, 2, 3], "x": 1 };
    let before = rawdoc! { "set": [3, 1, 2], "x": 1 };
    let is_faithful = check(
        stored.clone(),
        before.clone(),
        rawdoc! { "set": [3, 1, 2], "x": 2 },
        rawdoc! { "set": [1, 2, 3], "x": 2 },
    );
    assert!(!is_faithful);
    check(
        stored,
        before,
        rawdoc! { "set": [3, 1, 2, 4], "x": 1 },
        rawdoc! { "set": [3, 1, 2, 4], "x": 1 },
    );
}

#[test]
fn a_change_of_type_takes_the_new_value() {
    check(
        rawdoc! { "a": { "u": 1, "k": 1 }, "b": 1 },
        rawdoc! { "a": { "k": 1 }, "b": 1 },
        rawdoc! { "a": "text", "b": { "k": [] } },
        rawdoc! { "a": "text", "b": { "k": [] } },
    );
}

#[test]
fn the_first_difference_ignores_key_order() {
    let a = rawdoc! { "_id": 1, "a": { "x": 1, "y": [1, { "p": 1, "q": 2 }] }, "b": 1 };
    let b = rawdoc! { "_id": 2, "b": 1, "a": { "y": [1, { "q": 2, "p": 1 }], "x": 1 } };
    assert_eq!(first_difference(&a, &b, &["_id"]).unwrap(), None);
    assert_eq!(
        first_difference(&a, &b, &[]).unwrap(),
        Some(Path::from("_id"))
    );
    let b = rawdoc! { "_id": 1, "b": 1, "a": { "y": [1, { "q": 3, "p": 1 }], "x": 1 } };
    let path = first_difference(&a, &b, &[]).unwrap().unwrap();
    assert_eq!(path.to_string(), "/a/y/1/q");
    let path = first_difference(&a, &rawdoc! { "_id": 1, "b": 1 }, &[]).unwrap();
    assert_eq!(path, Some(Path::from("a")));
}

#[test]
fn a_type_that_writes_a_key_twice_is_refused() {
    let twice = rawdoc! { "a": 1, "a": 2 };
    let error = merge(&rawdoc! {}, &rawdoc! {}, &twice, &[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Serialization);
}
