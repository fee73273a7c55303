//! Which documents a query has to look at.

use std::ops::Bound;

use bson::{RawBson, RawBsonRef};

use super::super::catalog::Collection;
use super::super::index::{StoredIndex, WHOLE_ARRAY, append_component};
use super::super::keys::{self, after_prefix};
use super::super::paths::has_places;
use super::filter::{Filter, Test};
use crate::document::DocumentId;
use crate::storage::query::{Page, Query};

/// A part of a table: from the first key up to, but not including, the second; to the end if there is
/// none.
pub(super) type Span = (Vec<u8>, Option<Vec<u8>>);

/// The way to the documents. Every way finds all matches, and is followed by a look at each.
#[derive(Debug)]
pub(super) enum Access<'c> {
    /// These parts of the documents table, in order.
    Documents(Vec<Span>),
    /// The documents in these parts of an index.
    Index(Vec<Span>),
    /// All documents in the order of an index on the sort path.
    Sorted(&'c StoredIndex),
}

/// Chooses the way that promises the fewest documents: ids, then equality on an index with as many paths
/// as possible, then ranges, then the sort order with a limit, then all.
pub(super) fn choose<'c>(
    collection: &'c Collection,
    query: &Query,
    filters: &[Filter],
) -> Access<'c> {
    let prefix = keys::collection_prefix(&collection.name);
    if let Some(spans) = filters.iter().find_map(|filter| id_points(filter, &prefix)) {
        return Access::Documents(spans);
    }
    let by_index = collection
        .indexes
        .iter()
        .filter_map(|index| index_spans(index, filters))
        .max_by_key(|found| found.rank);
    if let Some(found) = by_index {
        return Access::Index(found.spans);
    }
    if let (Some((path, _)), Some(_)) = (&query.sort, query.limit) {
        // An index holds a little more than the sort values where a path names places in arrays.
        let sorted = collection
            .indexes
            .iter()
            .filter(|index| index.paths.first() == Some(path) && !has_places(path))
            .min_by_key(|index| index.paths.len());
        if let Some(index) = sorted {
            return Access::Sorted(index);
        }
    }
    let begin = match &query.page {
        Page::After(id) => {
            let mut begin = prefix.clone();
            keys::append_id(id, &mut begin);
            // The next key there can be.
            begin.push(0);
            begin
        }
        _ => prefix.clone(),
    };
    Access::Documents(vec![(begin, after_prefix(&prefix))])
}

/// The rows of the ids that a filter on `_id` names.
fn id_points(filter: &Filter, prefix: &[u8]) -> Option<Vec<Span>> {
    let Test::In(values) = &filter.test else {
        return None;
    };
    if filter.path != "_id" {
        return None;
    }
    // A value that is no id is the id of no document.
    let ids = values.iter().map(RawBson::as_raw_bson_ref);
    let mut rows: Vec<_> = ids
        .filter_map(|value| DocumentId::from_bson(value).ok())
        .map(|id| {
            let mut row = prefix.to_vec();
            keys::append_id(&id, &mut row);
            row
        })
        .collect();
    rows.sort();
    rows.dedup();
    let span = |row: Vec<u8>| {
        let mut end = row.clone();
        end.push(0);
        (row, Some(end))
    };
    Some(rows.into_iter().map(span).collect())
}

struct Found {
    spans: Vec<Span>,
    /// How good it is: equalities, unique ones first; then ranges.
    rank: (usize, bool, usize),
}

fn index_spans(index: &StoredIndex, filters: &[Filter]) -> Option<Found> {
    let mut begins = vec![index.prefix()];
    let mut equalities = 0;
    for path in &index.paths {
        let Some(components) = tests_on(filters, path).find_map(points) else {
            break;
        };
        // Many values on many paths would be too many parts to look at.
        if equalities > 0 && begins.len().saturating_mul(components.len()) > 1_000 {
            break;
        }
        equalities += 1;
        begins = begins
            .iter()
            .flat_map(|begin| {
                components
                    .iter()
                    .map(|component| [begin.as_slice(), component].concat())
            })
            .collect();
    }
    let next = index.paths.get(equalities);
    let ranges = next.and_then(|path| tests_on(filters, path).find_map(range));
    let ranged = usize::from(ranges.is_some());
    if equalities == 0 && ranged == 0 {
        return None;
    }
    let spans = begins.iter().flat_map(|begin| match &ranges {
        Some(ranges) => ranges
            .iter()
            .map(|(low, high)| within(begin, low, high))
            .collect(),
        None => vec![(begin.clone(), after_prefix(begin))],
    });
    let mut spans: Vec<_> = spans.collect();
    spans.sort();
    Some(Found {
        spans,
        rank: (
            equalities,
            index.unique && equalities == index.paths.len(),
            ranged,
        ),
    })
}

fn tests_on<'f>(filters: &'f [Filter], path: &'f str) -> impl Iterator<Item = &'f Test> {
    let on_path = filters.iter().filter(move |filter| filter.path == path);
    on_path.map(|filter| &filter.test)
}

/// The part of a table below a common beginning from one component to another, both included.
fn within(begin: &[u8], low: &[u8], high: &[u8]) -> Span {
    let end = after_prefix(&[begin, high].concat());
    ([begin, low].concat(), end)
}

/// The components that an equality asks for.
fn points(test: &Test) -> Option<Vec<Vec<u8>>> {
    let Test::In(values) = test else {
        return None;
    };
    let mut components = Vec::new();
    for value in values {
        let value = value.as_raw_bson_ref();
        components.push(component(value));
        if let RawBsonRef::Array(_) = value {
            components.push(vec![WHOLE_ARRAY]);
        }
    }
    components.sort();
    components.dedup();
    Some(components)
}

/// The components between two bounds, both included: a look at each document follows anyway. The
/// first byte of a component is its type, which a range does not leave.
fn range(test: &Test) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let Test::Range(low, high) = test else {
        return None;
    };
    let value = |bound| match bound {
        Bound::Included(value) | Bound::Excluded(value) => Some(value),
        Bound::Unbounded => None,
    };
    let bounds = (
        value(low.as_ref().map(RawBson::as_raw_bson_ref)),
        value(high.as_ref().map(RawBson::as_raw_bson_ref)),
    );
    let is_array = |bound| matches!(bound, Some(RawBsonRef::Array(_)));
    let (low, high) = match (bounds.0.map(component), bounds.1.map(component)) {
        (None, None) => return None,
        (Some(low), None) => {
            let class = low[..1].to_vec();
            (low, class)
        }
        (None, Some(high)) => (high[..1].to_vec(), high),
        (Some(low), Some(high)) => (low, high),
    };
    let mut spans = vec![(low, high)];
    if is_array(bounds.0) || is_array(bounds.1) {
        spans.push((vec![WHOLE_ARRAY], vec![WHOLE_ARRAY]));
    }
    Some(spans)
}

fn component(value: RawBsonRef<'_>) -> Vec<u8> {
    let mut key = Vec::new();
    append_component(value, &mut key);
    key
}
