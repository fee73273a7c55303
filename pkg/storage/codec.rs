//! Between the caller's type and the stored document.

use bson::raw::CStr;
use bson::{RawBsonRef, RawDocument, RawDocumentBuf};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::backend::version_of;
use crate::document::{self, DocumentKey, Version};
use crate::error::{BoxError, Error, ErrorKind, Result};

/// How the documents of one collection carry identity and version.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Codec<'a> {
    pub(crate) key: &'a DocumentKey,
    pub(crate) version_field: &'a str,
}

impl<'a> Codec<'a> {
    /// The keys that belong to the storage and never show in a diff.
    pub(super) fn own_fields(&self) -> [&'a str; 2] {
        ["_id", self.version_field]
    }

    /// The caller's value for a stored document. A document that no program has versioned yet reads as
    /// version 0, so that types with a version field can read it.
    pub(crate) fn decode<T: DeserializeOwned>(&self, stored: &RawDocument) -> Result<T> {
        let versioned;
        let bytes = if stored.get(self.version_field).ok().flatten().is_some() {
            stored.as_bytes()
        } else {
            versioned = self.with_version(stored, Version::NONE)?;
            versioned.as_bytes()
        };
        bson::deserialize_from_slice(bytes).map_err(|e| {
            let wanted = std::any::type_name::<T>();
            self.unfit(format!("the stored document is not a {wanted}"), e)
        })
    }

    /// The BSON of the caller's value, as the value itself lays it out.
    pub(super) fn encode<T: Serialize>(&self, value: &T) -> Result<RawDocumentBuf> {
        let raw = self.encode_before(value)?;
        document::validate(&raw).map_err(|e| e.context(self.key))?;
        Ok(raw)
    }

    /// As [`encode`](Self::encode), of a value that is only compared with another one: what could not be
    /// stored in it is refused there, or is no change.
    pub(super) fn encode_before<T: Serialize>(&self, value: &T) -> Result<RawDocumentBuf> {
        bson::serialize_to_raw_document_buf(value).map_err(|e| {
            let given = std::any::type_name::<T>();
            self.unfit(format!("the {given} has no form as a document"), e)
        })
    }

    /// The document to store for a new value: `_id` first, and the version where the value has it or
    /// else at the end.
    pub(super) fn stored_form(
        &self,
        value: &RawDocument,
        version: Version,
    ) -> Result<RawDocumentBuf> {
        let id = self.key.id().to_raw();
        self.rebuilt(value, id.as_raw_bson_ref(), version)
    }

    /// The stored document with another version, everything else as it is.
    pub(crate) fn with_version(
        &self,
        stored: &RawDocument,
        version: Version,
    ) -> Result<RawDocumentBuf> {
        let canonical = self.key.id().to_raw();
        let id = stored.get("_id").ok().flatten();
        let id = id.unwrap_or_else(|| canonical.as_raw_bson_ref());
        self.rebuilt(stored, id, version)
    }

    /// As [`with_version`](Self::with_version), of a document that need not be kept: where it has its id in
    /// front and a version as it is written here, only that number changes.
    pub(super) fn at_version(
        &self,
        stored: RawDocumentBuf,
        version: Version,
    ) -> Result<RawDocumentBuf> {
        match document::int64_place(&stored, "_id", self.version_field) {
            Some(place) => document::with_int64(stored, place, version.to_i64())
                .map_err(|e| e.context(self.key)),
            None => self.with_version(&stored, version),
        }
    }

    fn rebuilt(
        &self,
        from: &RawDocument,
        id: RawBsonRef<'_>,
        version: Version,
    ) -> Result<RawDocumentBuf> {
        let mut rebuilt = RawDocumentBuf::new();
        append(&mut rebuilt, "_id", id)?;
        let mut versioned = false;
        for field in from {
            let (key, value) = field.map_err(|e| self.corrupt(e))?;
            match key.as_str() {
                "_id" => {}
                name if name == self.version_field => {
                    append(&mut rebuilt, name, RawBsonRef::Int64(version.to_i64()))?;
                    versioned = true;
                }
                _ => rebuilt.append(key, value),
            }
        }
        if !versioned {
            append(
                &mut rebuilt,
                self.version_field,
                RawBsonRef::Int64(version.to_i64()),
            )?;
        }
        Ok(rebuilt)
    }

    /// Applies the caller's change of its value to the stored document, keeping what the type does not
    /// know. `None` when nothing changed.
    ///
    /// # Errors
    /// `Serialization`, naming the path, if the stored document would not read back as the caller's
    /// value: renamed or aliased fields, for example.
    pub(super) fn merged<T: Serialize + DeserializeOwned>(
        &self,
        stored: &RawDocument,
        before: &RawDocument,
        after: &RawDocument,
    ) -> Result<Option<RawDocumentBuf>> {
        let own = self.own_fields();
        let merged =
            document::merge(stored, before, after, &own).map_err(|e| e.context(self.key))?;
        if !merged.changed {
            return Ok(None);
        }
        if !merged.faithful {
            let decoded = self.decode::<T>(&merged.document);
            let back = decoded.and_then(|value| self.encode(&value));
            let difference = match back {
                // A set that was read back lists the same elements in another order.
                Ok(back) if document::same_as_sets(after, &back, &own)? => None,
                Ok(back) => document::first_difference(after, &back, &own)
                    .map_err(|e| e.context(self.key))?
                    .map(|path| format!("differs at {path}")),
                Err(error) => {
                    let path = document::first_difference(after, &merged.document, &own)
                        .ok()
                        .flatten()
                        .map_or_else(String::new, |path| format!(", {path} for example"));
                    Some(format!("cannot be read back{path} ({error})"))
                }
            };
            if let Some(difference) = difference {
                return Err(Error::new(
                    ErrorKind::Serialization,
                    format!(
                        "{}: {} is no faithful view of the stored document, the result {difference}",
                        self.key,
                        std::any::type_name::<T>()
                    ),
                ));
            }
        }
        Ok(Some(merged.document))
    }

    /// The number in the version field.
    pub(super) fn version(&self, stored: &RawDocument) -> Result<Option<Version>> {
        version_of(stored, self.version_field).map_err(|e| e.context(self.key))
    }

    fn unfit(&self, what: String, source: impl Into<BoxError>) -> Error {
        Error::new(ErrorKind::Serialization, format!("{}: {what}", self.key)).with_source(source)
    }

    fn corrupt(&self, source: impl Into<BoxError>) -> Error {
        Error::new(
            ErrorKind::Corrupt,
            format!("{}: malformed document", self.key),
        )
        .with_source(source)
    }
}

fn append(to: &mut RawDocumentBuf, name: &str, value: RawBsonRef<'_>) -> Result<()> {
    let key: &CStr = name.try_into().map_err(|e: bson::error::Error| {
        Error::new(
            ErrorKind::InvalidConfig,
            "the version field's name has a NUL character",
        )
        .with_source(e)
    })?;
    to.append(key, value);
    Ok(())
}
