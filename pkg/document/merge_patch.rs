use std::fmt;

use bson::RawDocument;
use bson::spec::ElementType;
use serde_json::{Map, Value};

use super::json::{object, to_json};
use super::raw::{Lockstep, RawValue, corrupt, deeper, fields, get, lockstep, match_fields};
use super::{Patch, PatchOp, PathSegment};
use crate::error::Result;

/// A change as a JSON merge patch, RFC 7396: the new values of what changed, `null` for what is
/// gone. Arrays appear whole. Displays as its JSON.
///
/// Values are in relaxed Extended JSON where JSON lacks the type, and an absent document is `null`.
/// The patch speaks about JSON only: it does not show a change of key order, and shows a changed
/// integer width as the same number.
#[derive(Debug, Clone, PartialEq)]
pub struct MergePatch {
    value: Value,
    exact: bool,
}

impl MergePatch {
    /// Computes the merge patch from `before` to `after`, leaving out the top-level keys in `skip`.
    pub(crate) fn between(
        before: Option<&RawDocument>,
        after: Option<&RawDocument>,
        skip: &[&str],
    ) -> Result<Self> {
        let mut view = View::default();
        let value = match (before, after) {
            (Some(before), Some(after)) => {
                let (before, after) = (RawValue::document(before), RawValue::document(after));
                view.documents(before, after, skip, 1)?
            }
            (None, Some(after)) => {
                let after = object(RawValue::document(after), skip, 1)?.into();
                view.replace(after)
            }
            (Some(_), None) => Value::Null,
            (None, None) => Map::new().into(),
        };
        Ok(view.finish(value))
    }

    /// Computes the merge patch from a patch alone; `None` if it edits arrays, whose other elements
    /// it does not hold.
    ///
    /// A value that is a JSON object merges into the one it replaces, which the patch does not
    /// hold either: then it is not exact.
    pub(crate) fn from_patch(patch: &Patch) -> Result<Option<Self>> {
        let mut view = View::default();
        let mut root = Value::Object(Map::new());
        for op in patch.ops() {
            let path = op.path().segments();
            let value = match op {
                PatchOp::Reorder { .. } => continue,
                PatchOp::Insert { .. } | PatchOp::Cut { .. } => return Ok(None),
                PatchOp::Remove { .. } => Value::Null,
                PatchOp::Add { value, .. } => view.replace(to_json(value.as_raw(), path.len())?),
                PatchOp::Set { value, .. } => {
                    let value = view.replace(to_json(value.as_raw(), path.len())?);
                    view.is_inexact |= value.is_object();
                    value
                }
            };
            match slot(&mut root, path) {
                Some(slot) => *slot = value,
                None => return Ok(None),
            }
        }
        Ok(Some(view.finish(root)))
    }

    /// Computes what [`between`](Self::between) does from the patch between the two documents, and
    /// looks only at what it changes.
    pub(crate) fn of_patch(
        patch: &Patch,
        before: &RawDocument,
        after: &RawDocument,
        skip: &[&str],
    ) -> Result<Self> {
        // Each operation looks its place up; for more of them one walk over everything is faster.
        const MAX_LOOKUPS: usize = 8;
        if patch.ops().len() > MAX_LOOKUPS || patch.ops().any(|op| op.path().is_empty()) {
            return Self::between(Some(before), Some(after), skip);
        }
        let mut view = View::default();
        let mut root = Value::Object(Map::new());
        let mut array: Option<&[PathSegment]> = None;
        for op in patch.ops() {
            let path = op.path().segments();
            let index = path.iter().position(|s| matches!(s, PathSegment::Index(_)));
            let (path, value) = if let Some(index) = index {
                // Arrays appear whole, and once.
                let path = &path[..index];
                if array == Some(path) {
                    continue;
                }
                array = Some(path);
                let value =
                    get(after, path)?.ok_or_else(|| corrupt("patch of another document"))?;
                (path, Some(to_json(value, path.len())?))
            } else {
                let value = match op {
                    PatchOp::Remove { .. } => Some(Value::Null),
                    PatchOp::Add { value, .. } => {
                        Some(view.replace(to_json(value.as_raw(), path.len())?))
                    }
                    PatchOp::Set { value, .. } => view.set(before, path, value.as_raw())?,
                    _ => None,
                };
                (path, value)
            };
            if let Some(value) = value {
                match slot(&mut root, path) {
                    Some(slot) => *slot = value,
                    None => return Self::between(Some(before), Some(after), skip),
                }
            }
        }
        Ok(view.finish(root))
    }

    /// The patch as JSON.
    #[must_use]
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// The patch as JSON, owned.
    #[must_use]
    pub fn into_value(self) -> Value {
        self.value
    }

    /// Whether applying the patch as RFC 7396 says gives exactly the JSON of the new document.
    ///
    /// It does not if a field became `null`, or if a new object holds a `null` in one of its
    /// fields, since `null` means removal there.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.exact
    }
}

impl fmt::Display for MergePatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

/// The place of a path in a merge patch, created with the objects on the way; `None` for paths
/// through arrays.
fn slot<'v>(root: &'v mut Value, path: &[PathSegment]) -> Option<&'v mut Value> {
    let mut target = root;
    for segment in path {
        let PathSegment::Key(key) = segment else {
            return None;
        };
        if !target.is_object() {
            *target = Value::Object(Map::new());
        }
        target = target
            .as_object_mut()?
            .entry(key.as_str())
            .or_insert(Value::Null);
    }
    Some(target)
}

