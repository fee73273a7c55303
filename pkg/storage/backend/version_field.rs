use bson::{RawBsonRef, RawDocument};

use crate::document::Version;
use crate::error::{Error, ErrorKind, Result};

/// Reads the version of a stored document: `None` when it has no such field.
///
/// Other programs may have written the number as any of the three numeric types that hold integers, so
/// all of them count.
///
/// # Errors
/// `Corrupt`, naming the type found, for a field that is no version: another type, a fraction, a
/// negative number. Callers put the document's key in front with [`Error::context`].
pub fn version_of(document: &RawDocument, field: &str) -> Result<Option<Version>> {
    let value = document.get(field).map_err(|e| {
        Error::new(ErrorKind::Corrupt, "document does not read back").with_source(e)
    })?;
    let number = match value {
        None => return Ok(None),
        Some(RawBsonRef::Int32(number)) => Some(i64::from(number)),
        Some(RawBsonRef::Int64(number)) => Some(number),
        // 2^53: above it a double no longer tells neighbouring integers apart.
        Some(RawBsonRef::Double(number))
            if number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0 =>
        {
            Some(number as i64)
        }
        Some(_) => None,
    };
    match (number, value) {
        (Some(number), _) if number >= 0 => Ok(Some(Version::new(number as u64))),
        (Some(_), _) => Err(unusable(field, "a negative number")),
        (None, Some(RawBsonRef::Double(_))) => Err(unusable(field, "a number that is no integer")),
        (None, found) => Err(unusable(
            field,
            &found.map_or_else(
                || "nothing".to_owned(),
                |value| format!("type {:?}", value.element_type()),
            ),
        )),
    }
}

fn unusable(field: &str, found: &str) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        format!("version field {field:?} must be an integer, found {found}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;

    #[test]
    fn all_integers_are_versions() {
        for document in [
            rawdoc! { "v": 7_i32 },
            rawdoc! { "v": 7_i64 },
            rawdoc! { "v": 7.0 },
        ] {
            assert_eq!(version_of(&document, "v").unwrap(), Some(Version::new(7)));
        }
        assert_eq!(version_of(&rawdoc! { "w": 7 }, "v").unwrap(), None);
    }

    #[test]
    fn anything_else_is_corrupt_and_named() {
        for (document, found) in [
            (rawdoc! { "v": "7" }, "String"),
            (rawdoc! { "v": null }, "Null"),
            (rawdoc! { "v": 7.5 }, "no integer"),
            (rawdoc! { "v": f64::NAN }, "no integer"),
            (rawdoc! { "v": -1 }, "negative"),
        ] {
            let error = version_of(&document, "v").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(error.to_string().contains(found), "{error}");
        }
    }
}
