//! What is stored is what was computed, byte for byte.

use std::time::{Duration, Instant};

use bson::oid::ObjectId;
use bson::spec::BinarySubtype;
use bson::{
    Binary, Bson, DateTime, Document, JavaScriptCodeWithScope, RawDocument, RawDocumentBuf, Regex,
    Timestamp, doc, rawdoc,
};

use serde::{Deserialize, Serialize};

use crate::document::{DocumentKey, Version};
use crate::event::ChangeKind;
use crate::storage::Storage;
use crate::storage::backend::{Condition, DocumentWrite, Unit};
use crate::testing::support::{assert_same_bytes, foreign, load_raw, open};
use crate::testing::{TestStore, check_log};

fn key() -> DocumentKey {
    DocumentKey::new("things", "t")
}

/// What becomes of a stored document when a closure returns a value: fields keep their places, new ones
/// go to the end.
fn merged(stored: &Document, value: &Document) -> Document {
    let mut merged = Document::new();
    for (key, old) in stored {
        match (old, value.get(key)) {
            (_, None) => {}
            (Bson::Document(old), Some(Bson::Document(new))) => {
                merged.insert(key, self::merged(old, new));
            }
            (_, Some(new)) => {
                merged.insert(key, new.clone());
            }
        }
    }
    for (key, new) in value {
        if !stored.contains_key(key) {
            merged.insert(key, new.clone());
        }
    }
    merged
}

/// Stores values one after the other through typed updates, checking the bytes after each.
async fn stores_each(storage: &Storage, values: &[Document]) {
    let mut expected = doc! { "_id": "t" };
    for (value, version) in values.iter().zip(1_i64..) {
        let change = storage.update("things", "t", |_: Option<Document>| value.clone());
        let change = change
            .await
            .unwrap_or_else(|error| panic!("{value:?}: {error:?}"));
        assert_eq!(change.version().get() as i64, version, "{value:?}");
        let mut value = value.clone();
        value.insert("_id", "t");
        // The version stands at the end of a new document.
        value.insert("version", version);
        expected = merged(&expected, &value);
        let stored = load_raw(storage, &key()).await.unwrap();
        assert_same_bytes(
            &stored,
            &RawDocumentBuf::try_from(expected.clone()).unwrap(),
        );
    }
    check_log(storage.backend().as_ref(), &key()).await;
}

/// One value of every BSON type.
pub(in crate::testing) fn every_type() -> Vec<(&'static str, Bson)> {
    let binary = |subtype, bytes: &[u8]| {
        Bson::Binary(Binary {
            subtype,
            bytes: bytes.to_vec(),
        })
    };
    vec![
        ("double", Bson::Double(1.5)),
        ("double_whole", Bson::Double(1.0)),
        ("double_zero", Bson::Double(0.0)),
        ("double_minus_zero", Bson::Double(-0.0)),
        ("double_nan", Bson::Double(f64::NAN)),
        ("double_infinite", Bson::Double(f64::NEG_INFINITY)),
        ("string", Bson::String("ü\u{10ffff}\n\"".into())),
        ("string_empty", Bson::String(String::new())),
        ("string_with_nul", Bson::String("a\0b".into())),
        (
            "document",
            Bson::Document(doc! { "b": 1, "a": { "z": null } }),
        ),
        ("document_empty", Bson::Document(doc! {})),
        (
            "array",
            Bson::Array(vec![1.into(), "x".into(), Bson::Array(vec![]), Bson::Null]),
        ),
        ("array_empty", Bson::Array(vec![])),
        (
            "array_of_documents",
            Bson::Array(vec![doc! { "a": 1 }.into(), doc! {}.into()]),
        ),
        ("binary", binary(BinarySubtype::Generic, b"\0\xff")),
        ("binary_empty", binary(BinarySubtype::Generic, b"")),
        ("binary_uuid", binary(BinarySubtype::Uuid, &[7; 16])),
        (
            "binary_user",
            binary(BinarySubtype::UserDefined(0x80), b"x"),
        ),
        ("binary_md5", binary(BinarySubtype::Md5, &[1; 16])),
        ("object_id", Bson::ObjectId(ObjectId::from_bytes([9; 12]))),
        ("boolean", Bson::Boolean(false)),
        (
            "date",
            Bson::DateTime(DateTime::from_millis(1_700_000_000_123)),
        ),
        (
            "date_before_1970",
            Bson::DateTime(DateTime::from_millis(-1)),
        ),
        ("date_far", Bson::DateTime(DateTime::from_millis(i64::MAX))),
        ("null", Bson::Null),
        (
            "regex",
            Bson::RegularExpression(Regex {
                pattern: bson::raw::CString::try_from("^a.*$").unwrap(),
                options: bson::raw::CString::try_from("im").unwrap(),
            }),
        ),
        ("javascript", Bson::JavaScriptCode("return 1".into())),
        (
            "javascript_with_scope",
            Bson::JavaScriptCodeWithScope(JavaScriptCodeWithScope {
                code: "x".into(),
                scope: doc! { "x": 1 },
            }),
        ),
        ("symbol", Bson::Symbol("s".into())),
        ("int32", Bson::Int32(i32::MIN)),
        ("int64", Bson::Int64(1)),
        ("int64_large", Bson::Int64(i64::MAX)),
        (
            "timestamp",
            Bson::Timestamp(Timestamp {
                time: 7,
                increment: 8,
            }),
        ),
        ("decimal", Bson::Decimal128("1.10".parse().unwrap())),
        (
            "decimal_exponent",
            Bson::Decimal128("1E+3".parse().unwrap()),
        ),
        ("decimal_nan", Bson::Decimal128("NaN".parse().unwrap())),
        ("undefined", Bson::Undefined),
        ("min_key", Bson::MinKey),
        ("max_key", Bson::MaxKey),
    ]
}

