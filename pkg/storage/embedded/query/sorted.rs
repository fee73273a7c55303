//! Reading in the order of an index on the sort path, stopping when enough was found.

use std::collections::HashSet;

use super::super::index::{Entry, StoredIndex, WHOLE_ARRAY};
use super::super::keys::after_prefix;
use super::plan::Span;
use super::top::Top;
use super::{Part, Source};
use crate::error::Result;
use crate::storage::query::Order;

/// Fills `part` with the matches in order of the values at `path`.
///
/// Entries with one first component are a group. The order of the groups is that of the values; within
/// a group the documents are in order of the id, except where their values only share a component or
/// further paths come before the id: then the group is sorted. A document counts where it is met first.
pub(super) fn walk(
    source: &Source,
    index: &StoredIndex,
    path: &str,
    order: Order,
    part: &mut Part,
) -> Result<()> {
    let prefix = index.prefix();
    let end = after_prefix(&prefix);
    let mut seen = HashSet::new();
    let mut place = match order {
        Order::Ascending => Some(prefix.clone()),
        Order::Descending => end.clone(),
    };
    while !part.is_full()
        && let Some(from) = place.take()
    {
        let mut next = None;
        let mut note = |entry: &Entry<'_>| {
            next = Some(entry.group.to_vec());
            false
        };
        match order {
            Order::Ascending => source.each_entry(&(from, end.clone()), &mut note)?,
            Order::Descending => source.last_entry(&(prefix.clone(), Some(from)), &mut note)?,
        }
        let Some(group) = next else {
            break;
        };
        let after = after_prefix(&group);
        if group.get(prefix.len()) != Some(&WHOLE_ARRAY) {
            let span = (group.clone(), after.clone());
            let is_exact = index.paths.len() == 1 && !has_inexact(source, &span)?;
            let mut unseen = |id: &[u8]| seen.insert(id.to_vec());
            if is_exact {
                copy_group(source, &span, &mut unseen, part)?;
            } else {
                sort_group(source, (path, order), &span, &mut unseen, part)?;
            }
        }
        place = match order {
            Order::Ascending => after,
            Order::Descending => Some(group),
        };
    }
    Ok(())
}

/// Whether some values of a group only share its component. In an index on one path that byte follows
/// the component.
fn has_inexact(source: &Source, (group, end): &Span) -> Result<bool> {
    let inexact = [group.as_slice(), &[1]].concat();
    let mut found = false;
    source.each_entry(&(inexact, end.clone()), &mut |_| {
        found = true;
        false
    })?;
    Ok(found)
}

/// Takes a group that is in order already.
fn copy_group(
    source: &Source,
    span: &Span,
    unseen: &mut dyn FnMut(&[u8]) -> bool,
    part: &mut Part,
) -> Result<()> {
    let mut result = Ok(());
    source.each_entry(span, &mut |entry| {
        if unseen(entry.id) {
            result = source
                .with_document(entry.id, &mut |_, document| {
                    part.add(document.to_owned());
                    true
                })
                .map(drop);
        }
        result.is_ok() && !part.is_full()
    })?;
    result
}

/// Sorts a group.
fn sort_group(
    source: &Source,
    (path, order): (&str, Order),
    span: &Span,
    unseen: &mut dyn FnMut(&[u8]) -> bool,
    part: &mut Part,
) -> Result<()> {
    let mut top = Top::new(path, order, part.room());
    let mut result = Ok(());
    source.each_entry(span, &mut |entry| {
        if unseen(entry.id) {
            result = source
                .with_document(entry.id, &mut |id, document| {
                    top.add(id, document);
                    true
                })
                .map(drop);
        }
        result.is_ok()
    })?;
    result?;
    for document in top.into_documents() {
        part.add(document);
    }
    Ok(())
}
