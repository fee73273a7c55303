use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use bson::oid::ObjectId;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, RawBson, RawBsonRef};
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};

/// The longest string id, in bytes: index keys, broker subjects and log keys carry it.
pub(crate) const MAX_ID_BYTES: usize = 1_024;

/// The longest collection name, in bytes: MongoDB bounds `database.collection` at 255 bytes, and
/// database names at 63.
pub(crate) const MAX_COLLECTION_BYTES: usize = 190;

/// The identity of a document within its collection: the value of its `_id`.
///
/// MongoDB takes the integers `1`, `1i64` and the double `1.0` for one id, so all three are
/// [`Int`](Self::Int) here. Ids order as BSON orders them: integers, strings, UUIDs, ObjectIds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum DocumentId {
    /// An integer; stored as `Int32` where it fits, as drivers do, else as `Int64`.
    Int(i64),
    /// A string of 1 to 1,024 bytes without NUL.
    String(Arc<str>),
    /// A UUID; stored as binary of subtype 4.
    Uuid(Uuid),
    /// An ObjectId.
    ObjectId(ObjectId),
}

impl DocumentId {
    /// Reads the id that a stored `_id` stands for.
    ///
    /// # Errors
    /// `InvalidName` for types that are no id: fractions, documents, dates, and the rest.
    pub fn from_bson(value: RawBsonRef<'_>) -> Result<Self> {
        match value {
            RawBsonRef::Int32(number) => Ok(Self::Int(number.into())),
            RawBsonRef::Int64(number) => Ok(Self::Int(number)),
            // 2^53: every integer up to it has exactly one double.
            RawBsonRef::Double(number)
                if number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0 =>
            {
                Ok(Self::Int(number as i64))
            }
            RawBsonRef::String(text) => Ok(Self::String(text.into())),
            RawBsonRef::ObjectId(id) => Ok(Self::ObjectId(id)),
            RawBsonRef::Binary(binary)
                if binary.subtype == BinarySubtype::Uuid && binary.bytes.len() == 16 =>
            {
                Uuid::from_slice(binary.bytes).map(Self::Uuid).map_err(|e| {
                    Error::new(ErrorKind::InvalidName, "malformed UUID").with_source(e)
                })
            }
            other => Err(Error::new(
                ErrorKind::InvalidName,
                format!(
                    "a document id must be a string, integer, ObjectId or UUID, found {:?}",
                    other.element_type()
                ),
            )),
        }
    }

    /// The value to store as `_id`.
    #[must_use]
    pub fn to_raw(&self) -> RawBson {
        match self {
            Self::Int(number) => match i32::try_from(*number) {
                Ok(small) => RawBson::Int32(small),
                Err(_) => RawBson::Int64(*number),
            },
            Self::String(text) => RawBson::String(text.to_string()),
            Self::ObjectId(id) => RawBson::ObjectId(*id),
            Self::Uuid(uuid) => RawBson::Binary(Binary {
                subtype: BinarySubtype::Uuid,
                bytes: uuid.as_bytes().to_vec(),
            }),
        }
    }

    /// Refuses ids that a backend or broker cannot carry.
    pub(crate) fn validate(&self) -> Result<()> {
        let Self::String(text) = self else {
            return Ok(());
        };
        let reason = if text.is_empty() {
            "is empty".to_owned()
        } else if text.len() > MAX_ID_BYTES {
            format!(
                "has {} bytes, at most {MAX_ID_BYTES} are allowed",
                text.len()
            )
        } else if text.contains('\0') {
            "contains a NUL character".to_owned()
        } else {
            return Ok(());
        };
        Err(Error::new(
            ErrorKind::InvalidName,
            format!("document id {reason}"),
        ))
    }
}

impl fmt::Display for DocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(number) => number.fmt(f),
            Self::String(text) => f.write_str(text),
            Self::ObjectId(id) => id.fmt(f),
            Self::Uuid(uuid) => uuid.fmt(f),
        }
    }
}

macro_rules! id_from {
    ($($from:ty => |$value:ident| $to:expr;)*) => {$(
        impl From<$from> for DocumentId {
            fn from($value: $from) -> Self {
                $to
            }
        }
    )*};
}

id_from! {
    &str => |value| Self::String(value.into());
    &String => |value| Self::String(value.as_str().into());
    String => |value| Self::String(value.into());
    Arc<str> => |value| Self::String(value);
    i32 => |value| Self::Int(value.into());
    u32 => |value| Self::Int(value.into());
    i64 => |value| Self::Int(value);
    ObjectId => |value| Self::ObjectId(value);
    Uuid => |value| Self::Uuid(value);
    &DocumentId => |value| value.clone();
}

