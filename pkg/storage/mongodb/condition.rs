//! Conditions on documents, as filters and as statements.

use bson::raw::CString;
use bson::{RawBson, RawDocumentBuf, rawdoc};

use super::store::Store;
use crate::document::{DocumentKey, Version};
use crate::error::{Error, ErrorKind};
use crate::storage::backend::Condition;

/// A document that was only read is written and written back, so that whoever writes it meanwhile
/// conflicts. Its bytes stay as they are. `None` for one that must be absent.
pub(super) fn there_and_back(
    store: &Store,
    key: &DocumentKey,
    condition: Condition,
) -> Result<Option<(RawDocumentBuf, RawDocumentBuf)>, Error> {
    let field = store.version_field(key.collection());
    Ok(match condition {
        Condition::Absent => None,
        Condition::Version(version) => {
            // The largest Int32 would become an Int64 by going up.
            let step = if version == i32::MAX as u64 { -1 } else { 1 };
            let change = |by: i32| Ok::<_, Error>(rawdoc! { "$inc": named(&field, by)? });
            let moved = Version::new(version.get().wrapping_add_signed(step.into()));
            let there = rawdoc! { "q": matching(store, key, condition)?, "u": change(step)? };
            let back = rawdoc! {
                "q": matching(store, key, Condition::Version(moved))?,
                "u": change(-step)?,
            };
            Some((there, back))
        }
        Condition::Unversioned => {
            let set = rawdoc! { "$set": named(&field, 0_i64)? };
            let unset = rawdoc! { "$unset": named(&field, "")? };
            let there = rawdoc! { "q": matching(store, key, condition)?, "u": set };
            let back = rawdoc! {
                "q": matching(store, key, Condition::Version(Version::NONE))?,
                "u": unset,
            };
            Some((there, back))
        }
    })
}

/// The filter that only the document in the expected state passes.
pub(super) fn matching(
    store: &Store,
    key: &DocumentKey,
    condition: Condition,
) -> Result<RawDocumentBuf, Error> {
    let field = store.version_field(key.collection());
    let mut filter = rawdoc! { "_id": key.id().to_raw() };
    match condition {
        Condition::Version(version) => append(&mut filter, &field, version.to_i64())?,
        Condition::Unversioned => append(&mut filter, &field, rawdoc! { "$exists": false })?,
        // Nothing to match: such documents are inserted, or held absent.
        Condition::Absent => {}
    }
    Ok(filter)
}

fn named(field: &str, value: impl Into<RawBson>) -> Result<RawDocumentBuf, Error> {
    let mut document = RawDocumentBuf::new();
    append(&mut document, field, value)?;
    Ok(document)
}

fn append(
    document: &mut RawDocumentBuf,
    field: &str,
    value: impl Into<RawBson>,
) -> Result<(), Error> {
    let name = CString::try_from(field).map_err(|e| {
        Error::new(ErrorKind::InvalidConfig, "the version field has a NUL").with_source(e)
    })?;
    document.append(&name, value.into());
    Ok(())
}