/// Every BSON type is stored and read back as it is: when a document is created with it, when it is
/// added to one, inside documents and inside arrays.
pub async fn every_bson_type_round_trips(store: &dyn TestStore) {
    let storage = open(store).await;
    let all: Document = every_type()
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    let values: Vec<Bson> = all.values().cloned().collect();
    let documents = [
        all.clone(),
        doc! { "nested": { "deeper": all.clone() } },
        doc! { "list": values },
        doc! { "list": [all.clone(), [all]] },
    ];
    stores_each(&storage, &documents).await;
    for (name, value) in every_type() {
        let key = DocumentKey::new("one_each", name);
        for document in [
            doc! { "v": value.clone() },
            doc! {},
            doc! { "v": { "w": [value] } },
        ] {
            let change = storage.update("one_each", name, |_: Option<Document>| document.clone());
            let change = change
                .await
                .unwrap_or_else(|error| panic!("{name}: {error:?}"));
            assert_ne!(change.kind(), ChangeKind::Unchanged, "{name}");
            // By debug form, in which NaN equals itself and -0.0 is not 0.0.
            let found = storage.load::<Document>("one_each", name).await.unwrap();
            assert_eq!(
                format!("{:?}", found.get("v")),
                format!("{:?}", document.get("v")),
                "{name}"
            );
        }
        check_log(storage.backend().as_ref(), &key).await;
    }
}

/// Values that only look alike are different values: Int32, Int64, Double and Decimal128 of the same
/// number, 0.0 and -0.0, null and missing, empty document and array, keys in another order.
pub async fn values_that_look_alike_are_told_apart(store: &dyn TestStore) {
    let storage = open(store).await;
    let values = [
        doc! { "v": 1_i32 },
        doc! { "v": 1_i64 },
        doc! { "v": 1.0 },
        doc! { "v": "1".parse::<bson::Decimal128>().unwrap() },
        doc! { "v": 0.0 },
        doc! { "v": -0.0 },
        doc! { "v": f64::NAN },
        doc! { "v": null },
        doc! {},
        doc! { "v": {} },
        doc! { "v": [] },
        doc! { "v": [[]] },
        doc! { "v": "" },
        doc! { "v": ["a", "b"] },
        doc! { "v": { "0": "a", "1": "b" } },
    ];
    stores_each(&storage, &values).await;
}

/// NaN is equal to itself: writing it again is no change.
pub async fn nan_is_no_change(store: &dyn TestStore) {
    let storage = open(store).await;
    let write = |_: Option<Document>| doc! { "v": f64::NAN, "w": [f64::NAN] };
    storage.update("things", "t", write).await.unwrap();
    let again = storage.update("things", "t", write).await.unwrap();
    assert_eq!(again.kind(), ChangeKind::Unchanged);
}

/// Fields keep their order: new ones go to the end in the order given, changed ones stay in their place,
/// whatever their names.
pub async fn fields_keep_their_order(store: &dyn TestStore) {
    let storage = open(store).await;
    let put = |value: Document| {
        let storage = storage.clone();
        async move {
            storage
                .update("things", "t", |_: Option<Document>| value.clone())
                .await
                .unwrap()
        }
    };
    put(doc! { "z": 1, "a": 1, "m": { "y": 1, "b": 1 } }).await;
    put(doc! { "m": { "b": 2, "y": 1, "c": 1, "a": 1 }, "zz": 1, "aa": 1, "a": 1, "z": 2 }).await;
    let expected = rawdoc! {
        "_id": "t", "z": 2, "a": 1, "m": { "y": 1, "b": 2, "c": 1, "a": 1 },
        "version": 2_i64, "zz": 1, "aa": 1,
    };
    assert_same_bytes(&load_raw(&storage, &key()).await.unwrap(), &expected);
    // An order of keys of its own is no change of a typed value.
    let same =
        put(doc! { "aa": 1, "zz": 1, "m": { "a": 1, "b": 2, "c": 1, "y": 1 }, "a": 1, "z": 2 })
            .await;
    assert_eq!(same.kind(), ChangeKind::Unchanged);
    check_log(storage.backend().as_ref(), &key()).await;
}

