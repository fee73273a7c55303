//! Plain JSON into BSON, key order kept.
//!
//! Never Extended JSON: keys such as `$ref` are data. Integers become `Int32` or `Int64`; one that fits
//! neither is an error, since a double would silently be another number.

use std::fmt;

use bson::{Bson, Document};
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};

/// Why a text has no BSON form, and where.
#[derive(Debug, PartialEq)]
pub(crate) struct Unfit {
    /// A JSON pointer; empty if the text is no JSON.
    pub(crate) path: String,
    pub(crate) reason: String,
}

/// Parses one JSON text.
pub(crate) fn parse(text: &str) -> Result<Bson, Unfit> {
    let mut state = State::default();
    let mut json = serde_json::Deserializer::from_str(text);
    let value = Value(&mut state).deserialize(&mut json);
    let value = value.and_then(|value| json.end().map(|()| value));
    let value = value.map_err(|e| Unfit {
        path: state.failed.take().unwrap_or_default(),
        reason: e.to_string(),
    })?;
    if state.huge.is_empty() {
        return Ok(value);
    }
    // The parser turns integers beyond 64 bits into doubles; only the text tells them from doubles.
    let huge = HugeNumbers {
        rest: text.as_bytes(),
    };
    match state
        .huge
        .into_iter()
        .zip(huge)
        .find(|(_, is_integer)| *is_integer)
    {
        Some((path, _)) => Err(Unfit {
            path,
            reason: OVERFLOW.to_owned(),
        }),
        None => Ok(value),
    }
}

const OVERFLOW: &str = "integer does not fit 64 signed bits";

/// From here on a double cannot be told from an integer that was too large.
const HUGE: f64 = 9_223_372_036_854_775_808.0;

#[derive(Default)]
struct State {
    path: String,
    failed: Option<String>,
    /// Where huge numbers were found, in the order of the text.
    huge: Vec<String>,
}

impl State {
    fn fail<E: serde::de::Error>(&mut self, reason: &str) -> E {
        self.failed = Some(self.path.clone());
        E::custom(reason)
    }

    fn within<R>(&mut self, step: fmt::Arguments<'_>, f: impl FnOnce(&mut Self) -> R) -> R {
        use fmt::Write;
        let length = self.path.len();
        // Writing to a string cannot fail.
        let _ = write!(self.path, "/{step}");
        let result = f(self);
        self.path.truncate(length);
        result
    }
}

struct Value<'a>(&'a mut State);

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = Bson;

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<Bson, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = Bson;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Bson, E> {
        Ok(Bson::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Bson, E> {
        Ok(Bson::Boolean(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Bson, E> {
        Ok(i32::try_from(value).map_or(Bson::Int64(value), Bson::Int32))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Bson, E> {
        match i64::try_from(value) {
            Ok(value) => self.visit_i64(value),
            Err(_) => Err(self.0.fail(OVERFLOW)),
        }
    }

    fn visit_f64<E>(self, value: f64) -> Result<Bson, E> {
        if value.abs() >= HUGE {
            self.0.huge.push(self.0.path.clone());
        }
        Ok(Bson::Double(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Bson, E> {
        Ok(Bson::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Bson, A::Error> {
        let mut array = Vec::new();
        loop {
            let index = array.len();
            let item = self.0.within(format_args!("{index}"), |state| {
                items.next_element_seed(Value(state))
            })?;
            match item {
                Some(item) => array.push(item),
                None => return Ok(Bson::Array(array)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Bson, A::Error> {
        let mut document = Document::new();
        while let Some(key) = fields.next_key::<String>()? {
            let escaped = key.replace('~', "~0").replace('/', "~1");
            let value = self.0.within(format_args!("{escaped}"), |state| {
                if key.contains('\0') {
                    return Err(state.fail("key with a NUL character"));
                }
                if document.contains_key(&key) {
                    return Err(state.fail("duplicate key"));
                }
                fields.next_value_seed(Value(state))
            })?;
            document.insert(key, value);
        }
        Ok(Bson::Document(document))
    }
}

/// The numbers in a valid JSON text whose magnitude is huge: whether each is written as an integer.
struct HugeNumbers<'a> {
    rest: &'a [u8],
}

impl Iterator for HugeNumbers<'_> {
    type Item = bool;

    fn next(&mut self) -> Option<bool> {
        loop {
            let (&first, rest) = self.rest.split_first()?;
            self.rest = rest;
            if first == b'"' {
                self.skip_string();
            } else if first == b'-' || first.is_ascii_digit() {
                let is_part = |byte: &u8| byte.is_ascii_digit() || b".eE+-".contains(byte);
                let length = rest.iter().take_while(|byte| is_part(byte)).count();
                let (tail, after) = rest.split_at(length);
                self.rest = after;
                let number: Vec<u8> = std::iter::once(first).chain(tail.iter().copied()).collect();
                let number = String::from_utf8_lossy(&number);
                let value: f64 = number.parse().ok()?;
                let is_integer = !number.contains(['.', 'e', 'E']);
                // Integers that fit were not seen as doubles.
                if value.abs() >= HUGE && !(is_integer && number.parse::<i64>().is_ok()) {
                    return Some(is_integer);
                }
            }
        }
    }
}

impl HugeNumbers<'_> {
    fn skip_string(&mut self) {
        while let Some((&byte, rest)) = self.rest.split_first() {
            self.rest = rest;
            match byte {
                b'"' => return,
                b'\\' => self.rest = self.rest.get(1..).unwrap_or_default(),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{bson, doc};

    #[test]
    fn keeps_order_types_and_dollar_keys() {
        let value =
            parse(r#"{"z": 1, "$ref": "x", "a": [1.0, -1, null, 3000000000, 1e300], "": {}}"#);
        let expected = doc! {
            "z": 1_i32, "$ref": "x", "a": [1.0, -1_i32, null, 3_000_000_000_i64, 1e300], "": {},
        };
        let Bson::Document(value) = value.unwrap() else {
            panic!("no document");
        };
        assert_eq!(
            value.keys().collect::<Vec<_>>(),
            expected.keys().collect::<Vec<_>>()
        );
        assert_eq!(value, expected);
        assert_eq!(parse("9223372036854775807").unwrap(), bson!(i64::MAX));
        assert_eq!(parse("-9223372036854775808").unwrap(), bson!(i64::MIN));
    }

    #[test]
    fn integers_that_do_not_fit_are_named_by_path() {
        for (text, path) in [
            (r#"{"a": 18446744073709551615}"#, "/a"),
            (
                r#"{"s": "99999999999999999999\"", "a": [1e30, {"b/c": 99999999999999999999}]}"#,
                "/a/1/b~1c",
            ),
            (r#"[-9223372036854775809]"#, "/0"),
        ] {
            let unfit = parse(text).unwrap_err();
            assert_eq!(unfit.path, path);
            assert!(unfit.reason.contains("64 signed bits"), "{}", unfit.reason);
        }
    }

    #[test]
    fn what_is_no_json_is_an_error() {
        for text in [
            "",
            "{",
            "{} x",
            "nul",
            "\"\\u12\"",
            "{\"a\":1,\"a\":2}",
            "{\"a\\u0000\":1}",
            "1e999",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        // The parser's own recursion limit keeps the stack safe.
        assert!(parse(&"[".repeat(100_000)).is_err());
    }
}
