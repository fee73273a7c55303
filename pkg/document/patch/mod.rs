//! Patches: what turns one document into the next, byte for byte.

mod align;
mod apply;
mod between;
mod measure;
mod operation;
mod stored;

use bson::{RawBson, RawBsonRef, RawDocument, RawDocumentBuf};

use crate::error::Result;

pub(crate) use align::{Gap, align, is_pairing_allowed};
pub use operation::{PatchOp, PatchValue};

/// The change from one document to another, lossless: BSON types, key order, the bits of numbers.
///
/// A list of operations that are applied in order, each to the result of those before it.
/// [`Patch::between`] computes it, [`Patch::apply`] replays it, and the log stores it in the form
/// that [`Patch::to_raw`] describes. It names places by paths of keys and indexes, so `.`, `$` and
/// empty keys are ordinary.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Patch {
    ops: Vec<PatchOp>,
}

impl Patch {
    /// Computes the patch that turns `before` into `after`.
    ///
    /// Both documents are walked once; equal subtrees are recognised by their bytes and only
    /// changed values are copied. Elements of arrays are matched by value, so that an insertion
    /// does not touch its neighbours. Where the operations would be longer than the value they
    /// change, the value is set as a whole.
    ///
    /// The top-level keys in `skip` are not compared, added or removed: the base's value stays. If
    /// such a key has another place among its neighbours in `after`, the patch moves it there.
    ///
    /// # Errors
    /// `TooLarge` where the documents differ below 160 levels, `Corrupt` for malformed BSON,
    /// `Serialization` if a document has a top-level key twice while keys are skipped.
    pub fn between(before: &RawDocument, after: &RawDocument, skip: &[&str]) -> Result<Self> {
        between::between(before, after, skip).map(|ops| Self { ops })
    }

    /// Computes the document that this patch turns `document` into.
    ///
    /// Takes time in proportion to the document and the patch, and copies what did not change as
    /// it is.
    ///
    /// # Errors
    /// `Corrupt` naming the path if `document` lacks a place that the patch changes, or has one
    /// that it adds.
    pub fn apply(&self, document: &RawDocument) -> Result<RawDocumentBuf> {
        apply::apply(&self.ops, document)
    }

    /// Whether the patch changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// The operations, in the order in which they apply.
    pub fn ops(&self) -> impl ExactSizeIterator<Item = &PatchOp> {
        self.ops.iter()
    }

    /// The form in which the log stores patches: a BSON array with one document per operation.
    ///
    /// | document | operation |
    /// |---|---|
    /// | `{ set: path, v: value }` | [`PatchOp::Set`] |
    /// | `{ add: path, v: value }` | [`PatchOp::Add`] at the end |
    /// | `{ add: path, v: value, before: key }` | [`PatchOp::Add`] in front of `key` |
    /// | `{ del: path }` | [`PatchOp::Remove`] |
    /// | `{ order: path, keys: [key, …] }` | [`PatchOp::Reorder`] |
    /// | `{ ins: path, vs: [value, …] }` | [`PatchOp::Insert`] |
    /// | `{ cut: path, n: count }` | [`PatchOp::Cut`] |
    ///
    /// A path is an array of strings (keys) and integers (indexes); `[]` is the document. This form
    /// is persistent: operations may be added, none may change its meaning.
    ///
    /// # Errors
    /// `TooLarge` for a patch over 2 GiB.
    pub fn to_raw(&self) -> Result<RawBson> {
        stored::write(&self.ops)
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// `Corrupt` for anything that [`to_raw`](Self::to_raw) does not write.
    pub fn from_raw(value: RawBsonRef<'_>) -> Result<Self> {
        stored::read(value).map(|ops| Self { ops })
    }
}

#[cfg(test)]
mod tests;
