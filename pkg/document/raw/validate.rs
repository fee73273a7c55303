use bson::RawDocument;
use bson::spec::{BinarySubtype, ElementType};

use super::lookup::duplicate;
use super::{
    Field, Fields, RawValue, code_and_scope, corrupt, deeper, fields, length_prefix, split_cstring,
};
use crate::document::Path;
use crate::error::{Error, ErrorKind, Result};

/// Refuses nesting beyond [`MAX_DEPTH`](super::MAX_DEPTH), the scopes of JavaScript included.
///
/// # Errors
/// `TooLarge`; `Corrupt` where the bytes cannot be walked.
pub(crate) fn check_depth(document: &RawDocument) -> Result<()> {
    walk_depth(RawValue::document(document), 1)
}

fn walk_depth(value: RawValue<'_>, depth: usize) -> Result<()> {
    for field in Fields::of(value)? {
        let value = field?.value;
        match value.kind {
            ElementType::EmbeddedDocument | ElementType::Array => {
                walk_depth(value, deeper(depth)?)?;
            }
            ElementType::JavaScriptCodeWithScope => {
                let (_, scope) = code_and_scope(value)
                    .ok_or_else(|| corrupt("malformed JavaScript with scope"))?;
                walk_depth(scope, deeper(depth)?)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Refuses documents that could not be stored and read back as they are.
///
/// # Errors
/// `Corrupt` for malformed bytes, `Serialization` for a key that a document has twice, `TooLarge`
/// for nesting beyond [`MAX_DEPTH`](super::MAX_DEPTH). The message names the path.
pub(crate) fn validate(document: &RawDocument) -> Result<()> {
    let mut trail = Vec::new();
    walk(RawValue::document(document), 1, &mut trail)
}

/// `trail` is the path of `value`, and of the failing value when this fails.
fn walk<'a>(value: RawValue<'a>, depth: usize, trail: &mut Vec<&'a str>) -> Result<()> {
    let fields = fields(value).map_err(|e| e.context(shown(trail)))?;
    if let Some(key) = duplicate(&fields) {
        trail.push(key);
        return Err(Error::new(
            ErrorKind::Serialization,
            format!("duplicate key {}", shown(trail)),
        ));
    }
    for Field { key, value } in fields {
        trail.push(key);
        match value.kind {
            ElementType::EmbeddedDocument | ElementType::Array => {
                walk(value, deeper(depth)?, trail)?;
            }
            ElementType::JavaScriptCodeWithScope => {
                let (code, scope) = code_and_scope(value).ok_or_else(|| wrong(value, trail))?;
                std::str::from_utf8(code).map_err(|e| wrong(value, trail).with_source(e))?;
                walk(scope, deeper(depth)?, trail)?;
            }
            _ if is_scalar_valid(value) => {}
            _ => return Err(wrong(value, trail)),
        }
        trail.pop();
    }
    Ok(())
}

/// Whether a value, whose length is right, has the content that its type asks for.
fn is_scalar_valid(value: RawValue<'_>) -> bool {
    let bytes = value.bytes;
    let is_text = |text: Option<&[u8]>| text.is_some_and(|t| std::str::from_utf8(t).is_ok());
    match value.kind {
        ElementType::String | ElementType::Symbol | ElementType::JavaScriptCode => {
            is_text(bytes.get(4..bytes.len() - 1))
        }
        ElementType::DbPointer => is_text(bytes.get(4..bytes.len() - 13)),
        ElementType::RegularExpression => split_cstring(bytes).is_some_and(|(pattern, rest)| {
            is_text(Some(pattern)) && is_text(rest.get(..rest.len() - 1))
        }),
        ElementType::Boolean => matches!(bytes, [0 | 1]),
        // The old subtype repeats the length of its content inside.
        ElementType::Binary if bytes.get(4) == Some(&u8::from(BinarySubtype::BinaryOld)) => bytes
            .get(5..)
            .is_some_and(|inner| length_prefix(inner).is_some_and(|len| len + 4 == inner.len())),
        _ => true,
    }
}

fn wrong(value: RawValue<'_>, trail: &[&str]) -> Error {
    corrupt(format!("malformed {:?} {}", value.kind, shown(trail)))
}

fn shown(trail: &[&str]) -> String {
    if trail.is_empty() {
        return "at the top of the document".to_owned();
    }
    let path: Path = trail.iter().copied().collect();
    format!("at {path}")
}
