//! Whether a document is what a query asks for.

use std::cmp::Ordering;
use std::ops::Bound;

use bson::{Bson, RawBson, RawBsonRef, RawDocument};

use super::super::paths::{Hit, any};
use crate::document::compare;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::query;

/// A filter with its values in raw form.
#[derive(Debug)]
pub(super) struct Filter {
    pub(super) path: String,
    pub(super) test: Test,
}

#[derive(Debug)]
pub(super) enum Test {
    /// Equal to one of these.
    In(Vec<RawBson>),
    Range(Bound<RawBson>, Bound<RawBson>),
    Contains(String),
}

impl Filter {
    pub(super) fn new(filter: &query::Filter) -> Result<Self> {
        let test = match filter {
            query::Filter::Equal(_, value) => Test::In(vec![raw(value)?]),
            query::Filter::In(_, values) => {
                Test::In(values.iter().map(raw).collect::<Result<_>>()?)
            }
            query::Filter::Range(_, low, high) => Test::Range(raw_bound(low)?, raw_bound(high)?),
            query::Filter::Contains(_, text) => Test::Contains(text.clone()),
        };
        Ok(Self {
            path: filter.path().to_owned(),
            test,
        })
    }

    pub(super) fn matches(&self, document: &RawDocument) -> bool {
        any(document, &self.path, &mut |hit| self.test.accepts(hit))
    }
}

impl Test {
    fn accepts(&self, hit: Hit<'_>) -> bool {
        match self {
            Self::In(values) => values
                .iter()
                .any(|value| is_equal(hit, value.as_raw_bson_ref())),
            Self::Range(low, high) => {
                let low = low.as_ref().map(RawBson::as_raw_bson_ref);
                let high = high.as_ref().map(RawBson::as_raw_bson_ref);
                is_beyond(hit, low, Ordering::Greater) && is_beyond(hit, high, Ordering::Less)
            }
            Self::Contains(text) => match hit {
                Hit::Value(RawBsonRef::String(value) | RawBsonRef::Symbol(value)) => {
                    value.contains(text.as_str())
                }
                _ => false,
            },
        }
    }
}

fn is_equal(hit: Hit<'_>, value: RawBsonRef<'_>) -> bool {
    compared(hit, value).is_some_and(Ordering::is_eq)
}

/// Whether a hit lies on the given side of a bound, and is of its type.
fn is_beyond(hit: Hit<'_>, bound: Bound<RawBsonRef<'_>>, side: Ordering) -> bool {
    let (bound, inclusive) = match bound {
        Bound::Unbounded => return true,
        Bound::Included(bound) => (bound, true),
        Bound::Excluded(bound) => (bound, false),
    };
    let Some(order) = compared(hit, bound) else {
        return false;
    };
    let hit_is_nan = matches!(hit, Hit::Value(value) if is_nan(value));
    // Not a number is neither above nor below any number.
    if hit_is_nan || is_nan(bound) {
        return inclusive && order.is_eq();
    }
    order == side || inclusive && order.is_eq()
}

/// Compares a hit with a value of the same type; `None` for another type.
fn compared(hit: Hit<'_>, value: RawBsonRef<'_>) -> Option<Ordering> {
    let found = match hit {
        Hit::Value(found) => found,
        Hit::Whole(array) => RawBsonRef::Array(array),
        Hit::Missing => RawBsonRef::Null,
    };
    (type_of(found) == type_of(value)).then(|| compare(found, value))
}

/// The type that comparisons keep to: all numbers are one, strings and symbols are one.
fn type_of(value: RawBsonRef<'_>) -> u8 {
    use bson::spec::ElementType;
    let element = match value.element_type() {
        ElementType::Int32 | ElementType::Int64 | ElementType::Decimal128 => ElementType::Double,
        ElementType::Symbol => ElementType::String,
        other => other,
    };
    element as u8
}

fn is_nan(value: RawBsonRef<'_>) -> bool {
    match value {
        RawBsonRef::Double(number) => number.is_nan(),
        // Bits 1 to 5 of the first byte set: IEEE 754-2008, 3.5.2.
        RawBsonRef::Decimal128(number) => number.bytes()[15] & 0x7c == 0x7c,
        _ => false,
    }
}

fn raw(value: &Bson) -> Result<RawBson> {
    RawBson::try_from(value.clone()).map_err(|e| {
        Error::new(ErrorKind::Serialization, "a query's value has no BSON form").with_source(e)
    })
}

fn raw_bound(bound: &Bound<Bson>) -> Result<Bound<RawBson>> {
    Ok(match bound {
        Bound::Unbounded => Bound::Unbounded,
        Bound::Included(value) => Bound::Included(raw(value)?),
        Bound::Excluded(value) => Bound::Excluded(raw(value)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::query::Query;
    use bson::{bson, rawdoc};

    fn matching(query: &Query) -> Vec<i32> {
        let documents = [
            rawdoc! { "_id": 1, "n": 5, "tags": ["a", "b"], "in": { "x": [1, 9] } },
            rawdoc! { "_id": 2, "n": 5.0, "tags": "abc", "in": [{ "x": 5 }, { "y": 1 }] },
            rawdoc! { "_id": 3, "n": 5_i64, "tags": null },
            rawdoc! { "_id": 4, "n": "5", "tags": [], "in": [] },
            rawdoc! { "_id": 5, "n": f64::NAN, "tags": ["a"] },
            rawdoc! { "_id": 6, "n": [1, "z"], "tags": { "k": 1 } },
        ];
        let filters: Vec<_> = query
            .filters
            .iter()
            .map(|filter| Filter::new(filter).unwrap())
            .collect();
        let found = documents
            .iter()
            .filter(|document| filters.iter().all(|filter| filter.matches(document)));
        found
            .map(|document| document.get_i32("_id").unwrap())
            .collect()
    }

    #[test]
    fn filters_mean_what_they_mean_in_mongodb() {
        let q = Query::new;
        for (query, expected) in [
            (q().equal("n", 5), vec![1, 2, 3]),
            (q().equal("n", "5"), vec![4]),
            (q().equal("n", f64::NAN), vec![5]),
            (q().range("n", 2..), vec![1, 2, 3]),
            (q().range("n", ..2), vec![6]),
            (q().range("n", 5..5), vec![]),
            (q().range("n", f64::NAN..), vec![5]),
            (q().range("n", "a"..), vec![6]),
            (q().equal("tags", "a"), vec![1, 5]),
            (q().equal("tags", bson!(["a"])), vec![5]),
            (q().equal("tags", bson!([])), vec![4]),
            (q().equal("tags", bson!({ "k": 1_i64 })), vec![6]),
            (q().equal("tags", Bson::Null), vec![3]),
            (q().equal("in.x", Bson::Null), vec![2, 3, 5, 6]),
            (q().equal("in", Bson::Null), vec![3, 5, 6]),
            (q().equal("in.x", 9), vec![1]),
            (q().equal("in.x.1", 9), vec![1]),
            (q().equal("in.0.x", 5), vec![2]),
            (q().range("in.x", 2..=8), vec![2]),
            (q().is_in("tags", ["b", "abc"]), vec![1, 2]),
            (q().is_in::<&str>("tags", []), vec![]),
            (q().contains("tags", "b"), vec![1, 2]),
            (q().equal("n", 5).contains("tags", "b"), vec![1, 2]),
        ] {
            assert_eq!(matching(&query), expected, "{query:?}");
        }
    }
}
