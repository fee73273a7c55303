//! BSON as JSON: plain where JSON has the type, relaxed Extended JSON (v2) where it has not.
//!
//! Rules: MongoDB specifications, "Extended JSON". `Int64` becomes a plain number as well; NaN and
//! infinities become `{"$numberDouble": "NaN"}`.

use bson::spec::{BinarySubtype, ElementType};
use bson::{DateTime, Decimal128};
use serde_json::{Map, Value, json};

use super::raw::{Fields, RawValue, code_and_scope, corrupt, deeper, split_cstring};
use crate::error::{Error, Result};

/// Milliseconds from 1970 to the year 10,000, where ISO 8601 needs more digits.
const YEAR_10_000: i64 = 253_402_300_800_000;

/// Converts a value that lies `depth` levels deep.
pub(crate) fn to_json(value: RawValue<'_>, depth: usize) -> Result<Value> {
    Ok(match value.kind {
        ElementType::EmbeddedDocument => object(value, &[], deeper(depth)?)?.into(),
        ElementType::Array => {
            let depth = deeper(depth)?;
            let elements = Fields::of(value)?.map(|field| to_json(field?.value, depth));
            Value::Array(elements.collect::<Result<_>>()?)
        }
        ElementType::JavaScriptCodeWithScope => {
            let (code, scope) = code_and_scope(value).ok_or_else(|| malformed(value))?;
            json!({ "$code": text(value, code)?, "$scope": object(scope, &[], deeper(depth)?)? })
        }
        _ => scalar(value)?,
    })
}

/// Converts the fields of a document that itself is `depth` levels deep, but for those in `skip`.
pub(crate) fn object(
    document: RawValue<'_>,
    skip: &[&str],
    depth: usize,
) -> Result<Map<String, Value>> {
    let mut object = Map::new();
    for field in Fields::of(document)? {
        let field = field?;
        if !skip.contains(&field.key) {
            object.insert(field.key.to_owned(), to_json(field.value, depth)?);
        }
    }
    Ok(object)
}

fn scalar(value: RawValue<'_>) -> Result<Value> {
    let bytes = value.bytes;
    let wrong = || malformed(value);
    Ok(match value.kind {
        ElementType::Null => Value::Null,
        ElementType::Undefined => json!({ "$undefined": true }),
        ElementType::MinKey => json!({ "$minKey": 1 }),
        ElementType::MaxKey => json!({ "$maxKey": 1 }),
        ElementType::Boolean => (bytes == [1]).into(),
        ElementType::Int32 => i32::from_le_bytes(value.chunk().ok_or_else(wrong)?).into(),
        ElementType::Int64 => i64::from_le_bytes(value.chunk().ok_or_else(wrong)?).into(),
        ElementType::Double => double(f64::from_le_bytes(value.chunk().ok_or_else(wrong)?)),
        ElementType::DateTime => date(i64::from_le_bytes(value.chunk().ok_or_else(wrong)?)),
        ElementType::String => string(value)?.into(),
        ElementType::Symbol => json!({ "$symbol": string(value)? }),
        ElementType::JavaScriptCode => json!({ "$code": string(value)? }),
        ElementType::ObjectId => json!({ "$oid": hex(bytes) }),
        ElementType::Decimal128 => {
            let number = Decimal128::from_bytes(value.chunk().ok_or_else(wrong)?);
            json!({ "$numberDecimal": number.to_string() })
        }
        ElementType::Timestamp => {
            let both = u64::from_le_bytes(value.chunk().ok_or_else(wrong)?);
            json!({ "$timestamp": { "t": both >> 32, "i": both & 0xffff_ffff } })
        }
        ElementType::Binary => {
            let (subtype, content) = bytes
                .get(4..)
                .and_then(<[u8]>::split_first)
                .ok_or_else(wrong)?;
            let content = if *subtype == u8::from(BinarySubtype::BinaryOld) {
                content.get(4..).ok_or_else(wrong)?
            } else {
                content
            };
            json!({ "$binary": { "base64": base64(content), "subType": hex(&[*subtype]) } })
        }
        ElementType::RegularExpression => {
            let (pattern, rest) = split_cstring(bytes).ok_or_else(wrong)?;
            let (options, _) = split_cstring(rest).ok_or_else(wrong)?;
            let mut options: Vec<char> = text(value, options)?.chars().collect();
            options.sort_unstable();
            let options: String = options.into_iter().collect();
            json!({ "$regularExpression": { "pattern": text(value, pattern)?, "options": options } })
        }
        ElementType::DbPointer => {
            let (namespace, id) = bytes
                .len()
                .checked_sub(13)
                .and_then(|end| Some((bytes.get(4..end)?, bytes.get(end + 1..)?)))
                .ok_or_else(wrong)?;
            let namespace = text(value, namespace)?;
            json!({ "$dbPointer": { "$ref": namespace, "$id": { "$oid": hex(id) } } })
        }
        ElementType::EmbeddedDocument
        | ElementType::Array
        | ElementType::JavaScriptCodeWithScope => return Err(wrong()),
    })
}

