//! Documents: identity and version, what changed between two of them, and patches that replay it.
//!
//! Nothing here awaits or touches a store. Documents are raw BSON, so that equality is equality of
//! bytes and key order, `NaN` and integer widths survive.

mod diff;
mod id;
mod json;
mod json_patch;
mod merge;
mod merge_patch;
#[cfg(feature = "embedded")]
mod order;
mod patch;
mod path;
mod raw;
mod version;

#[cfg(test)]
mod testing;

pub use diff::Diff;
pub(crate) use id::validate_collection_name;
pub use id::{DocumentId, DocumentKey};
pub(crate) use json_patch::from_patch as json_patch_of;
pub(crate) use merge::{first_difference, merge, same_as_sets};
pub use merge_patch::MergePatch;
#[cfg(feature = "embedded")]
pub(crate) use order::{compare, encode_key};
pub use patch::{Patch, PatchOp, PatchValue};
pub use path::{Path, PathSegment};
pub(crate) use raw::{int64_place, validate, with_int64};
pub use version::{ExpectedVersion, Version, VersionConflict};
