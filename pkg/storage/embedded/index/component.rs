//! The part of an index key that stands for one value.

use bson::RawBsonRef;

use crate::document::encode_key;

/// Stands for an array as a whole. No value's key begins with it.
pub(in crate::storage::embedded) const WHOLE_ARRAY: u8 = 0xfe;

/// Longer components are cut: long texts make the pages of a tree nearly empty.
const MAX_BYTES: usize = 1_024;

/// Appends what stands for a value, and tells whether only equal values have it. Components order as
/// values do, but values that order next to each other may share one; none is the beginning of
/// another.
pub(in crate::storage::embedded) fn append_component(
    value: RawBsonRef<'_>,
    key: &mut Vec<u8>,
) -> bool {
    let begin = key.len();
    encode_key(value, key);
    if key.len() - begin > MAX_BYTES {
        // A text's end mark lies behind the cut, so it is no beginning of another all the same.
        key.truncate(begin + MAX_BYTES);
        return false;
    }
    !matches!(
        value,
        RawBsonRef::Decimal128(_)
            | RawBsonRef::Document(_)
            | RawBsonRef::Array(_)
            | RawBsonRef::JavaScriptCodeWithScope(_)
    )
}