#[derive(Default)]
struct View {
    is_inexact: bool,
}

impl View {
    fn finish(self, value: Value) -> MergePatch {
        MergePatch {
            value,
            exact: !self.is_inexact,
        }
    }

    /// The change of a field that the patch sets; only objects merge with what was there.
    fn set(
        &mut self,
        before: &RawDocument,
        path: &[PathSegment],
        value: RawValue<'_>,
    ) -> Result<Option<Value>> {
        let is_plain = matches!(
            value.kind,
            ElementType::String
                | ElementType::Boolean
                | ElementType::Int32
                | ElementType::Int64
                | ElementType::Null
                | ElementType::Array
        );
        match (!is_plain)
            .then(|| get(before, path))
            .transpose()?
            .flatten()
        {
            Some(before) => self.values(before, value, path.len()),
            _ => Ok(Some(self.replace(to_json(value, path.len())?))),
        }
    }

    /// The merge patch between two documents that differ.
    fn documents(
        &mut self,
        before: RawValue<'_>,
        after: RawValue<'_>,
        skip: &[&str],
        depth: usize,
    ) -> Result<Value> {
        if let Some(differences) = lockstep(before, after)? {
            return self.differences(&differences, skip, depth);
        }
        let (old, new) = (fields(before)?, fields(after)?);
        let Some(matches) = match_fields(&old, &new) else {
            // With a key twice, the last of its fields is what JSON shows.
            let before = object(before, skip, depth)?;
            return Ok(self.objects(before, object(after, skip, depth)?).into());
        };
        let mut patch = Map::new();
        let mut gone = vec![true; old.len()];
        for (field, position) in new.iter().zip(&matches) {
            let previous = position.and_then(|position| old.get(position));
            if let Some(position) = position {
                gone[*position] = false;
            }
            if skip.contains(&field.key) || previous.is_some_and(|p| p.value == field.value) {
                continue;
            }
            let change = match previous {
                None => {
                    let value = to_json(field.value, depth)?;
                    Some(self.replace(value))
                }
                Some(previous) => self.values(previous.value, field.value, depth)?,
            };
            if let Some(change) = change {
                patch.insert(field.key.to_owned(), change);
            }
        }
        for (field, _) in old.iter().zip(gone).filter(|(_, gone)| *gone) {
            if !skip.contains(&field.key) {
                patch.insert(field.key.to_owned(), Value::Null);
            }
        }
        Ok(patch.into())
    }

    fn differences(
        &mut self,
        differences: &Lockstep<'_, '_>,
        skip: &[&str],
        depth: usize,
    ) -> Result<Value> {
        let mut patch = Map::new();
        for (old, new) in &differences.changed {
            if !skip.contains(&new.key)
                && let Some(change) = self.values(old.value, new.value, depth)?
            {
                patch.insert(new.key.to_owned(), change);
            }
        }
        for field in &differences.appended {
            if !skip.contains(&field.key) {
                let value = to_json(field.value, depth)?;
                patch.insert(field.key.to_owned(), self.replace(value));
            }
        }
        Ok(patch.into())
    }

    /// The change of a value that differs; `None` if JSON shows no difference.
    fn values(
        &mut self,
        before: RawValue<'_>,
        after: RawValue<'_>,
        depth: usize,
    ) -> Result<Option<Value>> {
        if before.is_document() && after.is_document() {
            let change = self.documents(before, after, &[], deeper(depth)?)?;
            // Only the order of keys changed, somewhere below.
            let is_empty = change.as_object().is_some_and(Map::is_empty);
            return Ok((!is_empty).then_some(change));
        }
        let after = to_json(after, depth)?;
        if !after.is_object() {
            return Ok(Some(self.replace(after)));
        }
        // Types in Extended JSON are objects too, and merge as such.
        Ok(Some(match (to_json(before, depth)?, after) {
            (Value::Object(before), Value::Object(after)) => self.objects(before, after).into(),
            (_, after) => self.replace(after),
        }))
    }

    /// The merge patch between two JSON objects.
    fn objects(
        &mut self,
        mut before: Map<String, Value>,
        after: Map<String, Value>,
    ) -> Map<String, Value> {
        let mut patch = Map::new();
        for (key, new) in after {
            let change = match (before.remove(&key), new) {
                (Some(old), new) if old == new => continue,
                (Some(Value::Object(old)), Value::Object(new)) => self.objects(old, new).into(),
                (_, new) => self.replace(new),
            };
            patch.insert(key, change);
        }
        patch.extend(before.into_iter().map(|(key, _)| (key, Value::Null)));
        patch
    }

    /// A value that takes the place of something that is no object, or of nothing.
    fn replace(&mut self, value: Value) -> Value {
        self.is_inexact |= value.is_null() || has_null_field(&value);
        value
    }
}

fn has_null_field(value: &Value) -> bool {
    value.as_object().is_some_and(|object| {
        let mut values = object.values();
        values.any(|value| value.is_null() || has_null_field(value))
    })
}

#[cfg(test)]
mod tests;
