//! What a dotted path finds in a document, as MongoDB has it.
//!
//! Sources: MongoDB manual, "Query an Array" and "Query for Null or Missing Fields"; for the finer points
//! the order in which the server's own matcher and index builder go through arrays.

use bson::{RawArray, RawBsonRef, RawDocument};

/// A thing that a filter on a path is compared with.
#[derive(Debug, Clone, Copy)]
pub(super) enum Hit<'a> {
    /// A value at the path, or an element of the array there.
    Value(RawBsonRef<'a>),
    /// The array at the path as a whole.
    Whole(&'a RawArray),
    /// Nothing: compares as null.
    Missing,
}

/// Hands what the path finds to `see` until it returns true; tells whether it did.
pub(super) fn any<'a>(
    document: &'a RawDocument,
    path: &str,
    see: &mut dyn FnMut(Hit<'a>) -> bool,
) -> bool {
    let (part, rest) = split(path);
    // A stored document reads; one that does not matches like one without the field.
    match (document.get(part).ok().flatten(), rest) {
        (None, _) => see(Hit::Missing),
        (Some(RawBsonRef::Array(array)), _) => any_in_array(array, rest, see),
        (Some(value), None) => see(Hit::Value(value)),
        (Some(RawBsonRef::Document(inner)), Some(rest)) => any(inner, rest, see),
        (Some(_), Some(_)) => see(Hit::Missing),
    }
}

fn any_in_array<'a>(
    array: &'a RawArray,
    rest: Option<&str>,
    see: &mut dyn FnMut(Hit<'a>) -> bool,
) -> bool {
    let Some(rest) = rest else {
        return elements(array).any(|element| see(Hit::Value(element))) || see(Hit::Whole(array));
    };
    let (part, after) = split(rest);
    let place = index_of(part);
    // Elements that are neither documents nor at the place named by a number are passed over: they
    // are not even missing fields.
    elements(array).enumerate().any(|(number, element)| {
        let inside = match element {
            RawBsonRef::Document(inner) => any(inner, rest, see),
            _ => false,
        };
        inside
            || place == Some(number)
                && match (element, after) {
                    (element, None) => see(Hit::Value(element)),
                    (RawBsonRef::Document(inner), Some(after)) => any(inner, after, see),
                    (RawBsonRef::Array(inner), Some(after)) => {
                        any_in_array(inner, Some(after), see)
                    }
                    _ => false,
                }
    })
}

/// Hands the values that the document sorts by to `see`: the elements of an array one by one, null
/// where there is nothing.
pub(super) fn sort_values<'a>(
    document: &'a RawDocument,
    path: &str,
    see: &mut dyn FnMut(RawBsonRef<'a>),
) {
    let (part, rest) = split(path);
    match document.get(part).ok().flatten() {
        Some(value) => sort_values_of(value, rest, see),
        None => see(RawBsonRef::Null),
    }
}

fn sort_values_of<'a>(
    value: RawBsonRef<'a>,
    rest: Option<&str>,
    see: &mut dyn FnMut(RawBsonRef<'a>),
) {
    match (value, rest) {
        (RawBsonRef::Array(array), None) => {
            let mut empty = true;
            for element in elements(array) {
                empty = false;
                see(element);
            }
            if empty {
                // Before null: MongoDB's place for empty arrays.
                see(RawBsonRef::Undefined);
            }
        }
        (RawBsonRef::Array(array), Some(rest)) => {
            let (part, after) = split(rest);
            if let Some(element) = index_of(part).and_then(|place| elements(array).nth(place)) {
                return sort_values_of(element, after, see);
            }
            let mut empty = true;
            for element in elements(array) {
                empty = false;
                match element {
                    RawBsonRef::Document(inner) => sort_values(inner, rest, see),
                    _ => see(RawBsonRef::Null),
                }
            }
            if empty {
                see(RawBsonRef::Null);
            }
        }
        (value, None) => see(value),
        (RawBsonRef::Document(inner), Some(rest)) => sort_values(inner, rest, see),
        (_, Some(_)) => see(RawBsonRef::Null),
    }
}

/// Whether the path names places in arrays by number.
pub(super) fn has_places(path: &str) -> bool {
    path.split('.').any(|part| index_of(part).is_some())
}

fn elements(array: &RawArray) -> impl Iterator<Item = RawBsonRef<'_>> {
    array.into_iter().map_while(Result::ok)
}

fn split(path: &str) -> (&str, Option<&str>) {
    match path.split_once('.') {
        Some((part, rest)) => (part, Some(rest)),
        None => (path, None),
    }
}

/// The number a part stands for; `007` and `+7` are names.
fn index_of(part: &str) -> Option<usize> {
    let plain = part.bytes().all(|byte| byte.is_ascii_digit())
        && (part.len() == 1 || !part.starts_with('0'));
    plain.then(|| part.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{RawDocumentBuf, rawdoc};

    fn found(document: &RawDocumentBuf, path: &str) -> Vec<String> {
        let mut found = Vec::new();
        any(document, path, &mut |hit| {
            found.push(match hit {
                Hit::Value(RawBsonRef::Int32(number)) => number.to_string(),
                Hit::Value(value) => format!("{:?}", value.element_type()),
                Hit::Whole(_) => "whole".to_owned(),
                Hit::Missing => "missing".to_owned(),
            });
            false
        });
        found
    }

    fn sorted_by(document: &RawDocumentBuf, path: &str) -> Vec<String> {
        let mut found = Vec::new();
        sort_values(document, path, &mut |value| {
            found.push(match value {
                RawBsonRef::Int32(number) => number.to_string(),
                value => format!("{:?}", value.element_type()),
            });
        });
        found
    }

    #[test]
    fn filters_see_what_the_server_sees() {
        let document = rawdoc! {
            "a": { "b": 1 },
            "list": [1, [2], { "b": 3 }],
            "docs": [{ "b": 1 }, {}, 5, { "b": [7, 8] }],
            "empty": [],
            "0": 9,
        };
        for (path, expected) in [
            ("a.b", vec!["1"]),
            ("a.c", vec!["missing"]),
            ("a.b.c", vec!["missing"]),
            ("none", vec!["missing"]),
            ("list", vec!["1", "Array", "EmbeddedDocument", "whole"]),
            ("list.b", vec!["3"]),
            ("list.0", vec!["missing", "1"]),
            ("list.1.0", vec!["2", "missing"]),
            ("list.2.b", vec!["missing", "3"]),
            ("docs.b", vec!["1", "missing", "7", "8", "whole"]),
            ("empty", vec!["whole"]),
            ("empty.b", vec![]),
            ("0", vec!["9"]),
        ] {
            let mut found = found(&document, path);
            let mut expected = expected;
            found.sort();
            expected.sort();
            assert_eq!(found, expected, "{path}");
        }
    }

    #[test]
    fn sorting_takes_null_for_nothing() {
        let document = rawdoc! {
            "list": [3, 1],
            "docs": [{ "b": 1 }, {}, 5],
            "empty": [],
            "n": 4,
        };
        for (path, expected) in [
            ("list", vec!["3", "1"]),
            ("list.1", vec!["1"]),
            ("docs.b", vec!["1", "Null", "Null"]),
            ("empty", vec!["Undefined"]),
            ("empty.b", vec!["Null"]),
            ("n", vec!["4"]),
            ("n.b", vec!["Null"]),
            ("none", vec!["Null"]),
        ] {
            assert_eq!(sorted_by(&document, path), expected, "{path}");
        }
    }
}
