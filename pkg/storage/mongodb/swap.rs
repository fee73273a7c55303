//! Documents replaced under a condition: three ways to say it to the server.
//!
//! All replace by a pipeline with the whole document as a constant, which stores it byte for byte: a
//! classic replacement fills in empty timestamps and refuses names with `$`. Times per document in a batch
//! of 64 and of 128 documents of 500 bytes, server 6.0.5:
//!
//! | | 64 | 128 |
//! |---|---|---|
//! | `q: { _id, version }`, through the query planner | 47 µs | 45 µs |
//! | `q: { _id }`, the version compared in the pipeline | 26 µs | 24 µs |
//! | one statement for all: `q: { _id: { $in } }`, `multi` | 19 µs | 17 µs |
//! | for comparison: `q: { _id }` without any condition | 23 µs | 21 µs |
//!
//! The last two leave a document at another version as it is, so what counts is `nModified`, and that the
//! new document is never equal to the old one: its version is another.

use std::sync::Arc;

use super::buffer::Buffer;
use crate::document::Version;
use crate::storage::backend::{Condition, DocumentWrite, version_of};
use bson::RawDocument;

/// From this many documents on, one statement for all is faster than one for each.
const TOGETHER: usize = 6;

/// Larger documents are replaced one by one: constants of a statement are one document, which has its
/// limit at 16 MiB, and beside so many bytes planning costs nothing.
const LARGE: usize = 256 * 1024;

/// A document that replaces another one.
#[derive(Debug, Clone)]
pub(super) struct Swap<'a> {
    pub(super) write: &'a DocumentWrite,
    pub(super) document: &'a RawDocument,
    /// The name of the version field.
    pub(super) field: Arc<str>,
}

impl Swap<'_> {
    /// The version to compare with, where the comparison may be left to the pipeline.
    pub(super) fn version(&self) -> Option<Version> {
        let Condition::Version(version) = self.write.condition else {
            return None;
        };
        let differs = version_of(self.document, &self.field)
            .is_ok_and(|new| new.is_some_and(|new| new != version));
        (differs && self.document.as_bytes().len() <= LARGE).then_some(version)
    }

    pub(super) fn bytes(&self) -> usize {
        // Names and the rest of a statement.
        self.document.as_bytes().len() + 256 + 2 * id_bytes(self.write)
    }

    /// The statement that needs no help: it matches the document in the expected state, or none.
    pub(super) fn append_exact(&self, buffer: &mut Buffer, index: usize) {
        buffer.document_at(index).document("q");
        buffer.id("_id", self.write.key.id());
        match self.write.condition {
            Condition::Version(version) => buffer.int64(&self.field, version.to_i64()),
            Condition::Unversioned => buffer.document(&self.field).flag("$exists", false).close(),
            // Nothing passes, so an upsert always inserts, or fails on the id that is taken.
            Condition::Absent => buffer.array("$nor").document_at(0).close().close(),
        };
        buffer
            .close()
            .array("u")
            .document_at(0)
            .document("$replaceWith");
        buffer
            .raw("$literal", self.document)
            .close()
            .close()
            .close();
        if self.write.condition == Condition::Absent {
            buffer.flag("upsert", true);
        }
        buffer.close();
    }
}

/// Whether so many documents are replaced by one statement.
pub(super) fn is_together(swaps: usize) -> bool {
    swaps >= TOGETHER
}

/// `{ q: { _id }, u: [replace if at the version], c: { v, d } }`
///
/// Constants are in `c`, where they are no expressions and lie less deep.
pub(super) fn append_by_id(buffer: &mut Buffer, index: usize, swap: &Swap<'_>, version: Version) {
    buffer.document_at(index).document("q");
    buffer.id("_id", swap.write.key.id()).close();
    buffer
        .array("u")
        .document_at(0)
        .document("$replaceWith")
        .array("$cond");
    buffer
        .document_at(0)
        .array("$eq")
        .path_at(0, &swap.field)
        .text_at(1, "$$v");
    buffer
        .close()
        .close()
        .text_at(1, "$$d")
        .text_at(2, "$$ROOT");
    buffer.close().close().close().close();
    buffer
        .document("c")
        .int64("v", version.to_i64())
        .raw("d", swap.document);
    buffer.close().close();
}

/// One statement for all: each document looks up its place in the list of ids, and there the version that
/// it must have and the document that replaces it. The server makes a hash table of the ids, in which the
/// numbers 1, 1i64 and 1.0 are one.
pub(super) fn append_together(buffer: &mut Buffer, swaps: &[(&Swap<'_>, Version)]) {
    let Some((first, _)) = swaps.first() else {
        return;
    };
    buffer
        .document_at(0)
        .document("q")
        .document("_id")
        .array("$in");
    ids(buffer, swaps);
    buffer.close().close().close().flag("multi", true);
    buffer
        .array("u")
        .document_at(0)
        .document("$replaceWith")
        .document("$let");
    buffer.document("vars").document("i").array("$indexOfArray");
    buffer
        .text_at(0, "$$ids")
        .text_at(1, "$_id")
        .close()
        .close()
        .close();
    buffer.document("in").array("$cond");
    buffer.document_at(0).array("$eq").path_at(0, &first.field);
    element_of(buffer, 1, "$$versions");
    buffer.close().close();
    element_of(buffer, 1, "$$documents");
    buffer.text_at(2, "$$ROOT").close().close();
    buffer.close().close().close().close();
    buffer.document("c").array("ids");
    ids(buffer, swaps);
    buffer.close().array("versions");
    for (index, (_, version)) in swaps.iter().enumerate() {
        buffer.int64_at(index, version.to_i64());
    }
    buffer.close().array("documents");
    for (index, (swap, _)) in swaps.iter().enumerate() {
        buffer.raw_at(index, swap.document);
    }
    buffer.close().close().close();
}

fn ids(buffer: &mut Buffer, swaps: &[(&Swap<'_>, Version)]) {
    for (index, (swap, _)) in swaps.iter().enumerate() {
        buffer.id_at(index, swap.write.key.id());
    }
}

/// `{ $arrayElemAt: [list, "$$i"] }`
fn element_of(buffer: &mut Buffer, index: usize, list: &str) {
    buffer.document_at(index).array("$arrayElemAt");
    buffer.text_at(0, list).text_at(1, "$$i").close().close();
}

fn id_bytes(write: &DocumentWrite) -> usize {
    match write.key.id() {
        crate::document::DocumentId::String(text) => text.len() + 16,
        _ => 32,
    }
}
