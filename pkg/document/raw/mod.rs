//! Raw BSON as the rest of this room sees it: elements as slices of the document's own bytes.
//!
//! `bson`'s iterators parse values; here most values are only compared and copied, which needs
//! their type and their bytes. Layout: <https://bsonspec.org/spec.html>.

mod lockstep;
mod lookup;
mod number;
mod validate;
mod writer;

use std::fmt;

use bson::spec::ElementType;
use bson::{Bson, RawDocument, RawDocumentBuf};

use crate::error::{Error, ErrorKind, Result};

pub(crate) use lockstep::{Lockstep, lockstep};
pub(crate) use lookup::{Finder, duplicate, match_fields};
pub(crate) use number::{int64_place, with_int64};
pub(crate) use validate::{check_depth, validate};
pub(crate) use writer::{Counter, Writer};

/// The deepest nesting that is accepted, the document itself being level 1. The server refuses at
/// 180 to 200 levels, and a log entry wraps the document in a few more.
pub(crate) const MAX_DEPTH: usize = 160;

/// The level below `depth`; every recursion of this room goes through here.
pub(crate) fn deeper(depth: usize) -> Result<usize> {
    if depth < MAX_DEPTH {
        Ok(depth + 1)
    } else {
        Err(Error::new(
            ErrorKind::TooLarge,
            format!("document is nested more than {MAX_DEPTH} levels deep"),
        ))
    }
}

pub(crate) fn corrupt(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, what)
}

/// A value as it lies in a document. Equality is equality of type and bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct RawValue<'a> {
    pub(crate) kind: ElementType,
    pub(crate) bytes: &'a [u8],
}

impl<'a> RawValue<'a> {
    pub(crate) fn document(document: &'a RawDocument) -> Self {
        Self {
            kind: ElementType::EmbeddedDocument,
            bytes: document.as_bytes(),
        }
    }

    pub(crate) fn is_document(self) -> bool {
        self.kind == ElementType::EmbeddedDocument
    }

    pub(crate) fn is_array(self) -> bool {
        self.kind == ElementType::Array
    }

    /// The same value for hash maps; `ElementType` does not hash.
    pub(crate) fn identity(self) -> (u8, &'a [u8]) {
        (self.kind as u8, self.bytes)
    }

    /// The text of a string that can be a key.
    pub(crate) fn as_key(self) -> Option<&'a str> {
        let text = self.as_str()?;
        (!text.contains('\0')).then_some(text)
    }

    pub(crate) fn as_str(self) -> Option<&'a str> {
        if self.kind != ElementType::String {
            return None;
        }
        let (_, text) = self.bytes.split_at_checked(4)?;
        std::str::from_utf8(text.split_last()?.1).ok()
    }

    /// An integer that is not negative.
    pub(crate) fn as_count(self) -> Option<usize> {
        match self.kind {
            ElementType::Int32 => usize::try_from(i32::from_le_bytes(self.chunk()?)).ok(),
            ElementType::Int64 => usize::try_from(i64::from_le_bytes(self.chunk()?)).ok(),
            _ => None,
        }
    }

    pub(crate) fn chunk<const N: usize>(self) -> Option<[u8; N]> {
        self.bytes.first_chunk::<N>().copied()
    }

    /// The value on its own, as the only element of a document, with an empty key.
    fn wrapped(self) -> Result<RawDocumentBuf> {
        let mut writer = Writer::with_capacity(self.bytes.len() + 7);
        let start = writer.open();
        writer.field("", self);
        writer.close(start)?;
        writer.into_document()
    }

    pub(crate) fn to_bson(self) -> Result<Bson> {
        let document = self.wrapped()?;
        // The conversion below recurses without a bound of its own.
        check_depth(&document)?;
        let value = document.get("").map_err(malformed)?;
        let value = value.ok_or_else(|| corrupt("value without bytes"))?;
        value.try_into().map_err(malformed)
    }
}

impl fmt::Debug for RawValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of {} bytes", self.kind, self.bytes.len())
    }
}

fn malformed(source: bson::error::Error) -> Error {
    corrupt("malformed BSON value").with_source(source)
}

/// A value with its type and bytes, owned: what patches keep. Shows its size, never its content.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct OwnedValue {
    kind: ElementType,
    bytes: Box<[u8]>,
}

impl OwnedValue {
    pub(crate) fn as_raw(&self) -> RawValue<'_> {
        RawValue {
            kind: self.kind,
            bytes: &self.bytes,
        }
    }
}

impl From<RawValue<'_>> for OwnedValue {
    fn from(value: RawValue<'_>) -> Self {
        Self {
            kind: value.kind,
            bytes: value.bytes.into(),
        }
    }
}

impl fmt::Debug for OwnedValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_raw().fmt(f)
    }
}

/// Runs `f` on the bytes of a parsed value.
#[cfg(feature = "embedded")]
pub(crate) fn with_raw<R>(
    value: bson::RawBsonRef<'_>,
    f: impl FnOnce(RawValue<'_>) -> Result<R>,
) -> Result<R> {
    use bson::RawBsonRef;

    match value {
        RawBsonRef::Document(document) => f(RawValue::document(document)),
        RawBsonRef::Array(array) => f(RawValue {
            kind: ElementType::Array,
            bytes: array.as_bytes(),
        }),
        other => {
            let mut document = RawDocumentBuf::new();
            document.append(bson::raw::cstr!(""), other);
            let field = Fields::new(&document).next();
            f(field.ok_or_else(|| corrupt("value without bytes"))??.value)
        }
    }
}

/// One element of a document.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field<'a> {
    pub(crate) key: &'a str,
    pub(crate) value: RawValue<'a>,
}

