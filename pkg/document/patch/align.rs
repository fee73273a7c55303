use std::collections::HashMap;
use std::hash::Hash;
use std::ops::Range;

use similar::{Algorithm, DiffOp, capture_diff_slices};

use crate::document::raw::Field;

/// The largest product of two array lengths, after what they share at both ends, that is matched
/// by value: bounds the time to some milliseconds.
const MAX_CELLS: usize = 1_000_000;

/// A run of `old` elements that became a run of `new` ones, between elements that are the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gap {
    pub(crate) old: Range<usize>,
    pub(crate) new: Range<usize>,
}

/// Matches the elements of two arrays by value and returns what lies between the matches, in
/// order. Arrays that are too long for this are one gap.
pub(crate) fn align<T: Eq + Hash>(old: &[T], new: &[T]) -> Vec<Gap> {
    let prefix = old.iter().zip(new).take_while(|(o, n)| o == n).count();
    let (old_rest, new_rest) = (&old[prefix..], &new[prefix..]);
    let ends = old_rest.iter().rev().zip(new_rest.iter().rev());
    let suffix = ends.take_while(|(o, n)| o == n).count();
    let old_middle = &old_rest[..old_rest.len() - suffix];
    let new_middle = &new_rest[..new_rest.len() - suffix];

    let gap = |old: Range<usize>, new: Range<usize>| Gap {
        old: old.start + prefix..old.end + prefix,
        new: new.start + prefix..new.end + prefix,
    };
    let cells = old_middle.len().saturating_mul(new_middle.len());
    if old_middle.is_empty() && new_middle.is_empty() {
        return Vec::new();
    }
    if cells <= 1 || cells > MAX_CELLS {
        return vec![gap(0..old_middle.len(), 0..new_middle.len())];
    }
    let (old_ids, new_ids) = intern(old_middle, new_middle);
    let mut gaps: Vec<Gap> = Vec::new();
    for op in capture_diff_slices(Algorithm::Myers, &old_ids, &new_ids) {
        if matches!(op, DiffOp::Equal { .. }) {
            continue;
        }
        let found = gap(op.old_range(), op.new_range());
        match gaps.last_mut() {
            // A deletion and an insertion side by side are one gap.
            Some(last) if last.old.end == found.old.start && last.new.end == found.new.start => {
                last.old.end = found.old.end;
                last.new.end = found.new.end;
            }
            _ => gaps.push(found),
        }
    }
    gaps
}

/// Numbers for the elements, equal for equal elements, so that matching compares integers.
fn intern<'t, T: Eq + Hash>(old: &'t [T], new: &'t [T]) -> (Vec<usize>, Vec<usize>) {
    let mut numbers = HashMap::new();
    let mut number = |element: &'t T| {
        let next = numbers.len();
        *numbers.entry(element).or_insert(next)
    };
    let old = old.iter().map(&mut number).collect();
    let new = new.iter().map(&mut number).collect();
    (old, new)
}

/// Whether two documents in an array are taken for two states of one thing: some field is equal,
/// and so is the identity, if both have one.
///
/// `matches` holds for each field of `new` the position of its namesake in `old`; `is_equal`
/// compares two such fields.
pub(crate) fn is_pairing_allowed(
    old: &[Field<'_>],
    new: &[Field<'_>],
    matches: &[Option<usize>],
    mut is_equal: impl FnMut(&Field<'_>, &Field<'_>) -> bool,
) -> bool {
    let mut has_equal = false;
    for (field, old_position) in new.iter().zip(matches) {
        let Some(old_field) = old_position.and_then(|position| old.get(position)) else {
            continue;
        };
        let is_identity = is_identity(field.key);
        if has_equal && !is_identity {
            continue;
        }
        if is_equal(old_field, field) {
            has_equal = true;
        } else if is_identity {
            return false;
        }
    }
    has_equal
}

/// Whether a field of this name identifies the element of an array.
pub(crate) fn is_identity(key: &str) -> bool {
    matches!(key, "_id" | "id")
}
