//! What a query must return, worked out the slow and simple way.
//!
//! The rules are MongoDB's: manual pages "Query an Array", "Query for Null or Missing Fields" and
//! "Comparison/Sort Order".

use std::cmp::Ordering;
use std::ops::Bound;

use bson::{Bson, Document};

use crate::document::DocumentId;
use crate::storage::{Filter, Order, Page, Query};

/// The ids of the matching documents in the query's order.
pub(super) fn answer(documents: &[Document], query: &Query) -> Vec<Bson> {
    let mut found: Vec<&Document> = documents
        .iter()
        .filter(|document| query.filters.iter().all(|filter| matches(document, filter)))
        .collect();
    found.sort_by(|a, b| {
        let by_path = match &query.sort {
            Some((path, Order::Ascending)) => compare(&lowest(a, path), &lowest(b, path)),
            Some((path, Order::Descending)) => compare(&highest(b, path), &highest(a, path)),
            None => Ordering::Equal,
        };
        by_path.then_with(|| compare(id(a), id(b)))
    });
    let ids = found.into_iter().map(|document| id(document).clone());
    let mut ids: Vec<Bson> = match &query.page {
        Page::First => ids.collect(),
        Page::After(after) => ids.filter(|id| after_in_order(id, after)).collect(),
        Page::Skip(count) => ids.skip(*count as usize).collect(),
    };
    ids.truncate(query.limit.map_or(usize::MAX, |limit| limit as usize));
    ids
}

fn id(document: &Document) -> &Bson {
    document.get("_id").expect("stored documents have ids")
}

fn after_in_order(id: &Bson, after: &DocumentId) -> bool {
    compare(id, &Bson::from(after.clone())) == Ordering::Greater
}

fn matches(document: &Document, filter: &Filter) -> bool {
    let candidates = candidates(document, filter.path());
    match filter {
        Filter::Equal(_, wanted) => is_among(&candidates, wanted),
        Filter::In(_, wanted) => wanted.iter().any(|wanted| is_among(&candidates, wanted)),
        Filter::Range(_, low, high) => candidates.iter().any(|value| {
            // A missing field is null, which is between nulls.
            let value = value.as_ref().unwrap_or(&Bson::Null);
            let above = match low {
                Bound::Included(low) => same_type(value, low) && compare(value, low).is_ge(),
                Bound::Excluded(low) => same_type(value, low) && compare(value, low).is_gt(),
                Bound::Unbounded => true,
            };
            above
                && match high {
                    Bound::Included(high) => same_type(value, high) && compare(value, high).is_le(),
                    Bound::Excluded(high) => same_type(value, high) && compare(value, high).is_lt(),
                    Bound::Unbounded => true,
                }
        }),
        Filter::Contains(_, text) => candidates
            .iter()
            .flatten()
            .any(|value| value.as_str().is_some_and(|value| value.contains(text))),
    }
}

fn is_among(candidates: &[Option<Bson>], wanted: &Bson) -> bool {
    candidates.iter().any(|candidate| match candidate {
        Some(value) => compare(value, wanted).is_eq(),
        None => *wanted == Bson::Null,
    })
}

/// All values that a path can mean: the value, each element of an array there, and the values in the
/// documents of arrays on the way; `None` where the field is missing.
fn candidates(document: &Document, path: &str) -> Vec<Option<Bson>> {
    let parts: Vec<&str> = path.split('.').collect();
    let mut found = Vec::new();
    walk(&Bson::Document(document.clone()), &parts, &mut found);
    found
}

