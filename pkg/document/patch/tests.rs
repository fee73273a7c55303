use bson::spec::ElementType;
use bson::{RawArrayBuf, RawDocumentBuf, rawbson, rawdoc};
use proptest::prelude::*;

use super::*;
use crate::document::raw::Writer;
use crate::document::testing::{any_document, apply_edits, edits, nested, pair, without};
use crate::error::ErrorKind;

/// Checks that the patch replays and survives storage; returns it.
#[track_caller]
fn check(before: &RawDocument, after: &RawDocument, skip: &[&str]) -> Patch {
    let patch = Patch::between(before, after, skip).unwrap();
    let applied = patch.apply(before).unwrap();
    assert_eq!(applied.as_bytes(), after.as_bytes(), "{patch:?}");
    let stored = patch.to_raw().unwrap();
    let read = Patch::from_raw(stored.as_raw_bson_ref()).unwrap();
    assert_eq!(read, patch);
    assert_eq!(patch.is_empty(), before.as_bytes() == after.as_bytes());
    patch
}

/// The patch's stored form, readable.
#[track_caller]
fn shown(before: RawDocumentBuf, after: RawDocumentBuf) -> String {
    let patch = check(&before, &after, &[]);
    let stored: bson::Bson = patch.to_raw().unwrap().try_into().unwrap();
    stored.to_string()
}

