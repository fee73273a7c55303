use bson::{RawDocumentBuf, rawdoc};

use super::*;
use crate::document::testing::{any_document, nested};
use proptest::prelude::*;

/// A document of one element that is given by its bytes.
fn one(element: &[u8]) -> RawDocumentBuf {
    let mut bytes = i32::try_from(element.len() + 5)
        .unwrap()
        .to_le_bytes()
        .to_vec();
    bytes.extend(element);
    bytes.push(0);
    RawDocumentBuf::from_bytes(bytes).unwrap()
}

proptest! {
    #[test]
    fn valid_documents_are_valid_and_walk_like_the_bson_crate(document in any_document()) {
        validate(&document).unwrap();
        let ours: Vec<_> = Fields::new(&document)
            .map(|field| field.map(|f| (f.key.to_owned(), f.value.to_bson().unwrap())).unwrap())
            .collect();
        let theirs: Vec<_> = document
            .iter()
            .map(|item| item.map(|(k, v)| (k.to_string(), bson::Bson::try_from(v).unwrap())).unwrap())
            .collect();
        // NaN is not equal to itself; its debug form is.
        prop_assert_eq!(format!("{:?}", ours), format!("{:?}", theirs));
    }

    #[test]
    fn truncated_documents_are_corrupt(document in any_document(), at in any::<prop::sample::Index>()) {
        let bytes = document.as_bytes();
        let len = 5 + at.index(bytes.len() - 4);
        let mut cut = bytes[..len].to_vec();
        cut[..4].copy_from_slice(&i32::try_from(len).unwrap().to_le_bytes());
        cut[len - 1] = 0;
        let document = RawDocumentBuf::from_bytes(cut).unwrap();
        if let Err(error) = validate(&document) {
            prop_assert_eq!(error.kind(), ErrorKind::Corrupt);
        }
    }
}

#[test]
fn malformed_values_are_corrupt_and_named() {
    for (element, path) in [
        (&b"\x08a\0\x02"[..], "/a"),
        (b"\x02a\0\x02\0\0\0\xff\0", "/a"),
        (b"\x0ea\0\x02\0\0\0\xff\0", "/a"),
        (b"\x0ba\0\xff\0\0", "/a"),
        (b"\x05a\0\x04\0\0\0\x02\x09\0\0\0", "/a"),
        (b"\x0ca\0\x02\0\0\0\xff\0abcdefghijkl", "/a"),
        (b"\x0fa\0\x0e\0\0\0\x02\0\0\0\0\0\x05\0\0\0", "/a"),
        (b"\x03a\0\x09\0\0\0\x08b\0\x07\0", "/a/b"),
    ] {
        let error = validate(&one(element)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{element:02x?}");
        assert!(error.to_string().contains(path), "{error}");
    }
    for element in [
        &b"\x99a\0"[..],
        b"\x02a\0\x00\0\0\0",
        b"\x02a\0\xff\xff\xff\xff",
        b"\x02a\0\xff\0\0\0b\0",
        b"\x02\xff\0\x02\0\0\0b\0",
        b"\x10a\0\x01",
        b"\x05a\0\xff\xff\xff\x7f\0",
        b"\x03a\0\x04\0\0\0\0",
        b"\x0ba",
        b"\0\x0aa\0",
    ] {
        let error = validate(&one(element)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{element:02x?}");
        assert_eq!(
            check_depth(&one(element)).unwrap_err().kind(),
            ErrorKind::Corrupt
        );
    }
}

#[test]
fn a_key_twice_is_named() {
    let error = validate(&rawdoc! { "a": [1, { "b": 1, "c": 2, "b": 3 }] }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Serialization);
    assert_eq!(error.to_string(), "duplicate key at /a/1/b");
    let mut wide = RawDocumentBuf::new();
    for number in 0..1_000 {
        let key = bson::raw::CString::try_from(number.to_string()).unwrap();
        wide.append(key, number);
    }
    validate(&wide).unwrap();
    wide.append(bson::raw::cstr!("500"), 1);
    assert_eq!(
        validate(&wide).unwrap_err().kind(),
        ErrorKind::Serialization
    );
}

#[test]
fn depth_is_bounded_and_scopes_count() {
    check_depth(&nested(MAX_DEPTH)).unwrap();
    validate(&nested(MAX_DEPTH)).unwrap();
    for levels in [MAX_DEPTH + 1, 10_000] {
        let document = nested(levels);
        assert_eq!(
            check_depth(&document).unwrap_err().kind(),
            ErrorKind::TooLarge
        );
        assert_eq!(validate(&document).unwrap_err().kind(), ErrorKind::TooLarge);
    }
    let scope = |levels| {
        let code = bson::RawJavaScriptCodeWithScope {
            code: String::new(),
            scope: nested(levels),
        };
        rawdoc! { "f": code }
    };
    check_depth(&scope(MAX_DEPTH - 1)).unwrap();
    assert_eq!(
        check_depth(&scope(MAX_DEPTH)).unwrap_err().kind(),
        ErrorKind::TooLarge
    );
    let error = RawValue::document(&scope(10_000)).to_bson().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
}

#[test]
fn values_are_found_by_path() {
    let document = rawdoc! { "a": { "b.c": [1, { "": 2 }] }, "0": 3 };
    let find = |path: &[crate::document::PathSegment]| {
        get(&document, path)
            .unwrap()
            .map(|value| value.to_bson().unwrap())
    };
    assert_eq!(
        find(&["a".into(), "b.c".into(), 1.into(), "".into()]),
        Some(2.into())
    );
    assert_eq!(find(&["a".into(), "b.c".into(), "1".into()]), None);
    assert_eq!(find(&[0.into()]), None);
    assert_eq!(find(&["0".into()]), Some(3.into()));
    assert_eq!(find(&["0".into(), "x".into()]), None);
}