/// The elements of a document in their order; ends after the first error.
#[derive(Debug, Clone)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn new(document: &'a RawDocument) -> Self {
        Self {
            rest: document.as_bytes().get(4..).unwrap_or_default(),
        }
    }

    /// The elements of an embedded document or array.
    pub(crate) fn of(value: RawValue<'a>) -> Result<Self> {
        let document = RawDocument::from_bytes(value.bytes).map_err(malformed)?;
        Ok(Self::new(document))
    }

    fn advance(&mut self) -> Result<Option<Field<'a>>> {
        let (tag, tail) = match self.rest {
            [0] => return Ok(None),
            [] => return Err(corrupt("document without its last byte")),
            [tag, tail @ ..] => (*tag, tail),
        };
        let kind = ElementType::from(tag)
            .ok_or_else(|| corrupt(format!("unknown BSON element type 0x{tag:02x}")))?;
        let (key, tail) =
            split_cstring(tail).ok_or_else(|| corrupt("element key without its end"))?;
        let key = std::str::from_utf8(key)
            .map_err(|e| corrupt("element key is not UTF-8").with_source(e))?;
        let value = value_len(kind, tail).and_then(|len| tail.split_at_checked(len));
        let (bytes, rest) =
            value.ok_or_else(|| corrupt(format!("value of {key:?} exceeds its document")))?;
        self.rest = rest;
        Ok(Some(Field {
            key,
            value: RawValue { kind, bytes },
        }))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.advance().transpose();
        if matches!(item, Some(Err(_))) {
            self.rest = &[0];
        }
        item
    }
}

/// The elements of a document or array value.
pub(crate) fn fields(value: RawValue<'_>) -> Result<Vec<Field<'_>>> {
    // Half a dozen elements per hundred bytes is usual; a low guess only costs a reallocation.
    let mut list = Vec::with_capacity(value.bytes.len() / 24 + 1);
    for field in Fields::of(value)? {
        list.push(field?);
    }
    Ok(list)
}

/// The elements of an array; `None` if its keys are not 0, 1, 2, …, which some programs write and
/// which a rebuilt array would lose.
pub(crate) fn elements(value: RawValue<'_>) -> Result<Option<Vec<RawValue<'_>>>> {
    let mut counter = Counter::default();
    let mut list = Vec::with_capacity(value.bytes.len() / 24 + 1);
    for field in Fields::of(value)? {
        let field = field?;
        if field.key.as_bytes() != counter.digits() {
            return Ok(None);
        }
        counter.increment();
        list.push(field.value);
    }
    Ok(Some(list))
}

pub(crate) fn split_cstring(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some((bytes.get(..end)?, bytes.get(end + 1..)?))
}

pub(crate) fn length_prefix(bytes: &[u8]) -> Option<usize> {
    let prefix = bytes.first_chunk::<4>()?;
    usize::try_from(i32::from_le_bytes(*prefix)).ok()
}

/// How many of `bytes` belong to a value of type `kind` at their start.
fn value_len(kind: ElementType, bytes: &[u8]) -> Option<usize> {
    let string = || {
        let len = 4 + length_prefix(bytes).filter(|len| *len > 0)?;
        (bytes.get(len - 1) == Some(&0)).then_some(len)
    };
    match kind {
        ElementType::Null | ElementType::Undefined | ElementType::MinKey | ElementType::MaxKey => {
            Some(0)
        }
        ElementType::Boolean => Some(1),
        ElementType::Int32 => Some(4),
        ElementType::Double
        | ElementType::Int64
        | ElementType::DateTime
        | ElementType::Timestamp => Some(8),
        ElementType::ObjectId => Some(12),
        ElementType::Decimal128 => Some(16),
        ElementType::String | ElementType::Symbol | ElementType::JavaScriptCode => string(),
        ElementType::DbPointer => Some(string()? + 12),
        ElementType::EmbeddedDocument | ElementType::Array => {
            let len = length_prefix(bytes).filter(|len| *len >= 5)?;
            (bytes.get(len - 1) == Some(&0)).then_some(len)
        }
        ElementType::Binary => Some(length_prefix(bytes)? + 5),
        ElementType::RegularExpression => {
            let (pattern, rest) = split_cstring(bytes)?;
            let (options, _) = split_cstring(rest)?;
            Some(pattern.len() + options.len() + 2)
        }
        // Its own length, a string of at least 5 bytes and a document of at least 5.
        ElementType::JavaScriptCodeWithScope => length_prefix(bytes).filter(|len| *len >= 14),
    }
}

/// The code and the scope document of a JavaScript value with scope.
pub(crate) fn code_and_scope(value: RawValue<'_>) -> Option<(&[u8], RawValue<'_>)> {
    let string = value.bytes.get(4..)?;
    let len = value_len(ElementType::String, string)?;
    let (code, scope) = string.split_at_checked(len)?;
    RawDocument::from_bytes(scope).ok()?;
    let scope = RawValue {
        kind: ElementType::EmbeddedDocument,
        bytes: scope,
    };
    Some((code.get(4..len - 1)?, scope))
}

/// The value at a path of keys and indexes.
pub(crate) fn get<'a>(
    document: &'a RawDocument,
    path: &[super::PathSegment],
) -> Result<Option<RawValue<'a>>> {
    let mut value = RawValue::document(document);
    for segment in path {
        let next = match segment {
            super::PathSegment::Key(key) if value.is_document() => Fields::of(value)?
                .find(|field| !matches!(field, Ok(field) if field.key != key.as_str())),
            super::PathSegment::Index(index) if value.is_array() => Fields::of(value)?.nth(*index),
            _ => None,
        };
        match next {
            Some(field) => value = field?.value,
            None => return Ok(None),
        }
    }
    Ok(Some(value))
}

#[cfg(test)]
mod tests;
