//! The three-way merge behind typed updates: the change that a closure made to a Rust value,
//! applied to the stored document, which may hold more than the type knows.

mod unordered;

use std::borrow::Cow;

use bson::spec::ElementType;
use bson::{RawDocument, RawDocumentBuf};

use super::patch::{Gap, align, is_pairing_allowed};
use super::raw::{
    Counter, Field, Finder, RawValue, Writer, corrupt, deeper, duplicate, elements, fields,
};
use crate::error::{Error, ErrorKind, Result};

use unordered::{contains, is_equal, normal_forms};
pub(crate) use unordered::{first_difference, same_as_sets};

/// What [`merge`] made.
#[derive(Debug, Clone)]
pub(crate) struct Merged {
    /// The stored document with the change applied.
    pub(crate) document: RawDocumentBuf,
    /// Whether everything in `before` was found in the stored document with the same value. If
    /// not, the type reads or writes something in another form, and only decoding `document` again
    /// shows whether it says what the closure meant.
    pub(crate) faithful: bool,
    /// Whether `document` differs from the stored one in any byte.
    pub(crate) changed: bool,
}

/// Applies the change from `before` to `after`, the forms of a Rust value before and after a
/// closure, to the `stored` document. The top-level keys in `skip` stay as they are stored.
///
/// - The order of keys in `before` and `after` means nothing; fields keep their place in `stored`,
///   new ones go to the end.
/// - What did not change keeps its stored bytes. Fields that only `stored` has stay.
/// - Documents merge key by key. A key that `before` has and `after` lacks is removed. A changed
///   value whose key is not stored, because the type defaulted it, is written whole.
/// - An array that reads back element by element keeps the stored elements that are still there,
///   matched by value, and merges those that changed in their place; others are replaced.
///
/// # Errors
/// `Serialization` if a typed document has a key twice, `TooLarge` beyond 160 levels, `Corrupt` for
/// malformed BSON.
pub(crate) fn merge(
    stored: &RawDocument,
    before: &RawDocument,
    after: &RawDocument,
    skip: &[&str],
) -> Result<Merged> {
    let mut merge = Merge { is_faithful: true };
    let merged = merge.documents(
        RawValue::document(stored),
        RawValue::document(before),
        RawValue::document(after),
        skip,
        1,
    )?;
    let document = match &merged {
        Some(value) => RawDocumentBuf::from_bytes(value.bytes.to_vec())
            .map_err(|e| corrupt("malformed merged document").with_source(e))?,
        None => stored.to_owned(),
    };
    let changed = document.as_bytes() != stored.as_bytes();
    Ok(Merged {
        document,
        faithful: merge.is_faithful,
        changed,
    })
}

/// A merged value; borrowed if it is the one of `after`.
struct Value<'a> {
    kind: ElementType,
    bytes: Cow<'a, [u8]>,
}

impl<'a> From<RawValue<'a>> for Value<'a> {
    fn from(value: RawValue<'a>) -> Self {
        Self {
            kind: value.kind,
            bytes: Cow::Borrowed(value.bytes),
        }
    }
}

impl Value<'_> {
    fn built(kind: ElementType, writer: Writer) -> Self {
        Self {
            kind,
            bytes: Cow::Owned(writer.into_bytes()),
        }
    }

    fn as_raw(&self) -> RawValue<'_> {
        RawValue {
            kind: self.kind,
            bytes: &self.bytes,
        }
    }
}

/// What becomes of a stored field.
enum Fate<'a> {
    Keep,
    Become(Value<'a>),
    Remove,
}

struct Merge {
    is_faithful: bool,
}

