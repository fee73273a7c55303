use bson::RawDocument;

use super::align::{align, is_identity, is_pairing_allowed};
use super::operation::{PatchOp, PatchValue};
use crate::document::raw::{
    Field, Lockstep, RawValue, deeper, duplicate, elements, fields, lockstep, match_fields,
};
use crate::document::{Path, PathSegment};
use crate::error::{Error, ErrorKind, Result};

/// What an operation takes in stored form beside its keys and values, roughly: lengths, types and
/// the names `set` and `v`.
const OPERATION_BYTES: usize = 30;

/// The same for one key or value inside an array.
const ELEMENT_BYTES: usize = 8;

pub(super) fn between(
    before: &RawDocument,
    after: &RawDocument,
    skip: &[&str],
) -> Result<Vec<PatchOp>> {
    let (before, after) = (RawValue::document(before), RawValue::document(after));
    let mut builder = Builder::default();
    if before == after {
        return Ok(builder.ops);
    }
    let has_ops = builder.document(before, after, skip, 1, false)?;
    if !skip.is_empty() {
        // Setting the whole document would set the skipped fields as well.
        if !has_ops {
            let (before, after) = (fields(before)?, fields(after)?);
            let key = duplicate(&before).or_else(|| duplicate(&after));
            let path = Path::from(key.unwrap_or_default());
            return Err(Error::new(
                ErrorKind::Serialization,
                format!("duplicate key at {path}"),
            ));
        }
    } else if !has_ops || builder.size >= set_size(&[], after) {
        builder.ops.clear();
        builder.push_set(after);
    }
    Ok(builder.ops)
}

#[derive(Default)]
struct Builder {
    ops: Vec<PatchOp>,
    /// What `ops` take in stored form, roughly.
    size: usize,
    /// The place that is being compared.
    path: Vec<PathSegment>,
}

impl Builder {
    /// Compares two different values at the current path.
    fn value(
        &mut self,
        before: RawValue<'_>,
        after: RawValue<'_>,
        depth: usize,
        is_element: bool,
    ) -> Result<()> {
        let (ops, size) = (self.ops.len(), self.size);
        let has_ops = if before.is_document() && after.is_document() {
            self.document(before, after, &[], deeper(depth)?, is_element)?
        } else if before.is_array() && after.is_array() {
            self.array(before, after, deeper(depth)?)?
        } else {
            false
        };
        if !has_ops || self.size - size >= set_size(&self.path, after) {
            self.ops.truncate(ops);
            self.size = size;
            self.push_set(after);
        }
        Ok(())
    }

    /// Compares two documents; false if their keys do not name their fields, or if they are
    /// elements of arrays that have too little in common.
    fn document(
        &mut self,
        before: RawValue<'_>,
        after: RawValue<'_>,
        skip: &[&str],
        depth: usize,
        is_element: bool,
    ) -> Result<bool> {
        if let Some(differences) = lockstep(before, after)? {
            return self.differences(&differences, skip, depth, is_element);
        }
        let (before, after) = (fields(before)?, fields(after)?);
        let Some(matches) = match_fields(&before, &after) else {
            return Ok(false);
        };
        if is_element && !is_pairing_allowed(&before, &after, &matches, |a, b| a.value == b.value) {
            return Ok(false);
        }
        let mut kept = vec![false; before.len()];
        for position in matches.iter().flatten() {
            kept[*position] = true;
        }
        for (field, kept) in before.iter().zip(&kept) {
            if !kept && !skip.contains(&field.key) {
                let path = self.path_to(field.key);
                self.push(PatchOp::Remove { path }, 0);
            }
        }
        for (field, position) in after.iter().zip(&matches) {
            let Some(old) = position.and_then(|position| before.get(position)) else {
                continue;
            };
            if old.value != field.value && !skip.contains(&field.key) {
                self.path.push(field.key.into());
                self.value(old.value, field.value, depth, false)?;
                self.path.pop();
            }
        }
        self.reorder(&before, &kept, &matches);
        self.additions(&after, &matches, skip);
        Ok(true)
    }

    /// Compares two documents that agree on their keys, as [`document`](Self::document) does.
    fn differences(
        &mut self,
        differences: &Lockstep<'_, '_>,
        skip: &[&str],
        depth: usize,
        is_element: bool,
    ) -> Result<bool> {
        let changed = &differences.changed;
        if is_element
            && (!differences.has_equal || changed.iter().any(|(field, _)| is_identity(field.key)))
        {
            return Ok(false);
        }
        for (old, new) in changed {
            if !skip.contains(&new.key) {
                self.path.push(new.key.into());
                self.value(old.value, new.value, depth, false)?;
                self.path.pop();
            }
        }
        for field in &differences.appended {
            if !skip.contains(&field.key) {
                self.push_add(field, None);
            }
        }
        Ok(true)
    }

