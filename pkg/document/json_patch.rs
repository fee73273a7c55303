//! JSON patches, RFC 6902, as a view of patches.

use ::json_patch::jsonptr::{PointerBuf, Token};
use ::json_patch::{AddOperation, PatchOperation, RemoveOperation, ReplaceOperation};
use bson::RawDocument;
use serde_json::Value;

use super::json::{object, to_json};
use super::raw::RawValue;
use super::{Patch, PatchOp, PatchValue, Path, PathSegment};
use crate::error::Result;

/// Converts a patch; what JSON cannot say, the order of keys, is left out.
///
/// RFC 6902 applies operations one after the other, so runs of elements become one operation each.
pub(crate) fn from_patch(patch: &Patch) -> Result<::json_patch::Patch> {
    let mut operations = Vec::new();
    for op in patch.ops() {
        match op {
            PatchOp::Set { path, value } => {
                operations.push(PatchOperation::Replace(ReplaceOperation {
                    path: pointer(path.segments()),
                    value: json(value, path)?,
                }));
            }
            PatchOp::Add { path, value, .. } => {
                operations.push(add(pointer(path.segments()), json(value, path)?));
            }
            PatchOp::Remove { path } => operations.push(remove(pointer(path.segments()))),
            PatchOp::Reorder { .. } => {}
            PatchOp::Insert { path, values } => {
                let Some((PathSegment::Index(first), array)) = path.segments().split_last() else {
                    continue;
                };
                let array = pointer(array);
                for (index, value) in (*first..).zip(values) {
                    let mut element = array.clone();
                    element.push_back(Token::from(index));
                    operations.push(add(element, json(value, path)?));
                }
            }
            PatchOp::Cut { path, count } => {
                let element = pointer(path.segments());
                operations.extend((0..*count).map(|_| remove(element.clone())));
            }
        }
    }
    Ok(::json_patch::Patch(operations))
}

/// Sets the whole document, for creation and deletion.
pub(crate) fn whole(after: Option<&RawDocument>, skip: &[&str]) -> Result<::json_patch::Patch> {
    let value = match after {
        Some(after) => object(RawValue::document(after), skip, 1)?.into(),
        None => Value::Null,
    };
    let path = PointerBuf::new();
    let replace = PatchOperation::Replace(ReplaceOperation { path, value });
    Ok(::json_patch::Patch(vec![replace]))
}

fn json(value: &PatchValue, path: &Path) -> Result<Value> {
    to_json(value.as_raw(), path.segments().len())
}

fn add(path: PointerBuf, value: Value) -> PatchOperation {
    PatchOperation::Add(AddOperation { path, value })
}

fn remove(path: PointerBuf) -> PatchOperation {
    PatchOperation::Remove(RemoveOperation { path })
}

fn pointer(segments: &[PathSegment]) -> PointerBuf {
    PointerBuf::from_tokens(segments.iter().map(|segment| match segment {
        PathSegment::Key(key) => Token::new(key.as_str()),
        PathSegment::Index(index) => Token::from(*index),
    }))
}

#[cfg(test)]
mod tests;
