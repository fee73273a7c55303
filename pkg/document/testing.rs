//! Arbitrary BSON for property tests: every type, awkward keys, and pairs that share most of
//! their content, as two states of one document do.

use bson::oid::ObjectId;
use bson::raw::CString;
use bson::spec::BinarySubtype;
use bson::{
    Binary, DateTime, Decimal128, RawArrayBuf, RawBson, RawBsonRef, RawDocument, RawDocumentBuf,
    RawJavaScriptCodeWithScope, Regex, Timestamp,
};
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::raw::{Fields, RawValue, Writer, with_raw};

type Pairs = Vec<(String, RawBson)>;

pub(super) fn document(pairs: Pairs) -> RawDocumentBuf {
    let mut document = RawDocumentBuf::new();
    let mut seen = std::collections::HashSet::new();
    for (key, value) in pairs {
        if seen.insert(key.clone()) {
            document.append(CString::try_from(key).unwrap(), value);
        }
    }
    document
}

fn array(values: Vec<RawBson>) -> RawBson {
    RawBson::Array(values.into_iter().collect::<RawArrayBuf>())
}

fn key() -> impl Strategy<Value = String> {
    let awkward = select(vec![
        "", "$x", "$set", "a.b", "0", "1", "_id", "id", "version", "~", "/", "a/b~c", "ключ",
        "$date",
    ]);
    prop_oneof![
        4 => select(vec!["a", "b", "c", "d", "e", "f"]).prop_map(str::to_owned),
        2 => awkward.prop_map(str::to_owned),
        1 => "[a-z]{1,12}",
    ]
}

/// Bytes of a `DbPointer` cannot be built by its fields, which are private.
fn db_pointer() -> RawBson {
    let mut writer = Writer::default();
    let start = writer.open();
    writer.key(bson::spec::ElementType::DbPointer, b"p");
    writer.value(b"\x03\0\0\0ns\0abcdefghijkl");
    writer.close(start).unwrap();
    let document = writer.into_document().unwrap();
    document.get("p").unwrap().unwrap().into()
}

pub(super) fn scalar() -> BoxedStrategy<RawBson> {
    let doubles = select(vec![
        0.0,
        -0.0,
        1.0,
        1.5,
        -1.5,
        1e300,
        5e-324,
        9_007_199_254_740_992.0,
        9_223_372_036_854_775_808.0,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
        -f64::NAN,
        f64::from_bits(0x7ff8_0000_dead_beef),
    ]);
    let decimals = select(vec![
        "0",
        "-0",
        "1",
        "1.0",
        "1.5",
        "-1E+3",
        "1E-6176",
        "9.999E+6144",
        "NaN",
        "Infinity",
        "-Infinity",
        "9007199254740993",
        "0.1",
    ]);
    let numbers = prop_oneof![
        any::<i32>().prop_map(RawBson::Int32),
        (-3..4_i32).prop_map(RawBson::Int32),
        any::<i64>().prop_map(RawBson::Int64),
        (-3..4_i64).prop_map(RawBson::Int64),
        select(vec![i64::MAX, i64::MIN, 9_007_199_254_740_993]).prop_map(RawBson::Int64),
        any::<f64>().prop_map(RawBson::Double),
        doubles.prop_map(RawBson::Double),
        decimals.prop_map(|text| RawBson::Decimal128(text.parse::<Decimal128>().unwrap())),
    ];
    let subtypes = select(vec![
        BinarySubtype::Generic,
        BinarySubtype::BinaryOld,
        BinarySubtype::Uuid,
        BinarySubtype::UserDefined(0x81),
    ]);
    let binary = (subtypes, proptest::collection::vec(any::<u8>(), 0..6))
        .prop_map(|(subtype, bytes)| RawBson::Binary(Binary { subtype, bytes }));
    let regex = ("[a-z]{0,3}", select(vec!["", "i", "im"])).prop_map(|(pattern, options)| {
        RawBson::RegularExpression(Regex {
            pattern: pattern.try_into().unwrap(),
            options: options.to_owned().try_into().unwrap(),
        })
    });
    let scope = (key(), any::<i32>()).prop_map(|(key, number)| {
        RawBson::JavaScriptCodeWithScope(RawJavaScriptCodeWithScope {
            code: "f()".to_owned(),
            scope: document(vec![(key, RawBson::Int32(number))]),
        })
    });
    let strings = prop_oneof!["[a-c]{0,3}", "\\PC{0,8}", Just("a\0b".to_owned())];
    prop_oneof![
        6 => numbers,
        4 => strings.clone().prop_map(RawBson::String),
        1 => strings.clone().prop_map(RawBson::Symbol),
        1 => "[a-c]{0,3}".prop_map(RawBson::JavaScriptCode),
        1 => scope,
        1 => regex,
        1 => binary,
        1 => any::<bool>().prop_map(RawBson::Boolean),
        1 => any::<[u8; 12]>().prop_map(|id| RawBson::ObjectId(ObjectId::from_bytes(id))),
        1 => any::<i64>().prop_map(|ms| RawBson::DateTime(DateTime::from_millis(ms))),
        1 => (0..2_000_000_000_000_i64)
            .prop_map(|ms| RawBson::DateTime(DateTime::from_millis(ms))),
        1 => any::<(u32, u32)>()
            .prop_map(|(time, increment)| RawBson::Timestamp(Timestamp { time, increment })),
        1 => Just(RawBson::Null),
        1 => select(vec![RawBson::Undefined, RawBson::MinKey, RawBson::MaxKey, db_pointer()]),
    ]
    .boxed()
}

