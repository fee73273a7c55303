//! Queries in the server's language.

use std::ops::Bound;

use bson::raw::{CStr, CString, cstr};
use bson::{Bson, RawArrayBuf, RawBson, RawDocumentBuf, rawdoc};

use super::store::{Store, count as number_of};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::query::{Filter, Order, Page, Query};

/// The longest path whose arrays a two-sided range looks into one by one; the filter doubles with each
/// part. Longer paths compare each bound with any element, as MongoDB does by itself.
const MAX_RANGE_PARTS: usize = 6;

pub(super) async fn run(
    store: &Store,
    collection: &str,
    query: &Query,
) -> Result<Vec<RawDocumentBuf>> {
    if query.limit == Some(0) {
        return Ok(Vec::new());
    }
    let mut command = rawdoc! {
        "find": collection,
        "filter": filter(query)?,
        "sort": sort(query)?,
        "allowDiskUse": true,
        "maxTimeMS": i64::try_from(store.query_timeout.as_millis()).unwrap_or(i64::MAX),
        "readConcern": store.read_concern(),
    };
    if let Some(limit) = query.limit {
        command.append(cstr!("limit"), i64::try_from(limit).unwrap_or(i64::MAX));
    }
    if let Page::Skip(skip) = query.page {
        command.append(cstr!("skip"), i64::try_from(skip).unwrap_or(i64::MAX));
    }
    store
        .find(command)
        .await
        .map_err(|failure| failure.into_error(format!("query on {collection}")))
}

/// Counts what the filters match, exactly: the server's `count` without a filter would answer from
/// statistics that are wrong after a crash.
pub(super) async fn count(store: &Store, collection: &str, query: &Query) -> Result<u64> {
    let mut stages = RawArrayBuf::new();
    stages.push(rawdoc! { "$match": filter(&query.filters_only())? });
    stages.push(rawdoc! { "$count": "n" });
    let mut command = rawdoc! {
        "aggregate": collection,
        "pipeline": stages,
        "cursor": {},
        "maxTimeMS": i64::try_from(store.query_timeout.as_millis()).unwrap_or(i64::MAX),
        "readConcern": store.read_concern(),
    };
    if query.filters.is_empty() {
        // The ids alone are a fraction of the documents.
        command.append(cstr!("hint"), rawdoc! { "_id": 1 });
    }
    let found = store
        .find(command)
        .await
        .map_err(|failure| failure.into_error(format!("counting {collection}")))?;
    // No match, no answer.
    let number = found.first().map_or(0, |answer| number_of(answer, "n"));
    Ok(u64::try_from(number).unwrap_or_default())
}

fn sort(query: &Query) -> Result<RawDocumentBuf> {
    let mut sort = RawDocumentBuf::new();
    if let Some((path, order)) = &query.sort {
        let direction = match order {
            Order::Ascending => 1,
            Order::Descending => -1,
        };
        sort.append(&name(path)?, direction);
        if path == "_id" {
            return Ok(sort);
        }
    }
    sort.append(cstr!("_id"), 1);
    Ok(sort)
}

fn filter(query: &Query) -> Result<RawDocumentBuf> {
    let mut all = RawArrayBuf::new();
    for filter in &query.filters {
        if let Some(condition) = condition(filter)? {
            all.push(condition);
        }
    }
    if let Page::After(id) = &query.page {
        // A comparison in an expression, unlike one in a filter, crosses types, in the order of the
        // index: integers, strings, UUIDs, ObjectIds. It is served by the index.
        all.push(rawdoc! { "$expr": { "$gt": ["$_id", { "$literal": id.to_raw() }] } });
    }
    if all.is_empty() {
        return Ok(RawDocumentBuf::new());
    }
    Ok(rawdoc! { "$and": all })
}

fn condition(filter: &Filter) -> Result<Option<RawDocumentBuf>> {
    Ok(Some(match filter {
        Filter::Equal(path, value) => at(path, rawdoc! { "$eq": raw(value)? })?,
        Filter::In(path, values) => any_of(path, values)?,
        Filter::Range(path, low, high) => {
            let mut range = RawDocumentBuf::new();
            append_bound(&mut range, low, cstr!("$gte"), cstr!("$gt"))?;
            append_bound(&mut range, high, cstr!("$lte"), cstr!("$lt"))?;
            let parts: Vec<_> = path.split('.').collect();
            match (low, high) {
                (Bound::Unbounded, Bound::Unbounded) => return Ok(None),
                (Bound::Unbounded, _) | (_, Bound::Unbounded) => at(path, range)?,
                _ if parts.len() > MAX_RANGE_PARTS => at(path, range)?,
                _ => within(&parts, &range)?,
            }
        }
        Filter::Contains(path, text) => at(path, rawdoc! { "$regex": literal_pattern(text) })?,
    }))
}