/// Keys with dots, with leading dollar signs, empty ones and Unicode ones are ordinary keys at every
/// level, for creation, change and removal.
pub async fn odd_keys_are_ordinary(store: &dyn TestStore) {
    let storage = open(store).await;
    let keys = [
        "a.b",
        "$x",
        "$set",
        "",
        ".",
        "a.",
        "$",
        "a$b",
        "0",
        "ü 사용자",
        "__proto__",
        "a/b~c",
    ];
    let with = |value: i32| {
        let odd: Document = keys
            .iter()
            .map(|key| ((*key).to_owned(), value.into()))
            .collect();
        let mut all = odd.clone();
        all.insert("inside", odd.clone());
        all.insert("list", vec![odd]);
        all
    };
    let mut fewer = with(2);
    fewer.get_document_mut("inside").unwrap().remove("a.b");
    fewer.get_document_mut("inside").unwrap().remove("$set");
    let mut values = vec![with(1), with(2), fewer];
    // Each odd key alone, removed and added again.
    for key in keys {
        values.push(doc! { key: { key: 1 } });
        values.push(doc! { key: { key: [1, { key: 2 }] } });
    }
    stores_each(&storage, &values).await;
}

/// Sub-documents that look like types of Extended JSON are data, and stay it.
pub async fn what_looks_like_extended_json_is_data(store: &dyn TestStore) {
    let storage = open(store).await;
    let values = [
        doc! { "v": { "$date": "no date" }, "w": { "$oid": "no id" } },
        doc! { "v": { "$numberLong": "12" }, "w": [{ "$numberDecimal": "x" }] },
        doc! { "v": { "$ref": "c", "$id": 1 }, "w": { "$binary": { "base64": "", "subType": "00" } } },
        doc! { "v": { "$oid": "0123456789abcdef01234567" }, "w": { "$symbol": "s" } },
        doc! { "v": { "$undefined": true }, "w": { "$timestamp": { "t": 1, "i": 2 } } },
    ];
    for (number, value) in (1_i64..).zip(&values) {
        let stored = {
            let mut stored = doc! { "_id": number };
            stored.extend(value.clone());
            stored.insert("version", 1_i64);
            RawDocumentBuf::try_from(stored).unwrap()
        };
        let key = DocumentKey::new("things", number);
        foreign(store).await.put(&key, stored.clone()).await;
        // Untouched fields stay as they are next to a changed one.
        let touch = storage.update("things", number, |found: Option<Touched>| Touched {
            touched: found.map_or(0, |found| found.touched) + 1,
        });
        touch
            .await
            .unwrap_or_else(|error| panic!("{value:?}: {error:?}"));
        assert_untouched(&storage, &key, &stored).await;
        // `Document` itself takes some of them for the types they name; it must not store those.
        let touch = storage.update("things", number, |found: Option<Document>| {
            let mut found = found.unwrap();
            found.insert("touched", 2);
            found
        });
        if let Err(error) = touch.await {
            assert_eq!(error.kind(), crate::ErrorKind::Serialization, "{value:?}");
        }
        assert_untouched(&storage, &key, &stored).await;
        check_log(storage.backend().as_ref(), &key).await;
    }
}

#[derive(Serialize, Deserialize)]
struct Touched {
    #[serde(default)]
    touched: i32,
}

async fn assert_untouched(storage: &Storage, key: &DocumentKey, stored: &RawDocument) {
    let found = load_raw(storage, key).await.unwrap();
    for name in ["v", "w"] {
        assert_eq!(found.get(name).unwrap(), stored.get(name).unwrap(), "{key}");
    }
}

/// A document of 100 levels, of documents and of arrays, is created and changed at its bottom; one that
/// is too deep is `TooLarge`, and nothing is written.
pub async fn documents_may_be_a_hundred_levels_deep(store: &dyn TestStore) {
    // In debug builds a level of a `Document` takes 25 KB of stack to read, more than threads have.
    on_a_large_stack(async || changes_deep_documents(store).await);
}

/// Runs a future on a thread of its own with 64 MiB of stack.
fn on_a_large_stack(run: impl AsyncFnOnce() + Send) {
    let runtime = tokio::runtime::Handle::current();
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(64 << 20);
        let thread = thread.spawn_scoped(scope, || runtime.block_on(run()));
        if let Err(panic) = thread.expect("a thread starts").join() {
            std::panic::resume_unwind(panic);
        }
    });
}