pub(super) fn value() -> BoxedStrategy<RawBson> {
    scalar()
        .prop_recursive(4, 48, 6, |inner| {
            prop_oneof![
                3 => proptest::collection::vec((key(), inner.clone()), 0..6)
                    .prop_map(|pairs| RawBson::Document(document(pairs))),
                2 => proptest::collection::vec(inner, 0..8).prop_map(array),
            ]
        })
        .boxed()
}

pub(super) fn any_document() -> BoxedStrategy<RawDocumentBuf> {
    proptest::collection::vec((key(), value()), 0..10)
        .prop_map(document)
        .boxed()
}

/// Two documents, mostly states of one.
pub(super) fn pair() -> BoxedStrategy<(RawDocumentBuf, RawDocumentBuf)> {
    prop_oneof![
        1 => (any_document(), any_document()),
        4 => (any_document(), edits()).prop_map(|(before, edits)| {
            let after = apply_edits(&before, &edits);
            (before, after)
        }),
    ]
    .boxed()
}

#[derive(Debug, Clone)]
pub(super) struct Edit {
    what: u8,
    at: Index,
    other: Index,
    descend: u8,
    key: String,
    value: RawBson,
}

pub(super) fn edits() -> BoxedStrategy<Vec<Edit>> {
    let edit = (
        any::<u8>(),
        any::<Index>(),
        any::<Index>(),
        any::<u8>(),
        key(),
        value(),
    )
        .prop_map(|(what, at, other, descend, key, value)| Edit {
            what,
            at,
            other,
            descend,
            key,
            value,
        });
    proptest::collection::vec(edit, 1..6).boxed()
}

pub(super) fn apply_edits(document: &RawDocument, edits: &[Edit]) -> RawDocumentBuf {
    let mut value = RawBson::Document(document.to_owned());
    for edit in edits {
        value = apply_edit(value.as_raw_bson_ref(), edit, edit.descend);
    }
    match value {
        RawBson::Document(document) => document,
        _ => unreachable!("edits keep documents documents"),
    }
}

/// Changes one child, or with a nonzero last bit of `descend`, something inside it.
fn apply_edit(value: RawBsonRef<'_>, edit: &Edit, descend: u8) -> RawBson {
    let (mut pairs, is_array): (Pairs, bool) = match value {
        RawBsonRef::Document(document) => (
            document
                .iter()
                .map(|item| item.map(|(k, v)| (k.to_string(), v.into())).unwrap())
                .collect(),
            false,
        ),
        RawBsonRef::Array(array) => (
            array
                .into_iter()
                .map(|item| (String::new(), item.unwrap().into()))
                .collect(),
            true,
        ),
        _ => return edit.value.clone(),
    };
    if pairs.is_empty() || edit.what.is_multiple_of(5) {
        let at = edit.other.index(pairs.len() + 1);
        pairs.insert(at, (edit.key.clone(), edit.value.clone()));
    } else {
        let (at, other) = (edit.at.index(pairs.len()), edit.other.index(pairs.len()));
        match edit.what % 5 {
            1 => drop(pairs.remove(at)),
            2 => pairs.swap(at, other),
            _ => {
                let child = pairs[at].1.as_raw_bson_ref();
                pairs[at].1 = if descend & 1 == 1 {
                    apply_edit(child, edit, descend >> 1)
                } else {
                    edit.value.clone()
                };
            }
        }
    }
    if is_array {
        array(pairs.into_iter().map(|(_, value)| value).collect())
    } else {
        RawBson::Document(document(pairs))
    }
}

/// The document without some of its top-level fields.
pub(super) fn without(document: &RawDocument, keys: &[&str]) -> RawDocumentBuf {
    let mut writer = Writer::default();
    let start = writer.open();
    for field in Fields::new(document) {
        let field = field.unwrap();
        if !keys.contains(&field.key) {
            writer.field(field.key, field.value);
        }
    }
    writer.close(start).unwrap();
    writer.into_document().unwrap()
}

/// Documents nested `levels` deep, the outermost included.
pub(super) fn nested(levels: usize) -> RawDocumentBuf {
    let mut bytes = b"\x05\0\0\0\0".to_vec();
    for _ in 1..levels {
        let mut outer = i32::try_from(bytes.len() + 8)
            .unwrap()
            .to_le_bytes()
            .to_vec();
        outer.extend(b"\x03a\0");
        outer.append(&mut bytes);
        outer.push(0);
        bytes = outer;
    }
    RawDocumentBuf::from_bytes(bytes).unwrap()
}

#[test]
fn parsed_values_have_the_bytes_they_came_from() {
    let document = document(vec![("p".to_owned(), db_pointer())]);
    let raw = Fields::new(&document).next().unwrap().unwrap().value;
    let parsed = document.get("p").unwrap().unwrap();
    assert!(with_raw(parsed, |value| Ok(value == raw)).unwrap());
    let whole = RawBsonRef::Document(&document);
    assert!(with_raw(whole, |value| Ok(value == RawValue::document(&document))).unwrap());
}