impl Merge {
    /// Merges one value that all three have; `None` keeps the stored one.
    fn values<'a>(
        &mut self,
        stored: RawValue<'_>,
        before: RawValue<'_>,
        after: RawValue<'a>,
        depth: usize,
    ) -> Result<Option<Value<'a>>> {
        if before != after {
            if stored.is_document() && before.is_document() && after.is_document() {
                return self.documents(stored, before, after, &[], deeper(depth)?);
            }
            if stored.is_array() && before.is_array() && after.is_array() {
                return self.arrays(stored, before, after, deeper(depth)?);
            }
        }
        self.require(stored, before, depth)?;
        if before == after || is_equal(before, after, depth)? {
            return Ok(None);
        }
        Ok(Some(after.into()))
    }

    fn documents<'a>(
        &mut self,
        stored: RawValue<'_>,
        before: RawValue<'_>,
        after: RawValue<'a>,
        skip: &[&str],
        depth: usize,
    ) -> Result<Option<Value<'a>>> {
        let stored_fields = fields(stored)?;
        let (before, after) = (unique_fields(before, skip)?, unique_fields(after, skip)?);
        let mut fates: Vec<Fate<'a>> = stored_fields.iter().map(|_| Fate::Keep).collect();
        let mut added: Vec<(&str, RawValue<'a>)> = Vec::new();
        let mut is_gone = vec![true; before.len()];
        let mut find_before = Finder::new(&before);
        let mut find_stored = Finder::new(&stored_fields);
        for field in &after {
            let previous = find_before.find(field.key);
            if let Some(position) = previous {
                is_gone[position] = false;
            }
            let previous = previous.map(|position| before[position].value);
            let place = find_stored.find(field.key);
            match (place, previous) {
                (Some(place), Some(previous)) => {
                    let stored = stored_fields[place].value;
                    if let Some(value) = self.values(stored, previous, field.value, depth)? {
                        fates[place] = Fate::Become(value);
                    }
                }
                (Some(place), None) => {
                    if !is_equal(stored_fields[place].value, field.value, depth)? {
                        fates[place] = Fate::Become(field.value.into());
                    }
                }
                (None, Some(previous)) => {
                    self.is_faithful = false;
                    if !is_equal(previous, field.value, depth)? {
                        added.push((field.key, field.value));
                    }
                }
                (None, None) => added.push((field.key, field.value)),
            }
        }
        for (field, _) in before.iter().zip(is_gone).filter(|(_, gone)| *gone) {
            match find_stored.find(field.key) {
                Some(place) => {
                    self.require(stored_fields[place].value, field.value, depth)?;
                    fates[place] = Fate::Remove;
                }
                None => self.is_faithful = false,
            }
        }
        if added.is_empty() && fates.iter().all(|fate| matches!(fate, Fate::Keep)) {
            return Ok(None);
        }
        let mut writer = Writer::with_capacity(stored.bytes.len() + 64);
        let start = writer.open();
        for (field, fate) in stored_fields.iter().zip(&fates) {
            match fate {
                Fate::Keep => writer.field(field.key, field.value),
                Fate::Become(value) => writer.field(field.key, value.as_raw()),
                Fate::Remove => {}
            }
        }
        for (key, value) in added {
            writer.field(key, value);
        }
        writer.close(start)?;
        Ok(Some(Value::built(ElementType::EmbeddedDocument, writer)))
    }

    fn arrays<'a>(
        &mut self,
        stored: RawValue<'_>,
        before: RawValue<'_>,
        after: RawValue<'a>,
        depth: usize,
    ) -> Result<Option<Value<'a>>> {
        let is_view = contains(stored, before, depth)?;
        self.is_faithful &= is_view;
        if is_equal(before, after, depth)? {
            return Ok(None);
        }
        let all = (elements(stored)?, elements(before)?, elements(after)?);
        let (true, (Some(stored), Some(old), Some(new))) = (is_view, all) else {
            return Ok(Some(after.into()));
        };
        let mut writer = Writer::with_capacity(after.bytes.len());
        let start = writer.open();
        let mut counter = Counter::default();
        let mut push = |value: RawValue<'_>| {
            writer.key(value.kind, counter.digits());
            writer.value(value.bytes);
            counter.increment();
        };
        let mut done = 0;
        for gap in gaps(&old, &new, depth)? {
            stored[done..gap.old.start].iter().for_each(|v| push(*v));
            done = gap.old.end;
            let is_paired = gap.old.len() == gap.new.len();
            for (offset, new) in new[gap.new.clone()].iter().enumerate() {
                let place = gap.old.start + offset;
                if is_paired && is_same_thing(old[place], *new, depth)? {
                    match self.values(stored[place], old[place], *new, depth)? {
                        Some(value) => push(value.as_raw()),
                        None => push(stored[place]),
                    }
                } else {
                    push(*new);
                }
            }
        }
        stored[done..].iter().for_each(|value| push(*value));
        writer.close(start)?;
        Ok(Some(Value::built(ElementType::Array, writer)))
    }

    /// Notes if `before` is no faithful view of `stored`.
    fn require(&mut self, stored: RawValue<'_>, before: RawValue<'_>, depth: usize) -> Result<()> {
        self.is_faithful = self.is_faithful && contains(stored, before, depth)?;
        Ok(())
    }
}

/// Matches elements by value, whatever the order of keys in them.
fn gaps(old: &[RawValue<'_>], new: &[RawValue<'_>], depth: usize) -> Result<Vec<Gap>> {
    Ok(align(
        &normal_forms(old, depth)?,
        &normal_forms(new, depth)?,
    ))
}

/// Whether two array elements are two states of one thing.
fn is_same_thing(old: RawValue<'_>, new: RawValue<'_>, depth: usize) -> Result<bool> {
    if old.is_array() && new.is_array() {
        return Ok(true);
    }
    if !old.is_document() || !new.is_document() {
        return Ok(false);
    }
    let (old, new) = (fields(old)?, fields(new)?);
    let Some(matches) = super::raw::match_fields(&old, &new) else {
        return Ok(false);
    };
    let mut failure = None;
    let is_allowed = is_pairing_allowed(&old, &new, &matches, |a, b| {
        is_equal(a.value, b.value, depth).unwrap_or_else(|error| {
            failure = Some(error);
            false
        })
    });
    failure.map_or(Ok(is_allowed), Err)
}

/// The fields of a typed document but for those in `skip`.
fn unique_fields<'a>(document: RawValue<'a>, skip: &[&str]) -> Result<Vec<Field<'a>>> {
    let mut fields = fields(document)?;
    if let Some(key) = duplicate(&fields) {
        return Err(Error::new(
            ErrorKind::Serialization,
            format!("the type writes key {key:?} twice"),
        ));
    }
    fields.retain(|field| !skip.contains(&field.key));
    Ok(fields)
}

#[cfg(test)]
mod tests;
