use bson::{Bson, Decimal128, RawBson, doc};
use proptest::prelude::*;

use super::*;
use crate::document::testing::{nested, scalar, value};

fn key(value: &RawBson) -> Vec<u8> {
    let mut key = Vec::new();
    encode_key(value.as_raw_bson_ref(), &mut key);
    key
}

fn order(a: &RawBson, b: &RawBson) -> Ordering {
    compare(a.as_raw_bson_ref(), b.as_raw_bson_ref())
}

fn may_tie(value: &RawBson) -> bool {
    matches!(
        value,
        RawBson::Document(_)
            | RawBson::Array(_)
            | RawBson::Decimal128(_)
            | RawBson::JavaScriptCodeWithScope(_)
    )
}

fn number() -> impl Strategy<Value = RawBson> {
    let near = |center: i64| (-3_000..3_000_i64).prop_map(move |n| center.saturating_add(n));
    let integer = prop_oneof![
        any::<i64>(),
        near(0),
        near(1 << 53),
        near(-(1 << 53)),
        near(1 << 62),
        near(i64::MAX),
        near(i64::MIN),
    ];
    let fraction = prop_oneof![Just(""), Just(".0"), Just(".5"), Just(".000000000001")];
    prop_oneof![
        scalar().prop_filter("a number", |value| matches!(
            value,
            RawBson::Int32(_) | RawBson::Int64(_) | RawBson::Double(_) | RawBson::Decimal128(_)
        )),
        integer.clone().prop_map(RawBson::Int64),
        integer.clone().prop_map(|n| RawBson::Double(n as f64)),
        integer
            .clone()
            .prop_map(|n| RawBson::Double((n as f64).next_down())),
        (integer, fraction).prop_map(|(n, fraction)| {
            RawBson::Decimal128(format!("{n}{fraction}").parse::<Decimal128>().unwrap())
        }),
        (any::<i64>(), -330..310_i32).prop_map(|(n, exponent)| {
            RawBson::Decimal128(format!("{n}E{exponent}").parse::<Decimal128>().unwrap())
        }),
    ]
}

fn check(a: &RawBson, b: &RawBson) -> Result<(), TestCaseError> {
    let expected = order(a, b);
    prop_assert_eq!(order(b, a), expected.reverse());
    prop_assert_eq!(order(a, a), Ordering::Equal);
    let keys = key(a).cmp(&key(b));
    if may_tie(a) || may_tie(b) {
        prop_assert!(
            keys == expected || keys.is_eq(),
            "{:?} {:?} {:?}",
            a,
            b,
            keys
        );
    } else {
        prop_assert_eq!(keys, expected, "{:?} {:?}", a, b);
    }
    // Keys can follow one another only if none begins another.
    prop_assert!(key(a) == key(b) || !key(b).starts_with(&key(a)));
    Ok(())
}

proptest! {
    #[test]
    fn keys_sort_as_values_do(a in value(), b in value()) {
        check(&a, &b)?;
    }

    #[test]
    fn scalars_of_one_type_too(a in scalar(), b in scalar()) {
        check(&a, &b)?;
    }

    #[test]
    fn keys_of_numbers_sort_as_numbers_do(a in number(), b in number()) {
        check(&a, &b)?;
    }

    #[test]
    fn the_order_is_transitive(mut values in proptest::collection::vec(prop_oneof![number(), value()], 3)) {
        values.sort_by(order);
        prop_assert!(order(&values[0], &values[2]).is_le());
        prop_assert!(order(&values[0], &values[1]).is_le());
        prop_assert!(order(&values[1], &values[2]).is_le());
    }
}

#[test]
fn types_sort_as_the_manual_says() {
    let values: Vec<Bson> = vec![
        Bson::MinKey,
        Bson::Undefined,
        Bson::Null,
        f64::NAN.into(),
        f64::NEG_INFINITY.into(),
        i64::MIN.into(),
        (-1.5).into(),
        0.into(),
        1.5.into(),
        9_007_199_254_740_992.0.into(),
        9_007_199_254_740_993_i64.into(),
        i64::MAX.into(),
        9_223_372_036_854_775_808.0.into(),
        f64::INFINITY.into(),
        "".into(),
        "A".into(),
        Bson::Symbol("B".into()),
        "a".into(),
        "a\0".into(),
        "ab".into(),
        doc! {}.into(),
        doc! { "a": 1 }.into(),
        doc! { "a": 1, "b": 1 }.into(),
        doc! { "b": 0 }.into(),
        doc! { "a": "x" }.into(),
        Bson::Array(vec![]),
        Bson::Array(vec![1.into()]),
        Bson::Array(vec![1.into(), 0.into()]),
        Bson::Array(vec![2.into()]),
        Bson::Binary(bson::Binary {
            subtype: BinarySubtype::UserDefined(0x80),
            bytes: vec![9],
        }),
        Bson::Binary(bson::Binary {
            subtype: BinarySubtype::Generic,
            bytes: vec![1, 2],
        }),
        bson::oid::ObjectId::from_bytes([1; 12]).into(),
        false.into(),
        true.into(),
        bson::DateTime::from_millis(-1).into(),
        bson::DateTime::from_millis(1).into(),
        bson::Timestamp {
            time: 0,
            increment: 2,
        }
        .into(),
        bson::Timestamp {
            time: 1,
            increment: 0,
        }
        .into(),
        Bson::JavaScriptCode("f".into()),
        Bson::MaxKey,
    ];
    let values: Vec<RawBson> = values.into_iter().map(|v| v.try_into().unwrap()).collect();
    for pair in values.windows(2) {
        assert_eq!(order(&pair[0], &pair[1]), Ordering::Less, "{pair:?}");
    }
}

#[test]
fn numbers_of_all_types_compare_by_value() {
    let decimal = |text: &str| RawBson::Decimal128(text.parse::<Decimal128>().unwrap());
    for (a, expected, b) in [
        (RawBson::Int32(1), Ordering::Equal, RawBson::Double(1.0)),
        (RawBson::Double(-0.0), Ordering::Equal, RawBson::Int64(0)),
        (
            RawBson::Double(f64::NAN),
            Ordering::Equal,
            RawBson::Double(-f64::NAN),
        ),
        (decimal("NaN"), Ordering::Equal, RawBson::Double(f64::NAN)),
        (decimal("1.50"), Ordering::Equal, RawBson::Double(1.5)),
        (decimal("-0"), Ordering::Equal, RawBson::Double(0.0)),
        (decimal("0.1"), Ordering::Less, RawBson::Double(0.1)),
        (
            decimal("1E+400"),
            Ordering::Greater,
            RawBson::Double(f64::MAX),
        ),
        (
            decimal("1E+400"),
            Ordering::Less,
            RawBson::Double(f64::INFINITY),
        ),
        (decimal("1E-400"), Ordering::Greater, RawBson::Int32(0)),
        (decimal("-1E-400"), Ordering::Less, RawBson::Int32(0)),
        (
            decimal("9223372036854775806.5"),
            Ordering::Less,
            RawBson::Int64(i64::MAX),
        ),
        (decimal("100"), Ordering::Equal, RawBson::Int32(100)),
        (decimal("1E+2"), Ordering::Equal, decimal("100.0")),
    ] {
        assert_eq!(order(&a, &b), expected, "{a:?} {b:?}");
    }
}

#[test]
fn deep_values_do_not_overflow_the_stack() {
    let (a, b) = (nested(10_000), nested(9_999));
    let order = compare(RawBsonRef::Document(&a), RawBsonRef::Document(&b));
    assert!(order.is_ne());
}
