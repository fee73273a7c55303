//! The order of BSON values, as MongoDB sorts them, and keys of bytes that sort the same way.
//!
//! Source: MongoDB manual, "Comparison/Sort Order". Finer than the manual, and as the server does
//! it: `Undefined` comes before `Null`.

mod number;

use std::cmp::Ordering;

use bson::spec::BinarySubtype;
use bson::{RawBinaryRef, RawBsonRef, RawDocument};

use super::raw::{MAX_DEPTH, with_raw};
use number::Number;

/// Compares two values. Arrays compare element by element, the shorter one first; MongoDB's `sort`
/// stage picks one element instead.
pub(crate) fn compare(a: RawBsonRef<'_>, b: RawBsonRef<'_>) -> Ordering {
    compare_at(a, b, 1)
}

fn compare_at(a: RawBsonRef<'_>, b: RawBsonRef<'_>, depth: usize) -> Ordering {
    let classes = class(a).cmp(&class(b));
    if classes.is_ne() {
        return classes;
    }
    match (a, b) {
        (RawBsonRef::Document(a), RawBsonRef::Document(b)) => documents(a, b, depth),
        (RawBsonRef::Array(a), RawBsonRef::Array(b)) => {
            let (a, b) = (a.as_bytes(), b.as_bytes());
            match (RawDocument::from_bytes(a), RawDocument::from_bytes(b)) {
                (Ok(a), Ok(b)) => documents(a, b, depth),
                _ => a.cmp(b),
            }
        }
        (RawBsonRef::Binary(a), RawBsonRef::Binary(b)) => {
            let key = |binary: RawBinaryRef<'_>| (stored_len(binary), u8::from(binary.subtype));
            key(a).cmp(&key(b)).then_with(|| a.bytes.cmp(b.bytes))
        }
        (RawBsonRef::ObjectId(a), RawBsonRef::ObjectId(b)) => a.bytes().cmp(&b.bytes()),
        (RawBsonRef::Boolean(a), RawBsonRef::Boolean(b)) => a.cmp(&b),
        (RawBsonRef::DateTime(a), RawBsonRef::DateTime(b)) => a.cmp(&b),
        (RawBsonRef::Timestamp(a), RawBsonRef::Timestamp(b)) => {
            (a.time, a.increment).cmp(&(b.time, b.increment))
        }
        (RawBsonRef::RegularExpression(a), RawBsonRef::RegularExpression(b)) => {
            let (left, right) = (a.pattern.as_str(), b.pattern.as_str());
            let options = || a.options.as_str().cmp(b.options.as_str());
            left.cmp(right).then_with(options)
        }
        (RawBsonRef::DbPointer(_), RawBsonRef::DbPointer(_)) => pointer(a).cmp(&pointer(b)),
        (RawBsonRef::JavaScriptCode(a), RawBsonRef::JavaScriptCode(b)) => a.cmp(b),
        (RawBsonRef::JavaScriptCodeWithScope(a), RawBsonRef::JavaScriptCodeWithScope(b)) => a
            .code
            .cmp(b.code)
            .then_with(|| documents(a.scope, b.scope, depth)),
        (
            RawBsonRef::String(a) | RawBsonRef::Symbol(a),
            RawBsonRef::String(b) | RawBsonRef::Symbol(b),
        ) => a.cmp(b),
        _ => match (Number::new(a), Number::new(b)) {
            (Some(a), Some(b)) => a.compare(b),
            _ => Ordering::Equal,
        },
    }
}

/// Field by field: types, then keys, then values; the document that ends first comes first.
fn documents(a: &RawDocument, b: &RawDocument, depth: usize) -> Ordering {
    if depth > MAX_DEPTH {
        return a.as_bytes().cmp(b.as_bytes());
    }
    let (mut left, mut right) = (a.iter(), b.iter());
    loop {
        let (left, right) = match (left.next(), right.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(Ok(left)), Some(Ok(right))) => (left, right),
            // Stored documents are well-formed; this only keeps the order total.
            _ => return a.as_bytes().cmp(b.as_bytes()),
        };
        let order = class(left.1)
            .cmp(&class(right.1))
            .then_with(|| left.0.as_str().cmp(right.0.as_str()))
            .then_with(|| compare_at(left.1, right.1, depth + 1));
        if order.is_ne() {
            return order;
        }
    }
}

