use std::fmt;

use bson::Bson;

use crate::document::Path;
use crate::document::raw::{OwnedValue, RawValue};
use crate::error::Result;

/// One operation of a [`Patch`](super::Patch).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PatchOp {
    /// Replaces the value of a field or element that exists, or, with an empty path, the document.
    Set {
        /// The field or element.
        path: Path,
        /// Its new value.
        value: PatchValue,
    },
    /// Adds a field that does not exist.
    Add {
        /// The field.
        path: Path,
        /// Its value.
        value: PatchValue,
        /// The field that it stands in front of; at the end without one.
        before: Option<String>,
    },
    /// Removes a field.
    Remove {
        /// The field.
        path: Path,
    },
    /// Changes the order of fields: those named take, in the order given, the places that they
    /// hold together.
    Reorder {
        /// The document whose fields these are.
        path: Path,
        /// The fields that get another place.
        keys: Vec<String>,
    },
    /// Inserts elements into an array.
    Insert {
        /// Where the first of them will be.
        path: Path,
        /// The elements.
        values: Vec<PatchValue>,
    },
    /// Removes consecutive elements of an array.
    Cut {
        /// The first of them.
        path: Path,
        /// How many.
        count: usize,
    },
}

impl PatchOp {
    /// The place that the operation is about.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Set { path, .. }
            | Self::Add { path, .. }
            | Self::Remove { path }
            | Self::Reorder { path, .. }
            | Self::Insert { path, .. }
            | Self::Cut { path, .. } => path,
        }
    }

    /// How many segments lead to the document or array that the operation edits.
    pub(super) fn depth(&self) -> usize {
        let len = self.path().segments().len();
        match self {
            Self::Reorder { .. } => len,
            _ => len.saturating_sub(1),
        }
    }
}

/// A BSON value in a patch, kept with its exact type and bits.
///
/// Its `Debug` form shows type and size, so that logs do not leak documents.
#[derive(Clone, PartialEq, Eq)]
pub struct PatchValue(OwnedValue);

impl PatchValue {
    /// The value.
    ///
    /// # Errors
    /// `Corrupt` if its bytes are malformed, `TooLarge` if it is nested too deeply.
    pub fn to_bson(&self) -> Result<Bson> {
        self.as_raw().to_bson()
    }

    pub(crate) fn as_raw(&self) -> RawValue<'_> {
        self.0.as_raw()
    }
}

impl From<RawValue<'_>> for PatchValue {
    fn from(value: RawValue<'_>) -> Self {
        Self(value.into())
    }
}

impl fmt::Debug for PatchValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
