//! Comparison that takes documents with the same fields in another order for equal.

use std::borrow::Cow;

use bson::RawDocument;

use crate::document::raw::{Field, RawValue, Writer, deeper, elements, fields, match_fields};
use crate::document::{Path, PathSegment};
use crate::error::Result;

/// The path of the first value in which two documents differ, whatever the order of their keys;
/// the top-level keys in `skip` are not compared.
///
/// # Errors
/// `TooLarge` beyond 160 levels, `Corrupt` for malformed BSON.
pub(crate) fn first_difference(
    a: &RawDocument,
    b: &RawDocument,
    skip: &[&str],
) -> Result<Option<Path>> {
    let mut path = Vec::new();
    let (a, b) = (RawValue::document(a), RawValue::document(b));
    let differs = documents(a, b, skip, 1, &mut path)?;
    path.reverse();
    Ok(differs.then(|| path.into()))
}

/// Whether two documents are the same, whatever the order of keys and of the elements of arrays; the
/// top-level keys in `skip` are not compared.
///
/// Types like `HashSet` write the same value in another order each time.
///
/// # Errors
/// As for [`first_difference`].
pub(crate) fn same_as_sets(a: &RawDocument, b: &RawDocument, skip: &[&str]) -> Result<bool> {
    let forms = [a, b].map(|document| {
        let mut list = fields(RawValue::document(document))?;
        list.retain(|field| !skip.contains(&field.key));
        list.sort_by_key(|field| field.key);
        list.into_iter()
            .map(|field| Ok((field.key, set_form(field.value, 1)?)))
            .collect::<Result<Vec<_>>>()
    });
    let [a, b] = forms;
    Ok(a? == b?)
}

/// Type and bytes of a value with the keys of documents and the elements of arrays sorted.
fn set_form(value: RawValue<'_>, depth: usize) -> Result<(u8, Vec<u8>)> {
    let kind = value.kind as u8;
    if !value.is_document() && !value.is_array() {
        return Ok((kind, value.bytes.to_vec()));
    }
    let depth = deeper(depth)?;
    let mut parts = Vec::new();
    for field in fields(value)? {
        // An element's key is its place, which says nothing here.
        let key = if value.is_array() { "" } else { field.key };
        parts.push((key, set_form(field.value, depth)?));
    }
    parts.sort();
    let mut bytes = Vec::with_capacity(value.bytes.len());
    for (key, (kind, form)) in parts {
        bytes.push(kind);
        bytes.extend_from_slice(key.as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(&form.len().to_le_bytes());
        bytes.extend_from_slice(&form);
    }
    Ok((kind, bytes))
}

pub(super) fn is_equal(a: RawValue<'_>, b: RawValue<'_>, depth: usize) -> Result<bool> {
    Ok(!values(a, b, depth, &mut Vec::new())?)
}

/// Whether two values differ; then `path` is where, innermost segment first.
fn values(
    a: RawValue<'_>,
    b: RawValue<'_>,
    depth: usize,
    path: &mut Vec<PathSegment>,
) -> Result<bool> {
    if a == b {
        return Ok(false);
    }
    if a.is_document() && b.is_document() {
        return documents(a, b, &[], deeper(depth)?, path);
    }
    if !a.is_array() || !b.is_array() {
        return Ok(true);
    }
    let (Some(a), Some(b)) = (elements(a)?, elements(b)?) else {
        return Ok(true);
    };
    let depth = deeper(depth)?;
    for (index, (a, b)) in a.iter().zip(&b).enumerate() {
        if values(*a, *b, depth, path)? {
            path.push(index.into());
            return Ok(true);
        }
    }
    Ok(a.len() != b.len())
}

fn documents(
    a: RawValue<'_>,
    b: RawValue<'_>,
    skip: &[&str],
    depth: usize,
    path: &mut Vec<PathSegment>,
) -> Result<bool> {
    let (mut a, mut b) = (fields(a)?, fields(b)?);
    a.retain(|field| !skip.contains(&field.key));
    b.retain(|field| !skip.contains(&field.key));
    let Some(matches) = match_fields(&a, &b) else {
        return Ok(true);
    };
    let mut is_missing = vec![true; a.len()];
    for (field, position) in b.iter().zip(&matches) {
        let is_different = match position {
            Some(position) => {
                is_missing[*position] = false;
                values(a[*position].value, field.value, depth, path)?
            }
            None => true,
        };
        if is_different {
            path.push(field.key.into());
            return Ok(true);
        }
    }
    let missing = a.iter().zip(is_missing).find(|(_, missing)| *missing);
    if let Some((field, _)) = missing {
        path.push(field.key.into());
    }
    Ok(missing.is_some())
}

/// Whether every path of `part` exists in `whole` with an equal value. Arrays must have the same
/// length.
pub(super) fn contains(whole: RawValue<'_>, part: RawValue<'_>, depth: usize) -> Result<bool> {
    if whole == part {
        return Ok(true);
    }
    if whole.is_document() && part.is_document() {
        let depth = deeper(depth)?;
        let (whole, part) = (fields(whole)?, fields(part)?);
        let Some(matches) = match_fields(&whole, &part) else {
            return Ok(false);
        };
        for (field, position) in part.iter().zip(&matches) {
            let Some(position) = position else {
                return Ok(false);
            };
            if !contains(whole[*position].value, field.value, depth)? {
                return Ok(false);
            }
        }
        return Ok(true);
    }
    if !whole.is_array() || !part.is_array() {
        return Ok(false);
    }
    let (Some(whole), Some(part)) = (elements(whole)?, elements(part)?) else {
        return Ok(false);
    };
    if whole.len() != part.len() {
        return Ok(false);
    }
    let depth = deeper(depth)?;
    for (whole, part) in whole.iter().zip(&part) {
        if !contains(*whole, *part, depth)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Values with the keys of their documents sorted, which are the same for [equal](is_equal) values.
pub(super) fn normal_forms<'a>(
    list: &[RawValue<'a>],
    depth: usize,
) -> Result<Vec<(u8, Cow<'a, [u8]>)>> {
    let forms = list.iter().map(|value| {
        if !value.is_document() && !value.is_array() {
            return Ok((value.kind as u8, Cow::Borrowed(value.bytes)));
        }
        let mut writer = Writer::with_capacity(value.bytes.len());
        write_normal(*value, depth, &mut writer)?;
        Ok((value.kind as u8, Cow::Owned(writer.into_bytes())))
    });
    forms.collect()
}

fn write_normal(value: RawValue<'_>, depth: usize, writer: &mut Writer) -> Result<()> {
    let depth = deeper(depth)?;
    let start = writer.open();
    let mut list = fields(value)?;
    if value.is_document() {
        // Stable: fields of one key, if there are several, keep their order.
        list.sort_by_key(|field| field.key);
    }
    for Field { key, value } in list {
        writer.key(value.kind, key.as_bytes());
        if value.is_document() || value.is_array() {
            write_normal(value, depth, writer)?;
        } else {
            writer.value(value.bytes);
        }
    }
    writer.close(start)
}
