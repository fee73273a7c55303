//! Plain JSON in BSON and back: what event payloads go through on their way into the log.
//!
//! Never Extended JSON: `{"$date": …}` in a payload is data with an odd key, not a date.

use bson::{Bson, Document};
use serde_json::{Map, Number, Value};

use crate::error::{Error, ErrorKind, Result};

/// The BSON form of a JSON value: integers become `Int32` or `Int64`, other numbers `Double`.
///
/// # Errors
/// `Serialization`, naming the path, for integers above `i64::MAX` and keys with NUL.
pub(crate) fn to_bson(value: &Value) -> Result<Bson> {
    convert(value, &mut Vec::new())
}

fn convert<'a>(value: &'a Value, path: &mut Vec<Step<'a>>) -> Result<Bson> {
    Ok(match value {
        Value::Null => Bson::Null,
        Value::Bool(flag) => Bson::Boolean(*flag),
        Value::String(text) => Bson::String(text.clone()),
        Value::Number(number) => return number_to_bson(number, path),
        Value::Array(items) => {
            let mut array = Vec::with_capacity(items.len());
            for (index, item) in items.iter().enumerate() {
                path.push(Step::Index(index));
                array.push(convert(item, path)?);
                path.pop();
            }
            Bson::Array(array)
        }
        Value::Object(fields) => {
            let mut document = Document::new();
            for (key, value) in fields {
                path.push(Step::Key(key));
                if key.contains('\0') {
                    return Err(unfit(path, "key contains a NUL character"));
                }
                document.insert(key.clone(), convert(value, path)?);
                path.pop();
            }
            Bson::Document(document)
        }
    })
}

fn number_to_bson(number: &Number, path: &[Step<'_>]) -> Result<Bson> {
    if let Some(integer) = number.as_i64() {
        return Ok(i32::try_from(integer).map_or(Bson::Int64(integer), Bson::Int32));
    }
    if number.is_u64() {
        return Err(unfit(path, "integer does not fit 64 signed bits"));
    }
    number
        .as_f64()
        .filter(|double| double.is_finite())
        .map(Bson::Double)
        .ok_or_else(|| unfit(path, "number does not fit a double"))
}

enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

fn unfit(path: &[Step<'_>], reason: &str) -> Error {
    use std::fmt::Write;
    let mut pointer = String::new();
    for step in path {
        // Writing to a string cannot fail.
        let _ = match step {
            Step::Key(key) => write!(pointer, "/{}", key.replace('~', "~0").replace('/', "~1")),
            Step::Index(index) => write!(pointer, "/{index}"),
        };
    }
    Error::new(ErrorKind::Serialization, format!("{reason} at {pointer:?}"))
}

/// The JSON that [`to_bson`] made this from. Types that JSON lacks, which only a foreign writer can
/// have put there, become relaxed Extended JSON.
pub(crate) fn from_bson(value: Bson) -> Value {
    match value {
        Bson::Array(items) => Value::Array(items.into_iter().map(from_bson).collect()),
        Bson::Document(fields) => Value::Object(
            fields
                .into_iter()
                .map(|(key, value)| (key, from_bson(value)))
                .collect::<Map<_, _>>(),
        ),
        other => other.into_relaxed_extjson(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_survives() {
        let value = json!({
            "$date": "no date", "a.b": [null, true, "", {"": {}}], "big": i64::MAX, "neg": -1,
            "float": 1.0, "half": 0.5, "사용자": [],
        });
        let back = from_bson(to_bson(&value).unwrap());
        assert_eq!(back, value);
        assert!(back["float"].is_f64());
    }

    #[test]
    fn what_does_not_fit_is_named_by_path() {
        let error = to_bson(&json!({"a": [1, {"b/c": u64::MAX}]})).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Serialization);
        assert!(error.to_string().contains("/a/1/b~1c"), "{error}");
        assert!(to_bson(&json!({"a\0b": 1})).is_err());
    }
}