/// `$in` takes a regular expression for a pattern; `$eq` takes it for the value it is.
fn any_of(path: &str, values: &[Bson]) -> Result<RawDocumentBuf> {
    let mut plain = RawArrayBuf::new();
    let mut choices = RawArrayBuf::new();
    for value in values {
        match value {
            Bson::RegularExpression(_) => choices.push(at(path, rawdoc! { "$eq": raw(value)? })?),
            _ => plain.push(raw(value)?),
        }
    }
    let plain = at(path, rawdoc! { "$in": plain })?;
    if choices.is_empty() {
        return Ok(plain);
    }
    choices.push(plain);
    Ok(rawdoc! { "$or": choices })
}

/// A two-sided range that one and the same value must meet. A filter `{ $gte, $lte }` on an array is
/// content if one element meets the one bound and another the other, so arrays on the way are entered
/// with `$elemMatch`.
fn within(parts: &[&str], range: &RawDocumentBuf) -> Result<RawDocumentBuf> {
    let mut no_array = RawArrayBuf::new();
    let mut choices = RawArrayBuf::new();
    for length in 1..=parts.len() {
        let (before, rest) = parts.split_at(length);
        let path = before.join(".");
        no_array.push(at(&path, rawdoc! { "$type": "array" })?);
        let element = match rest {
            [] => range.clone(),
            rest => within(rest, range)?,
        };
        choices.push(at(&path, rawdoc! { "$elemMatch": element })?);
    }
    let mut plain = at(&parts.join("."), range.clone())?;
    plain.append(cstr!("$nor"), no_array);
    choices.push(plain);
    Ok(rawdoc! { "$or": choices })
}

fn append_bound(
    range: &mut RawDocumentBuf,
    bound: &Bound<Bson>,
    inclusive: &CStr,
    exclusive: &CStr,
) -> Result<()> {
    match bound {
        Bound::Included(value) => range.append(inclusive, raw(value)?),
        Bound::Excluded(value) => range.append(exclusive, raw(value)?),
        Bound::Unbounded => {}
    }
    Ok(())
}

/// A pattern that matches exactly this text: outside letters, digits and non-ASCII characters, a
/// backslash makes any character literal (PCRE manual, "Backslash").
fn literal_pattern(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match character {
            '\0' => pattern.push_str("\\x00"),
            c if c.is_ascii() && !c.is_ascii_alphanumeric() => {
                pattern.push('\\');
                pattern.push(c);
            }
            c => pattern.push(c),
        }
    }
    pattern
}

fn at(path: &str, condition: RawDocumentBuf) -> Result<RawDocumentBuf> {
    let mut filter = RawDocumentBuf::new();
    filter.append(&name(path)?, condition);
    Ok(filter)
}

fn name(path: &str) -> Result<CString> {
    CString::try_from(path).map_err(|e| {
        Error::new(ErrorKind::InvalidConfig, format!("{path:?} is no path")).with_source(e)
    })
}

fn raw(value: &Bson) -> Result<RawBson> {
    RawBson::try_from(value.clone()).map_err(|e| {
        Error::new(
            ErrorKind::Serialization,
            "a value of the query has no BSON form",
        )
        .with_source(e)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_taken_literally() {
        assert_eq!(literal_pattern("a.b*é_"), "a\\.b\\*é\\_");
        assert_eq!(literal_pattern("\0\\"), "\\x00\\\\");
    }

    #[test]
    fn the_order_ends_with_the_id() {
        let query = Query::new().sort("age", Order::Descending);
        assert_eq!(sort(&query).unwrap(), rawdoc! { "age": -1, "_id": 1 });
        let query = Query::new().sort("_id", Order::Descending);
        assert_eq!(sort(&query).unwrap(), rawdoc! { "_id": -1 });
    }
}