/// The rank of a value's type; also the first byte of its key.
fn class(value: RawBsonRef<'_>) -> u8 {
    match value {
        RawBsonRef::MinKey => 0x01,
        RawBsonRef::Undefined => 0x08,
        RawBsonRef::Null => 0x10,
        RawBsonRef::Int32(_)
        | RawBsonRef::Int64(_)
        | RawBsonRef::Double(_)
        | RawBsonRef::Decimal128(_) => 0x18,
        RawBsonRef::String(_) | RawBsonRef::Symbol(_) => 0x20,
        RawBsonRef::Document(_) => 0x28,
        RawBsonRef::Array(_) => 0x30,
        RawBsonRef::Binary(_) => 0x38,
        RawBsonRef::ObjectId(_) => 0x40,
        RawBsonRef::Boolean(_) => 0x48,
        RawBsonRef::DateTime(_) => 0x50,
        RawBsonRef::Timestamp(_) => 0x58,
        RawBsonRef::RegularExpression(_) => 0x60,
        RawBsonRef::DbPointer(_) => 0x68,
        RawBsonRef::JavaScriptCode(_) => 0x70,
        RawBsonRef::JavaScriptCodeWithScope(_) => 0x78,
        RawBsonRef::MaxKey => 0xff,
    }
}

/// Appends a key whose bytes sort as [`compare`] sorts values.
///
/// No key is the beginning of another, so keys of several values can follow one another. Keys are
/// equal exactly for equal values, with these exceptions, whose keys never contradict the order but
/// tie: all documents share one key, and all arrays; JavaScript with scope counts by its code;
/// a `Decimal128` shares the key of the numbers next to it. Ties need `compare`.
///
/// The keys are stored in indexes: their form never changes.
///
/// | type | bytes after the type's rank |
/// |---|---|
/// | numbers | the largest double that is not larger, sortable, 8; what an integer has beyond it, 2 |
/// | strings, symbols, code | the text with `00` as `00 ff`, then `00 01` |
/// | regular expressions | pattern and options, each like a text |
/// | binary, DBPointer | length, 4; binary's subtype, 1; the content |
/// | ObjectId, boolean, date, timestamp | big-endian, signed ones with the sign bit flipped |
pub(crate) fn encode_key(value: RawBsonRef<'_>, key: &mut Vec<u8>) {
    key.push(class(value));
    match value {
        RawBsonRef::String(text) | RawBsonRef::Symbol(text) | RawBsonRef::JavaScriptCode(text) => {
            push_text(text, key);
        }
        RawBsonRef::JavaScriptCodeWithScope(code) => push_text(code.code, key),
        RawBsonRef::Binary(binary) => {
            key.extend(stored_len(binary).to_be_bytes());
            key.push(binary.subtype.into());
            key.extend(binary.bytes);
        }
        RawBsonRef::ObjectId(id) => key.extend(id.bytes()),
        RawBsonRef::Boolean(flag) => key.push(flag.into()),
        RawBsonRef::DateTime(date) => {
            key.extend((date.timestamp_millis() ^ i64::MIN).to_be_bytes());
        }
        RawBsonRef::Timestamp(timestamp) => {
            key.extend(timestamp.time.to_be_bytes());
            key.extend(timestamp.increment.to_be_bytes());
        }
        RawBsonRef::RegularExpression(regex) => {
            push_text(regex.pattern.as_str(), key);
            push_text(regex.options.as_str(), key);
        }
        RawBsonRef::DbPointer(_) => {
            let (len, bytes) = pointer(value);
            key.extend(len.to_be_bytes());
            key.extend(bytes);
        }
        RawBsonRef::MinKey
        | RawBsonRef::MaxKey
        | RawBsonRef::Undefined
        | RawBsonRef::Null
        | RawBsonRef::Document(_)
        | RawBsonRef::Array(_) => {}
        RawBsonRef::Int32(_)
        | RawBsonRef::Int64(_)
        | RawBsonRef::Double(_)
        | RawBsonRef::Decimal128(_) => {
            if let Some(number) = Number::new(value) {
                number.encode(key);
            }
        }
    }
}

fn push_text(text: &str, key: &mut Vec<u8>) {
    for byte in text.bytes() {
        key.push(byte);
        if byte == 0 {
            key.push(0xff);
        }
    }
    key.extend([0x00, 0x01]);
}

/// The content's length as stored: the old subtype repeats the length inside.
fn stored_len(binary: RawBinaryRef<'_>) -> u32 {
    let inner = if binary.subtype == BinarySubtype::BinaryOld {
        4
    } else {
        0
    };
    u32::try_from(binary.bytes.len() + inner).unwrap_or(u32::MAX)
}

/// A DBPointer's bytes, the length in front: the server compares them like this.
fn pointer(value: RawBsonRef<'_>) -> (u32, Vec<u8>) {
    let bytes = with_raw(value, |raw| Ok(raw.bytes.to_vec())).unwrap_or_default();
    (u32::try_from(bytes.len()).unwrap_or(u32::MAX), bytes)
}

#[cfg(test)]
mod tests;
