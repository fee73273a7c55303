//! What can be said of a patch without applying it.

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

    /// Whether the merge patch of the change follows from this patch alone. It does not if arrays are
    /// edited, whose other elements RFC 7396 repeats, or if a value is replaced by a document, where
    /// RFC 7396 names the old one's keys.
    pub(crate) fn determines_merge_patch(&self) -> bool {
        self.ops().all(|op| {
            let in_array = op
                .path()
                .segments()
                .iter()
                .any(|segment| matches!(segment, PathSegment::Index(_)));
            let replaces = matches!(op, PatchOp::Set { value, .. } if value.as_raw().is_document());
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
