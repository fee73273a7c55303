use bson::spec::ElementType;
use bson::{RawDocument, RawDocumentBuf};

use super::{Fields, corrupt};
use crate::error::Result;

/// Where the `Int64` under `key` lies in a document that begins with `first`; `None` for any other
/// document, one that has either key twice included.
pub(crate) fn int64_place(document: &RawDocument, first: &str, key: &str) -> Option<usize> {
    let mut place = None;
    for (position, field) in Fields::new(document).enumerate() {
        let field = field.ok()?;
        if (field.key == first) != (position == 0) {
            return None;
        }
        if field.key == key {
            let is_second = place.is_some();
            if is_second || field.value.kind != ElementType::Int64 {
                return None;
            }
            place = Some(field.value.bytes.as_ptr().addr() - document.as_bytes().as_ptr().addr());
        }
    }
    place
}

/// The document with another number at a [place](int64_place) of its own.
pub(crate) fn with_int64(
    document: RawDocumentBuf,
    place: usize,
    number: i64,
) -> Result<RawDocumentBuf> {
    let mut bytes = document.into_bytes();
    let field = bytes
        .get_mut(place..place + 8)
        .ok_or_else(|| corrupt("a number ends beyond its document"))?;
    field.copy_from_slice(&number.to_le_bytes());
    RawDocumentBuf::from_bytes(bytes).map_err(|e| corrupt("malformed document").with_source(e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;

    #[test]
    fn a_number_is_replaced_in_its_place() {
        let document = rawdoc! { "_id": "x", "a": { "version": 1_i64 }, "version": 7_i64, "b": 2 };
        let place = int64_place(&document, "_id", "version").unwrap();
        let changed = with_int64(document, place, -8).unwrap();
        let expected = rawdoc! { "_id": "x", "a": { "version": 1_i64 }, "version": -8_i64, "b": 2 };
        assert_eq!(changed.as_bytes(), expected.as_bytes());
    }

    #[test]
    fn other_documents_have_no_place() {
        let mut twice = rawdoc! { "_id": 1, "version": 1_i64 };
        twice.append(bson::raw::cstr!("version"), 2_i64);
        let mut second_id = rawdoc! { "_id": 1, "version": 1_i64 };
        second_id.append(bson::raw::cstr!("_id"), 2);
        for document in [
            rawdoc! { "_id": 1, "version": 1 },
            rawdoc! { "_id": 1, "a": { "version": 1_i64 } },
            rawdoc! { "version": 1_i64, "_id": 1 },
            rawdoc! { "version": 1_i64 },
            rawdoc! {},
            twice,
            second_id,
        ] {
            assert_eq!(
                int64_place(&document, "_id", "version"),
                None,
                "{document:?}"
            );
        }
        assert!(with_int64(rawdoc! {}, 3, 1).is_err());
    }
}