impl From<DocumentId> for Bson {
    fn from(id: DocumentId) -> Self {
        match id {
            DocumentId::Int(number) => match i32::try_from(number) {
                Ok(small) => Self::Int32(small),
                Err(_) => Self::Int64(number),
            },
            DocumentId::String(text) => Self::String(text.to_string()),
            DocumentId::ObjectId(id) => Self::ObjectId(id),
            DocumentId::Uuid(uuid) => Self::Binary(Binary {
                subtype: BinarySubtype::Uuid,
                bytes: uuid.as_bytes().to_vec(),
            }),
        }
    }
}

/// A document's address within a store: collection and id. Shown as `users/user123`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DocumentKey {
    collection: Arc<str>,
    id: DocumentId,
}

impl DocumentKey {
    /// Puts collection and id together; names are checked by the operations that use the key.
    pub fn new(collection: impl Into<Arc<str>>, id: impl Into<DocumentId>) -> Self {
        Self {
            collection: collection.into(),
            id: id.into(),
        }
    }

    /// The collection.
    #[must_use]
    pub fn collection(&self) -> &str {
        self.collection.borrow()
    }

    /// The collection, shared.
    #[cfg(feature = "mongodb")]
    pub(crate) fn collection_arc(&self) -> Arc<str> {
        Arc::clone(&self.collection)
    }

    /// The id within the collection.
    #[must_use]
    pub fn id(&self) -> &DocumentId {
        &self.id
    }
}

impl fmt::Display for DocumentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.collection, self.id)
    }
}

/// Refuses collection names that the server refuses or that belong to the system.
///
/// Source of the rules: MongoDB manual, "MongoDB Limits and Thresholds", naming restrictions.
pub(crate) fn validate_collection_name(name: &str) -> Result<()> {
    let reason = if name.is_empty() {
        "is empty".to_owned()
    } else if name.len() > MAX_COLLECTION_BYTES {
        format!(
            "has {} bytes, at most {MAX_COLLECTION_BYTES} are allowed",
            name.len()
        )
    } else if name.contains('\0') {
        "contains a NUL character".to_owned()
    } else if name.contains('$') {
        format!("{name:?} contains a dollar sign")
    } else if name.starts_with("system.") || name.contains(".system.") {
        format!("{name:?} belongs to the database system")
    } else if name == "nodestorage" || name.starts_with("nodestorage.") {
        format!("{name:?} belongs to nodestorage")
    } else if name.starts_with('.') || name.ends_with('.') {
        format!("{name:?} starts or ends with a dot")
    } else {
        return Ok(());
    };
    Err(Error::new(
        ErrorKind::InvalidName,
        format!("collection name {reason}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_ones_are_one_id() {
        let one = DocumentId::from(1);
        for value in [
            RawBsonRef::Int32(1),
            RawBsonRef::Int64(1),
            RawBsonRef::Double(1.0),
        ] {
            assert_eq!(DocumentId::from_bson(value).unwrap(), one);
        }
        assert!(DocumentId::from_bson(RawBsonRef::Double(1.5)).is_err());
        assert!(DocumentId::from_bson(RawBsonRef::Double(f64::NAN)).is_err());
    }

    #[test]
    fn ids_round_trip() {
        for id in [
            DocumentId::from(7),
            DocumentId::from(i64::MAX),
            DocumentId::from("user123"),
            DocumentId::from(ObjectId::new()),
            DocumentId::from(Uuid::new_v4()),
        ] {
            let raw = id.to_raw();
            assert_eq!(DocumentId::from_bson(raw.as_raw_bson_ref()).unwrap(), id);
        }
    }

    #[test]
    fn bad_names_are_refused() {
        for name in [
            "",
            "a\0b",
            "a$b",
            "system.users",
            "nodestorage.log",
            ".a",
            "a.",
        ] {
            let error = validate_collection_name(name).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidName, "{name:?}");
        }
        assert!(validate_collection_name(&"x".repeat(191)).is_err());
        for name in ["users", "app.users", "사용자"] {
            validate_collection_name(name).unwrap();
        }
        assert!(DocumentId::from("").validate().is_err());
        assert!(DocumentId::from("a\0").validate().is_err());
        assert!(DocumentId::from("x".repeat(1_025)).validate().is_err());
    }
}
