//! Keys of the tables, whose order as bytes is the order of what they stand for.

use crate::document::{DocumentId, DocumentKey};

/// The types of ids, in BSON order.
pub(super) const INT: u8 = 0x10;
pub(super) const STRING: u8 = 0x20;
pub(super) const UUID: u8 = 0x30;
pub(super) const OBJECT_ID: u8 = 0x40;

/// A document's key: its collection, a zero byte, its id.
pub(super) fn document_key(key: &DocumentKey) -> Vec<u8> {
    let mut bytes = collection_prefix(key.collection());
    append_id(key.id(), &mut bytes);
    bytes
}

/// What the keys of a collection's documents begin with. Names hold no zero byte, so no prefix is the
/// beginning of another.
pub(super) fn collection_prefix(collection: &str) -> Vec<u8> {
    // 32 more: most ids fit without growing.
    let mut bytes = Vec::with_capacity(collection.len() + 33);
    bytes.extend_from_slice(collection.as_bytes());
    bytes.push(0);
    bytes
}

/// Appends an id. It always comes last in a key, so strings need no end.
pub(super) fn append_id(id: &DocumentId, bytes: &mut Vec<u8>) {
    match id {
        DocumentId::Int(number) => {
            bytes.push(INT);
            // The flipped sign bit puts negative numbers first.
            bytes.extend_from_slice(&(number ^ i64::MIN).to_be_bytes());
        }
        DocumentId::String(text) => {
            bytes.push(STRING);
            bytes.extend_from_slice(text.as_bytes());
        }
        DocumentId::Uuid(uuid) => {
            bytes.push(UUID);
            bytes.extend_from_slice(uuid.as_bytes());
        }
        DocumentId::ObjectId(id) => {
            bytes.push(OBJECT_ID);
            bytes.extend_from_slice(&id.bytes());
        }
    }
}

/// A record's key: its kind, a zero byte, its own key.
pub(super) fn record_key(kind: &str, key: &str) -> Vec<u8> {
    let mut bytes = collection_prefix(kind);
    bytes.extend_from_slice(key.as_bytes());
    bytes
}

/// The first key that is above all keys with this prefix; `None` when there is no such key.
pub(super) fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::oid::ObjectId;
    use uuid::Uuid;

    #[test]
    fn keys_order_as_ids_do() {
        let mut ids = vec![
            DocumentId::from(i64::MIN),
            DocumentId::from(-1),
            DocumentId::from(0),
            DocumentId::from(i64::MAX),
            DocumentId::from("a"),
            DocumentId::from("a\u{1}"),
            DocumentId::from("b"),
            DocumentId::from(Uuid::from_u128(7)),
            DocumentId::from(ObjectId::from_bytes([9; 12])),
        ];
        let keys: Vec<_> = ids
            .iter()
            .map(|id| document_key(&DocumentKey::new("c", id)))
            .collect();
        assert!(keys.is_sorted());
        ids.sort();
        assert!(ids.is_sorted());
    }

    #[test]
    fn a_collection_ends_before_the_next() {
        let end = after_prefix(&collection_prefix("users")).unwrap();
        assert!(document_key(&DocumentKey::new("users", "\u{10ffff}")) < end);
        assert!(document_key(&DocumentKey::new("users2", "a")) >= end);
        assert_eq!(after_prefix(&[0xff, 0xff]), None);
    }
}