    /// Names the fields whose rank among those that stay has changed.
    fn reorder(&mut self, before: &[Field<'_>], kept: &[bool], matches: &[Option<usize>]) {
        let old_order = (0..before.len()).filter(|position| kept[*position]);
        let new_order = matches.iter().flatten();
        let keys: Vec<String> = old_order
            .zip(new_order)
            .filter(|(old, new)| old != *new)
            .map(|(_, new)| before[*new].key.to_owned())
            .collect();
        if !keys.is_empty() {
            let size = keys.iter().map(|key| key.len() + ELEMENT_BYTES).sum();
            let path = self.path.clone().into();
            self.push(PatchOp::Reorder { path, keys }, size);
        }
    }

    fn additions(&mut self, after: &[Field<'_>], matches: &[Option<usize>], skip: &[&str]) {
        let Some(first) = matches.iter().position(Option::is_none) else {
            return;
        };
        // For each field the next one that was there before; the last field has none.
        let mut neighbours = vec![None; after.len()];
        let mut neighbour = None;
        for (position, field) in after.iter().enumerate().skip(first).rev() {
            neighbours[position] = neighbour;
            if matches[position].is_some() {
                neighbour = Some(field.key);
            }
        }
        for (position, field) in after.iter().enumerate().skip(first) {
            if matches[position].is_none() && !skip.contains(&field.key) {
                self.push_add(field, neighbours[position]);
            }
        }
    }

    fn push_add(&mut self, field: &Field<'_>, before: Option<&str>) {
        let size = field.value.bytes.len() + before.map_or(0, |key| key.len() + 2 * ELEMENT_BYTES);
        let (path, value) = (self.path_to(field.key), field.value.into());
        let before = before.map(str::to_owned);
        self.push(
            PatchOp::Add {
                path,
                value,
                before,
            },
            size,
        );
    }

    /// Compares two arrays; false if their keys are not 0, 1, 2, …
    fn array(&mut self, before: RawValue<'_>, after: RawValue<'_>, depth: usize) -> Result<bool> {
        let (Some(old), Some(new)) = (elements(before)?, elements(after)?) else {
            return Ok(false);
        };
        let old_ids: Vec<_> = old.iter().map(|value| value.identity()).collect();
        let new_ids: Vec<_> = new.iter().map(|value| value.identity()).collect();
        // In ascending order, everything in front of a gap is in its new state already, so that
        // indexes are those of the new array.
        for gap in align(&old_ids, &new_ids) {
            let at = gap.new.start;
            let (old, new) = (&old[gap.old], &new[gap.new]);
            if old.len() == new.len() {
                for (offset, (old, new)) in old.iter().zip(new).enumerate() {
                    if old != new {
                        self.path.push((at + offset).into());
                        self.value(*old, *new, depth, true)?;
                        self.path.pop();
                    }
                }
                continue;
            }
            if !old.is_empty() {
                let (path, count) = (self.path_to(at), old.len());
                self.push(PatchOp::Cut { path, count }, 0);
            }
            if !new.is_empty() {
                let values: Vec<PatchValue> = new.iter().map(|value| (*value).into()).collect();
                let size = new.iter().map(|v| v.bytes.len() + ELEMENT_BYTES).sum();
                let path = self.path_to(at);
                self.push(PatchOp::Insert { path, values }, size);
            }
        }
        Ok(true)
    }

    fn path_to(&self, segment: impl Into<PathSegment>) -> Path {
        self.path.iter().cloned().chain([segment.into()]).collect()
    }

    fn push(&mut self, op: PatchOp, size: usize) {
        self.size += path_size(op.path().segments()) + size;
        self.ops.push(op);
    }

    fn push_set(&mut self, value: RawValue<'_>) {
        let path = self.path.clone().into();
        let (value, size) = (value.into(), value.bytes.len());
        self.push(PatchOp::Set { path, value }, size);
    }
}

fn set_size(path: &[PathSegment], value: RawValue<'_>) -> usize {
    path_size(path) + value.bytes.len()
}

fn path_size(path: &[PathSegment]) -> usize {
    let segments = path.iter().map(|segment| match segment {
        PathSegment::Key(key) => key.len() + ELEMENT_BYTES,
        PathSegment::Index(_) => ELEMENT_BYTES,
    });
    OPERATION_BYTES + segments.sum::<usize>()
}