fn double(number: f64) -> Value {
    let name = match number {
        n if n.is_nan() => "NaN",
        f64::INFINITY => "Infinity",
        f64::NEG_INFINITY => "-Infinity",
        n => return n.into(),
    };
    json!({ "$numberDouble": name })
}

fn date(millis: i64) -> Value {
    let text = (0..YEAR_10_000)
        .contains(&millis)
        .then(|| DateTime::from_millis(millis).try_to_rfc3339_string().ok());
    match text.flatten() {
        Some(text) => json!({ "$date": text }),
        None => json!({ "$date": { "$numberLong": millis.to_string() } }),
    }
}

fn string(value: RawValue<'_>) -> Result<&str> {
    let content = value.bytes.len().checked_sub(1);
    let content = content.and_then(|end| value.bytes.get(4..end));
    text(value, content.ok_or_else(|| malformed(value))?)
}

fn text<'a>(value: RawValue<'_>, bytes: &'a [u8]) -> Result<&'a str> {
    std::str::from_utf8(bytes).map_err(|e| malformed(value).with_source(e))
}

fn malformed(value: RawValue<'_>) -> Error {
    corrupt(format!("malformed {:?}", value.kind))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Base64 with padding, RFC 4648 section 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = (0..3).fold(0_u32, |group, at| {
            group << 8 | u32::from(chunk.get(at).copied().unwrap_or(0))
        });
        for digit in 0..4 {
            let index = group >> (18 - 6 * digit) & 63;
            text.push(if digit <= chunk.len() {
                char::from(DIGITS[index as usize])
            } else {
                '='
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use bson::{Bson, doc, rawdoc};

    use super::*;

    fn json(value: impl Into<Bson>) -> Value {
        let document = bson::RawDocumentBuf::try_from(doc! { "v": value.into() }).unwrap();
        let document = object(RawValue::document(&document), &[], 1).unwrap();
        document.get("v").unwrap().clone()
    }

    #[test]
    fn types_that_json_lacks_become_extended_json() {
        assert_eq!(json(7_i64), json!(7));
        assert_eq!(json(1.5), json!(1.5));
        assert_eq!(json(f64::NAN), json!({ "$numberDouble": "NaN" }));
        assert_eq!(
            json(f64::NEG_INFINITY),
            json!({ "$numberDouble": "-Infinity" })
        );
        assert_eq!(
            json(DateTime::from_millis(0)),
            json!({ "$date": "1970-01-01T00:00:00Z" })
        );
        assert_eq!(
            json(DateTime::from_millis(-1)),
            json!({ "$date": { "$numberLong": "-1" } })
        );
        assert_eq!(
            json(bson::oid::ObjectId::from_bytes([0xab; 12])),
            json!({ "$oid": "ab".repeat(12) })
        );
        assert_eq!(
            json(bson::Timestamp {
                time: 5,
                increment: 6
            }),
            json!({ "$timestamp": { "t": 5, "i": 6 } })
        );
        for (bytes, text) in [("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("", "")] {
            let binary = bson::Binary {
                subtype: BinarySubtype::BinaryOld,
                bytes: bytes.into(),
            };
            assert_eq!(
                json(binary),
                json!({ "$binary": { "base64": text, "subType": "02" } })
            );
        }
    }

    #[test]
    fn skipped_fields_are_left_out_at_the_top_only() {
        let document = rawdoc! { "a": { "b": 1 }, "b": 2 };
        let object = object(RawValue::document(&document), &["b"], 1).unwrap();
        assert_eq!(Value::from(object), json!({ "a": { "b": 1 } }));
    }
}