proptest! {
    #[test]
    fn applying_the_patch_gives_the_new_document((before, after) in pair()) {
        check(&before, &after, &[]);
        check(&after, &before, &[]);
    }

    #[test]
    fn skipped_fields_stay_and_their_moves_are_replayed(
        (before, edits) in (any_document(), edits()),
    ) {
        const SKIP: &[&str] = &["_id", "a"];
        let after = apply_edits(&before, &edits);
        let patch = Patch::between(&before, &after, SKIP).unwrap();
        for op in patch.ops().filter(|op| !matches!(op, PatchOp::Reorder { .. })) {
            let first = op.path().segments().first();
            let is_skipped = SKIP.iter().any(|key| first == Some(&(*key).into()));
            prop_assert!(!is_skipped);
        }
        let applied = patch.apply(&before).unwrap();
        let (rest, expected) = (without(&applied, SKIP), without(&after, SKIP));
        prop_assert_eq!(rest.as_bytes(), expected.as_bytes());
        let agrees = SKIP.iter().all(|key| {
            let (a, b) = (before.get(key).unwrap(), after.get(key).unwrap());
            format!("{a:?}") == format!("{b:?}")
        });
        if agrees {
            prop_assert_eq!(applied.as_bytes(), after.as_bytes());
        }
    }

    #[test]
    fn damaged_bytes_never_panic(
        (before, after) in pair(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut bytes = after.into_bytes();
        let at = 4 + at.index(bytes.len() - 4);
        bytes[at] = byte;
        if let Ok(damaged) = RawDocumentBuf::from_bytes(bytes) {
            if let Ok(patch) = Patch::between(&before, &damaged, &[]) {
                let applied = patch.apply(&before).unwrap();
                prop_assert_eq!(applied.as_bytes(), damaged.as_bytes());
            }
            let _ = crate::document::validate(&damaged);
            let _ = Patch::from_raw(bson::RawBsonRef::Document(&damaged));
        }
    }

    #[test]
    fn a_patch_on_another_document_fails_or_fits((before, after) in pair(), other in any_document()) {
        let patch = Patch::between(&before, &after, &[]).unwrap();
        if let Err(error) = patch.apply(&other) {
            prop_assert_eq!(error.kind(), ErrorKind::Corrupt);
        }
    }
}

#[test]
fn a_changed_field_is_one_operation() {
    assert_eq!(
        shown(
            rawdoc! { "name": "a long enough name", "address": { "zip": 1, "city": "Seoul", "street": "a long enough street" } },
            rawdoc! { "name": "a long enough name", "address": { "zip": 2, "city": "Seoul", "street": "a long enough street" } },
        ),
        r#"[{ "set": ["address", "zip"], "v": 2 }]"#
    );
}

#[test]
fn fields_are_added_where_they_stand() {
    let base = rawdoc! { "a": "long enough, long enough, long enough", "c": "long enough, long enough, long enough" };
    assert_eq!(
        shown(
            base.clone(),
            rawdoc! { "a": "long enough, long enough, long enough", "b": 1, "c": "long enough, long enough, long enough", "d": 2 },
        ),
        r#"[{ "add": ["b"], "v": 1, "before": "c" }, { "add": ["d"], "v": 2 }]"#
    );
    assert_eq!(
        shown(
            base,
            rawdoc! { "c": "long enough, long enough, long enough", "a": "long enough, long enough, long enough" },
        ),
        r#"[{ "order": [], "keys": ["c", "a"] }]"#
    );
}

#[test]
fn inserted_elements_leave_their_neighbours_alone() {
    let items = |ids: &[i32]| {
        let element = |id: &i32| rawdoc! { "id": *id, "text": "long enough, long enough" };
        let elements: RawArrayBuf = ids.iter().map(element).collect();
        rawdoc! { "items": elements }
    };
    assert_eq!(
        shown(items(&[1, 2, 3, 4, 5]), items(&[1, 3, 4, 5])),
        r#"[{ "cut": ["items", 1], "n": 1 }]"#
    );
    assert_eq!(
        shown(items(&[1, 2, 3, 4]), items(&[1, 2, 9, 3, 4])),
        r#"[{ "ins": ["items", 2], "vs": [{ "id": 9, "text": "long enough, long enough" }] }]"#
    );
    assert_eq!(
        shown(items(&[1, 2, 3]), items(&[1, 7, 3])),
        r#"[{ "set": ["items", 1], "v": { "id": 7, "text": "long enough, long enough" } }]"#,
        "another id is another thing"
    );
}

#[test]
fn an_element_with_the_same_identity_is_patched_inside() {
    let long = "long enough, long enough, long enough, long enough";
    assert_eq!(
        shown(
            rawdoc! { "l": [{ "id": 1, "n": 1, "t": long }, { "id": 2, "n": 2, "t": long }] },
            rawdoc! { "l": [{ "id": 1, "n": 1, "t": long }, { "id": 2, "n": 3, "t": long }] },
        ),
        r#"[{ "set": ["l", 1, "n"], "v": 3 }]"#
    );
}

#[test]
fn a_value_is_set_whole_where_that_is_shorter() {
    assert_eq!(
        shown(
            rawdoc! { "keep": "long enough, long enough, long enough, long enough", "l": [1, 2, 3, 4, 5, 6], "d": { "a": 1, "b": 2 } },
            rawdoc! { "keep": "long enough, long enough, long enough, long enough", "l": [6, 5, 4, 3, 2, 1], "d": { "a": 2, "b": 3 } },
        ),
        r#"[{ "set": ["l"], "v": [6, 5, 4, 3, 2, 1] }, { "set": ["d"], "v": { "a": 2, "b": 3 } }]"#
    );
    assert_eq!(
        shown(rawdoc! { "a": 1 }, rawdoc! { "b": 2 }),
        r#"[{ "set": [], "v": { "b": 2 } }]"#
    );
}

#[test]
fn documents_with_a_key_twice_are_set_whole() {
    let twice = rawdoc! { "d": { "a": 1, "a": 2 }, "k": "long enough, long enough, long enough" };
    let other = rawdoc! { "d": { "a": 1, "a": 3 }, "k": "long enough, long enough, long enough" };
    let patch = check(&twice, &other, &["_id"]);
    assert_eq!(patch.ops().len(), 1);
    let (a, b) = (rawdoc! { "a": 1, "a": 2 }, rawdoc! { "a": 1, "a": 3 });
    check(&a, &b, &[]);
    let error = Patch::between(&a, &b, &["_id"]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Serialization);
    assert_eq!(error.to_string(), "duplicate key at /a");
}

#[test]
fn arrays_with_foreign_keys_keep_them() {
    let strange = |number: i32| {
        let mut writer = Writer::default();
        let start = writer.open();
        writer.key(ElementType::Array, b"l");
        let array = writer.open();
        writer.key(ElementType::Int32, b"7");
        writer.value(&number.to_le_bytes());
        writer.key(ElementType::Int32, b"x");
        writer.value(&1_i32.to_le_bytes());
        writer.close(array).unwrap();
        writer.close(start).unwrap();
        writer.into_document().unwrap()
    };
    check(&strange(1), &strange(2), &[]);
    check(&strange(1), &rawdoc! { "l": [1, 1] }, &[]);
    check(&rawdoc! { "l": [1, 1] }, &strange(1), &[]);
}

#[test]
fn wide_documents_and_long_arrays_take_linear_time() {
    let wide = |step: usize| {
        let mut document = RawDocumentBuf::new();
        for field in (0..20_000).step_by(step).rev() {
            let key = bson::raw::CString::try_from(format!("field{field}")).unwrap();
            document.append(key, i32::try_from(field % (7 * step)).unwrap());
        }
        document
    };
    check(&wide(2), &wide(1), &[]);
    check(&wide(1), &wide(2), &["_id"]);
    let long = |skip: i32| {
        let elements = (0..100_000).filter(|n| *n == 0 || *n == 99_999 || n % 1_000 != skip);
        rawdoc! { "l": elements.map(|n| n * 1_000).collect::<RawArrayBuf>() }
    };
    check(&long(1), &long(2), &[]);
    let (a, b) = (long(-1), long(500));
    check(&b, &a, &[]);
}

#[test]
fn hostile_nesting_is_a_typed_error() {
    let (deep, base) = (nested(10_000), nested(9_999));
    for skip in [&[][..], &["_id"]] {
        let error = Patch::between(&base, &deep, skip).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
    }
    check(&nested(150), &nested(149), &[]);
    let path: RawArrayBuf = (0..10_000).map(|_| "a").collect();
    let stored = rawbson!([{ "set": path.clone(), "v": 1 }]);
    let error = Patch::from_raw(stored.as_raw_bson_ref()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[test]
fn a_place_that_does_not_exist_is_named() {
    let refuse = |document: RawDocumentBuf, stored: RawBson, path: &str| {
        let patch = Patch::from_raw(stored.as_raw_bson_ref()).unwrap();
        let error = patch.apply(&document).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert_eq!(
            error.to_string(),
            format!("patch does not fit the document at {path}")
        );
    };
    let document = || rawdoc! { "a": { "b": [1, 2] } };
    refuse(
        document(),
        rawbson!([{ "set": ["a", "c"], "v": 1 }]),
        "/a/c",
    );
    refuse(
        document(),
        rawbson!([{ "set": ["a", "c", "d"], "v": 1 }]),
        "/a/c/d",
    );
    refuse(
        document(),
        rawbson!([{ "set": ["a", "b", "0"], "v": 1 }]),
        "/a/b/0",
    );
    refuse(
        document(),
        rawbson!([{ "set": ["a", "b", 0, "x"], "v": 1 }]),
        "/a/b/0/x",
    );
    refuse(document(), rawbson!([{ "add": ["a"], "v": 1 }]), "/a");
    refuse(
        document(),
        rawbson!([{ "add": ["x"], "v": 1, "before": "y" }]),
        "/x",
    );
    refuse(document(), rawbson!([{ "del": ["x"] }]), "/x");
    refuse(
        document(),
        rawbson!([{ "del": ["a"] }, { "del": ["a"] }]),
        "/a",
    );
    refuse(
        document(),
        rawbson!([{ "order": ["a"], "keys": ["b", "c"] }]),
        "/a",
    );
    refuse(
        document(),
        rawbson!([{ "order": ["a"], "keys": ["b", "b"] }]),
        "/a",
    );
    refuse(
        document(),
        rawbson!([{ "order": ["a", "b"], "keys": [] }]),
        "/a/b",
    );
    refuse(
        document(),
        rawbson!([{ "ins": ["a", "b", 3], "vs": [1] }]),
        "/a/b/3",
    );
    refuse(
        document(),
        rawbson!([{ "cut": ["a", "b", 1], "n": 2 }]),
        "/a/b/1",
    );
    refuse(
        document(),
        rawbson!([{ "cut": ["a", "b", i64::MAX], "n": i64::MAX }]),
        &format!("/a/b/{}", i64::MAX),
    );
    refuse(document(), rawbson!([{ "del": [] }]), "");
}

#[test]
fn unknown_stored_operations_are_corrupt() {
    for stored in [
        rawbson!({}),
        rawbson!([1]),
        rawbson!([{}]),
        rawbson!([{ "jump": ["a"] }]),
        rawbson!([{ "set": ["a"] }]),
        rawbson!([{ "set": "a", "v": 1 }]),
        rawbson!([{ "set": [1.5], "v": 1 }]),
        rawbson!([{ "set": [-1], "v": 1 }]),
        rawbson!([{ "set": ["a\0b"], "v": 1 }]),
        rawbson!([{ "set": ["a"], "v": 1, "w": 2 }]),
        rawbson!([{ "add": ["a"], "v": 1, "before": 1 }]),
        rawbson!([{ "cut": ["a", 1], "n": -1 }]),
    ] {
        let error = Patch::from_raw(stored.as_raw_bson_ref()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{stored:?}");
    }
}

#[test]
fn a_set_of_the_document_must_be_a_document() {
    let stored = rawbson!([{ "set": [], "v": 1 }]);
    let patch = Patch::from_raw(stored.as_raw_bson_ref()).unwrap();
    let error = patch.apply(&rawdoc! {}).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[test]
fn several_operations_on_one_place_apply_in_order() {
    let stored = rawbson!([
        { "set": ["a", "x"], "v": 1 },
        { "del": ["a"] },
        { "add": ["a"], "v": { "y": 1 } },
        { "set": ["a", "y"], "v": [1, 2, 3] },
        { "ins": ["a", "y", 1], "vs": [8, 9] },
        { "set": ["a", "y", 1], "v": 7 },
        { "cut": ["a", "y", 3], "n": 2 },
        { "ins": ["a", "y", 0], "vs": [0] },
    ]);
    let patch = Patch::from_raw(stored.as_raw_bson_ref()).unwrap();
    let applied = patch.apply(&rawdoc! { "a": { "x": 0 }, "b": 1 }).unwrap();
    assert_eq!(applied, rawdoc! { "b": 1, "a": { "y": [0, 1, 7, 9] } });
}

#[test]
fn debug_output_hides_values() {
    let patch = Patch::between(&rawdoc! { "a": 1 }, &rawdoc! { "a": "secret" }, &["_id"]).unwrap();
    assert!(!format!("{patch:?}").contains("secret"));
}