async fn changes_deep_documents(store: &dyn TestStore) {
    fn nested(levels: usize, bottom: i32, arrays: bool) -> Document {
        let mut value = Bson::Int32(bottom);
        // The document itself is the first level.
        for _ in 1..levels {
            value = if arrays {
                Bson::Array(vec![value])
            } else {
                doc! { "d": value }.into()
            };
        }
        doc! { "d": value }
    }
    let storage = open(store).await;
    for arrays in [false, true] {
        let id = format!("arrays: {arrays}");
        let key = DocumentKey::new("deep", id.as_str());
        for bottom in [1, 2] {
            let value = nested(100, bottom, arrays);
            let change = storage.update("deep", &id, |_: Option<Document>| value.clone());
            assert_eq!(change.await.unwrap().version(), bottom as u64);
            let stored = storage.load::<Document>("deep", &id).await.unwrap();
            assert_eq!(stored.get("d"), value.get("d"));
        }
        let log = check_log(storage.backend().as_ref(), &key).await;
        let too_deep = nested(1_000, 3, arrays);
        let refused = storage.update("deep", &id, |_: Option<Document>| too_deep.clone());
        let error = refused.await.unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::TooLarge, "{error:?}");
        assert_eq!(check_log(storage.backend().as_ref(), &key).await, log);
    }
}

/// Bytes that a server would change on its way are stored as computed: `Timestamp(0, 0)` at the top,
/// values under what was null, fields in any order, arrays that grow, shrink and lose their middle.
pub async fn stored_bytes_are_the_computed_bytes(store: &dyn TestStore) {
    let storage = open(store).await;
    let zero = Timestamp {
        time: 0,
        increment: 0,
    };
    let documents = [
        rawdoc! { "_id": "t", "version": 1_i64, "stamp": zero, "n": null, "list": [1, 2, 3, 4, 5] },
        rawdoc! { "_id": "t", "version": 2_i64, "stamp": zero, "n": { "under": { "null": zero } }, "list": [1, 5] },
        rawdoc! { "_id": "t", "z": 1, "version": 3_i64, "b": 1, "a": 1, "list": [{ "a": 1, "b": 2 }, { "a": 2 }] },
        rawdoc! { "_id": "t", "z": 1, "version": 4_i64, "b": 1, "a": 1, "list": [{ "b": 2, "a": 9 }, { "a": 2 }] },
        rawdoc! { "_id": "t", "list": [], "a": [null, null], "b": 1, "z": 1, "version": 5_i64 },
        rawdoc! { "_id": "t", "a": { "0": 1, "$x": 1, "": { "a.b": 1 } }, "list": [[zero]], "version": 6_i64 },
        rawdoc! { "_id": "t", "$x": 1, "a": { "": { "a.b": 2 }, "$x": 2 }, "a.b": 1, "": 1, "version": 7_i64 },
        rawdoc! { "_id": "t", "version": 8_i64 },
    ];
    let mut condition = Condition::Absent;
    storage.find::<Document>("things", "t").await.unwrap();
    for (document, version) in documents.into_iter().zip(1..) {
        let unit = Unit {
            writes: vec![DocumentWrite {
                key: key(),
                condition,
                document: Some(document.clone()),
            }],
            ..Unit::default()
        };
        let deadline = Instant::now() + Duration::from_secs(30);
        storage.backend().commit(&[unit], deadline).await.unwrap();
        assert_same_bytes(&load_raw(&storage, &key()).await.unwrap(), &document);
        condition = Condition::Version(Version::new(version));
    }
}

/// The same through typed updates, whose log must replay to the stored bytes: arrays of documents that
/// are edited, reordered, cut and grown.
pub async fn edits_of_arrays_replay_to_the_stored_bytes(store: &dyn TestStore) {
    let storage = open(store).await;
    let line = |sku: &str, count: i32| Bson::from(doc! { "sku": sku, "count": count });
    let lists: [Vec<Bson>; 9] = [
        vec![line("a", 1), line("b", 1), line("c", 1)],
        vec![line("a", 1), line("b", 2), line("c", 1)],
        vec![line("c", 1), line("a", 1)],
        vec![
            line("x", 9),
            line("c", 1),
            5.into(),
            line("a", 1),
            line("a", 1),
        ],
        vec![Bson::Null, Bson::Null],
        vec![Bson::Array(vec![line("a", 1)]), Bson::Null],
        vec![],
        (0..300).map(Bson::from).collect(),
        (0..300).filter(|n| n % 7 != 0).map(Bson::from).collect(),
    ];
    let values: Vec<_> = lists
        .into_iter()
        .map(|list| doc! { "keep": 1, "list": list })
        .collect();
    stores_each(&storage, &values).await;
}
