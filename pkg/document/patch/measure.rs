//! What can be said of a patch without applying it.

use bson::spec::ElementType;

use super::{Patch, PatchOp, PatchValue};
use crate::document::{PathSegment, json_patch_of};
use crate::error::Result;

impl Patch {
    /// The patch as an RFC 6902 JSON patch. Changes of key order have no meaning in JSON and are left
    /// out.
    ///
    /// # Errors
    /// `TooLarge` if a value is nested too deeply, `Corrupt` for malformed BSON.
    pub fn json_patch(&self) -> Result<::json_patch::Patch> {
        json_patch_of(self)
    }

    /// Whether the merge patch of the change surely follows from this patch alone. It may not if arrays
    /// are edited, whose other elements RFC 7396 repeats, or if a value is replaced by one that is an
    /// object in JSON, where RFC 7396 names the old one's keys.
    pub(crate) fn determines_merge_patch(&self) -> bool {
        self.ops().all(|op| {
            let in_array = op
                .path()
                .segments()
                .iter()
                .any(|segment| matches!(segment, PathSegment::Index(_)));
            let replaces = matches!(op, PatchOp::Set { value, .. } if is_object_in_json(value));
            !in_array && !replaces
        })
    }

    /// About how many bytes the stored form has.
    pub(crate) fn estimated_bytes(&self) -> usize {
        let bytes = |value: &PatchValue| value.as_raw().bytes.len() + 16;
        self.ops()
            .map(|op| {
                let path: usize = op
                    .path()
                    .segments()
                    .iter()
                    .map(|segment| match segment {
                        PathSegment::Key(key) => key.len() + 16,
                        PathSegment::Index(_) => 16,
                    })
                    .sum();
                let value: usize = match op {
                    PatchOp::Set { value, .. } => bytes(value),
                    PatchOp::Add { value, before, .. } => {
                        bytes(value) + before.as_ref().map_or(0, |key| key.len() + 16)
                    }
                    PatchOp::Insert { values, .. } => values.iter().map(bytes).sum(),
                    PatchOp::Reorder { keys, .. } => keys.iter().map(|key| key.len() + 16).sum(),
                    PatchOp::Remove { .. } | PatchOp::Cut { .. } => 16,
                };
                32 + path + value
            })
            .sum()
    }
}

/// Documents are, and the types that JSON lacks, in Extended JSON; and so are numbers like NaN.
fn is_object_in_json(value: &PatchValue) -> bool {
    let value = value.as_raw();
    match value.kind {
        ElementType::Double => {
            let bits = value.bytes.try_into().map(f64::from_le_bytes);
            !bits.is_ok_and(f64::is_finite)
        }
        ElementType::String
        | ElementType::Array
        | ElementType::Boolean
        | ElementType::Null
        | ElementType::Int32
        | ElementType::Int64 => false,
        _ => true,
    }
}
