use super::{Field, Fields, RawValue, value_len};
use crate::error::Result;
use bson::spec::ElementType;

/// Changed fields up to which [`lockstep`] is worth its check of keys.
const MAX_CHANGES: usize = 16;

/// What two documents that agree on their keys have different.
#[derive(Debug)]
pub(crate) struct Lockstep<'a, 'b> {
    /// Fields of the same key with different values, in order.
    pub(crate) changed: Vec<(Field<'a>, Field<'b>)>,
    /// Fields that follow in the second document after the first one ended.
    pub(crate) appended: Vec<Field<'b>>,
    /// Whether any field is the same.
    pub(crate) has_equal: bool,
}

/// Compares two documents of which the second has the keys of the first, in their order, and maybe
/// more behind them: the usual result of an update, at the cost of little more than a comparison of
/// bytes. `None` for other documents, and where the keys do not name the changed fields.
pub(crate) fn lockstep<'a, 'b>(
    a: RawValue<'a>,
    b: RawValue<'b>,
) -> Result<Option<Lockstep<'a, 'b>>> {
    let (mut left, mut right) = (Fields::of(a)?, Fields::of(b)?);
    let mut keys: Vec<&[u8]> = Vec::with_capacity(a.bytes.len() / 24 + 1);
    let (mut changed, mut appended) = (Vec::new(), Vec::new());
    let mut has_equal = false;
    while let Some((key, len)) = element(left.rest) {
        keys.push(key);
        if let (Some((same, rest)), Some((element, left_rest))) = (
            right.rest.split_at_checked(len),
            left.rest.split_at_checked(len),
        ) && same == element
        {
            has_equal = true;
            (left.rest, right.rest) = (left_rest, rest);
            continue;
        }
        let (Some(old), Some(new)) = (left.next().transpose()?, right.next().transpose()?) else {
            return Ok(None);
        };
        if old.key != new.key || changed.len() == MAX_CHANGES {
            return Ok(None);
        }
        changed.push((old, new));
    }
    // The walk above stops where it cannot read on, too.
    if left.next().transpose()?.is_some() {
        return Ok(None);
    }
    for field in right {
        if appended.len() == MAX_CHANGES {
            return Ok(None);
        }
        appended.push(field?);
    }
    let count = |key: &str| {
        keys.iter()
            .filter(|known| **known == key.as_bytes())
            .count()
    };
    let are_named = changed.iter().all(|(field, _)| count(field.key) == 1)
        && appended.iter().enumerate().all(|(position, field)| {
            count(field.key) == 0 && appended[..position].iter().all(|f| f.key != field.key)
        });
    Ok(are_named.then_some(Lockstep {
        changed,
        appended,
        has_equal,
    }))
}

/// The key of the element that starts here, and how many bytes the element has.
fn element(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let (tag, tail) = bytes.split_first()?;
    let kind = ElementType::from(*tag)?;
    let (key, value) = super::split_cstring(tail)?;
    Some((key, key.len() + 2 + value_len(kind, value)?))
}