fn walk(value: &Bson, parts: &[&str], found: &mut Vec<Option<Bson>>) {
    let Some((first, rest)) = parts.split_first() else {
        if let Bson::Array(elements) = value {
            found.extend(elements.iter().cloned().map(Some));
        }
        found.push(Some(value.clone()));
        return;
    };
    match value {
        Bson::Document(document) => match document.get(first) {
            Some(value) => walk(value, rest, found),
            None => found.push(None),
        },
        Bson::Array(elements) => {
            let index = first.parse::<usize>().ok();
            if let Some(element) = index.and_then(|index| elements.get(index)) {
                walk(element, rest, found);
            }
            for element in elements {
                if let Bson::Document(_) = element {
                    walk(element, parts, found);
                }
            }
        }
        _ => found.push(None),
    }
}

/// What a document sorts by: of an array the smallest element, of a missing field null.
fn lowest(document: &Document, path: &str) -> Bson {
    keys(document, path)
        .into_iter()
        .min_by(compare)
        .unwrap_or(Bson::Null)
}

fn highest(document: &Document, path: &str) -> Bson {
    keys(document, path)
        .into_iter()
        .max_by(compare)
        .unwrap_or(Bson::Null)
}

fn keys(document: &Document, path: &str) -> Vec<Bson> {
    match document.get(path) {
        // An empty array sorts below null, as undefined.
        Some(Bson::Array(elements)) if elements.is_empty() => vec![Bson::Undefined],
        Some(Bson::Array(elements)) => elements.clone(),
        Some(value) => vec![value.clone()],
        None => vec![Bson::Null],
    }
}

fn rank(value: &Bson) -> u8 {
    match value {
        Bson::Undefined => 1,
        Bson::Null => 2,
        Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_) => 3,
        Bson::String(_) => 4,
        Bson::Document(_) => 5,
        Bson::Array(_) => 6,
        Bson::Binary(_) => 7,
        Bson::ObjectId(_) => 8,
        Bson::Boolean(_) => 9,
        Bson::DateTime(_) => 10,
        other => panic!("the reference has no order for {other:?}"),
    }
}

fn same_type(a: &Bson, b: &Bson) -> bool {
    rank(a) == rank(b)
}

fn number(value: &Bson) -> Option<f64> {
    match value {
        Bson::Int32(number) => Some(f64::from(*number)),
        Bson::Int64(number) => Some(*number as f64),
        Bson::Double(number) => Some(*number),
        _ => None,
    }
}

/// BSON order, for the types and the small numbers of the cases.
fn compare(a: &Bson, b: &Bson) -> Ordering {
    let by_type = rank(a).cmp(&rank(b));
    by_type.then_with(|| match (a, b) {
        (Bson::String(a), Bson::String(b)) => a.as_bytes().cmp(b.as_bytes()),
        (Bson::ObjectId(a), Bson::ObjectId(b)) => a.cmp(b),
        (Bson::Boolean(a), Bson::Boolean(b)) => a.cmp(b),
        (Bson::DateTime(a), Bson::DateTime(b)) => a.cmp(b),
        (Bson::Binary(a), Bson::Binary(b)) => {
            let order = |binary: &bson::Binary| (binary.bytes.len(), u8::from(binary.subtype));
            order(a).cmp(&order(b)).then_with(|| a.bytes.cmp(&b.bytes))
        }
        (Bson::Array(a), Bson::Array(b)) => {
            let elements = a.iter().zip(b).map(|(a, b)| compare(a, b));
            let differing = elements.into_iter().find(|order| order.is_ne());
            differing.unwrap_or_else(|| a.len().cmp(&b.len()))
        }
        (Bson::Document(a), Bson::Document(b)) => {
            let fields = a.iter().zip(b).map(|((ka, va), (kb, vb))| {
                let by_type = rank(va).cmp(&rank(vb));
                by_type
                    .then_with(|| ka.cmp(kb))
                    .then_with(|| compare(va, vb))
            });
            let differing = fields.into_iter().find(|order| order.is_ne());
            differing.unwrap_or_else(|| a.len().cmp(&b.len()))
        }
        _ => match (number(a), number(b)) {
            (Some(a), Some(b)) => a.partial_cmp(&b).unwrap_or(Ordering::Equal),
            _ => Ordering::Equal,
        },
    })
}
