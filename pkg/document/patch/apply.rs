use std::borrow::Cow;

use bson::spec::ElementType;
use bson::{RawDocument, RawDocumentBuf};

use super::operation::{PatchOp, PatchValue};
use crate::document::raw::{RawValue, Writer, corrupt, deeper, elements, fields};
use crate::document::{Path, PathSegment};
use crate::error::{Error, Result};

mod array_edit;
mod document_edit;

use array_edit::ArrayEdit;
use document_edit::DocumentEdit;

pub(super) fn apply(ops: &[PatchOp], document: &RawDocument) -> Result<RawDocumentBuf> {
    let mut base = RawValue::document(document);
    let mut ops = ops;
    // Setting the whole document overrules what came before it.
    for (position, op) in ops.iter().enumerate().rev() {
        if let PatchOp::Set { path, value } = op
            && path.is_empty()
        {
            base = value.as_raw();
            ops = &ops[position + 1..];
            break;
        }
    }
    if !base.is_document() {
        return Err(corrupt("patch sets the document to something else"));
    }
    let bytes = if ops.is_empty() {
        base.bytes.to_vec()
    } else {
        edit(base, ops, 0)?
    };
    RawDocumentBuf::from_bytes(bytes)
        .map_err(|e| corrupt("patched document is malformed").with_source(e))
}

/// A value while its document or array is edited.
#[derive(Debug, Clone)]
struct Slot<'a> {
    kind: ElementType,
    bytes: Cow<'a, [u8]>,
}

impl Slot<'_> {
    fn as_raw(&self) -> RawValue<'_> {
        RawValue {
            kind: self.kind,
            bytes: &self.bytes,
        }
    }
}

impl<'a> From<RawValue<'a>> for Slot<'a> {
    fn from(value: RawValue<'a>) -> Self {
        Self {
            kind: value.kind,
            bytes: Cow::Borrowed(value.bytes),
        }
    }
}

impl<'a> From<&'a PatchValue> for Slot<'a> {
    fn from(value: &'a PatchValue) -> Self {
        value.as_raw().into()
    }
}

/// Applies `ops`, which all edit `value` or something inside it; its own path has `depth` segments.
fn edit<'a>(value: RawValue<'a>, ops: &'a [PatchOp], depth: usize) -> Result<Vec<u8>> {
    deeper(depth)?;
    let mut container = Container::new(value, ops)?;
    let mut rest = ops;
    while let Some(op) = rest.first() {
        let path = op.path();
        if op.depth() <= depth {
            container.edit(op).ok_or_else(|| lacks(path))?;
            rest = &rest[1..];
            continue;
        }
        // Everything that goes into the same child is applied there at once.
        let segment = &path.segments()[depth];
        let is_inside =
            |op: &&PatchOp| op.depth() > depth && op.path().segments()[depth] == *segment;
        let (group, tail) = rest.split_at(rest.iter().take_while(is_inside).count());
        let slot = container.get_mut(segment).ok_or_else(|| lacks(path))?;
        slot.bytes = Cow::Owned(edit(slot.as_raw(), group, depth + 1)?);
        rest = tail;
    }
    let mut writer = Writer::with_capacity(value.bytes.len() + 64);
    let start = writer.open();
    container.write(&mut writer);
    writer.close(start)?;
    Ok(writer.into_bytes())
}

fn lacks(path: &Path) -> Error {
    corrupt(format!("patch does not fit the document at {path}"))
}

enum Container<'a> {
    Document(DocumentEdit<'a>),
    Array(ArrayEdit<'a>),
}

impl<'a> Container<'a> {
    fn new(value: RawValue<'a>, ops: &[PatchOp]) -> Result<Self> {
        if value.is_document() {
            return Ok(Self::Document(DocumentEdit::new(fields(value)?)));
        }
        let array = value.is_array().then(|| elements(value)).transpose()?;
        array
            .flatten()
            .map(|elements| Self::Array(ArrayEdit::new(elements)))
            .ok_or_else(|| lacks(ops.first().map_or(&Path::default(), PatchOp::path)))
    }

    fn get_mut(&mut self, segment: &PathSegment) -> Option<&mut Slot<'a>> {
        match (self, segment) {
            (Self::Document(document), PathSegment::Key(key)) => document.get_mut(key),
            (Self::Array(array), PathSegment::Index(index)) => array.get_mut(*index),
            _ => None,
        }
    }

    /// Applies an operation on the fields or elements of this container; `None` if it does not fit.
    fn edit(&mut self, op: &'a PatchOp) -> Option<()> {
        let last = op.path().segments().last();
        match (self, op, last) {
            (container, PatchOp::Set { value, .. }, Some(segment)) => {
                *container.get_mut(segment)? = value.into();
                Some(())
            }
            (Self::Document(document), PatchOp::Reorder { keys, .. }, _) => document.reorder(keys),
            (
                Self::Document(document),
                PatchOp::Add { value, before, .. },
                Some(PathSegment::Key(key)),
            ) => document.add(key, value.into(), before.as_deref()),
            (Self::Document(document), PatchOp::Remove { .. }, Some(PathSegment::Key(key))) => {
                document.remove(key)
            }
            (Self::Array(array), PatchOp::Insert { values, .. }, Some(PathSegment::Index(at))) => {
                array.insert(*at, values.iter().map(Slot::from))
            }
            (Self::Array(array), PatchOp::Cut { count, .. }, Some(PathSegment::Index(at))) => {
                array.cut(*at, *count)
            }
            _ => None,
        }
    }

    fn write(&self, writer: &mut Writer) {
        match self {
            Self::Document(document) => document.write(writer),
            Self::Array(array) => array.write(writer),
        }
    }
}
