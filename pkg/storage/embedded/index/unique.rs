//! Uniqueness of the values in an index.

use bson::{RawBsonRef, RawDocument};

use super::super::failure::{damaged, translate};
use super::super::paths::sort_values;
use super::super::row::Row;
use super::super::tables::Writing;
use super::{Entries, Entry, StoredIndex};
use crate::document::compare;
use crate::error::{Error, ErrorKind, Result};

/// Hands the document with an id to a closure.
pub(super) type Fetch<'f> = dyn Fn(&[u8], &mut dyn FnMut(&RawDocument)) -> Result<()> + 'f;

impl StoredIndex {
    /// Refuses a document that has the values of another one in the index. `fetch` hands over the
    /// other document, unless it is gone or changed by the same commit.
    pub(super) fn check_unique(
        &self,
        indexes: &Writing<'_>,
        document: &RawDocument,
        entries: &Entries,
        id: &[u8],
        collection: &str,
        fetch: &Fetch<'_>,
    ) -> Result<()> {
        use redb::ReadableTable;
        for values in entries.unique_values() {
            for stored in indexes.range(values..).map_err(translate)? {
                let (key, stored) = stored.map_err(translate)?;
                if !key.value().starts_with(values) {
                    break;
                }
                let other = Entry::read(key.value(), stored.value())?.id;
                if other == id {
                    continue;
                }
                // Equal keys are not always equal values.
                let mut equal = false;
                fetch(other, &mut |other| equal = self.share(document, other))?;
                if equal {
                    return Err(self.taken(collection));
                }
            }
        }
        Ok(())
    }

    /// Whether two documents have the same values in some entry.
    pub(super) fn share(&self, a: &RawDocument, b: &RawDocument) -> bool {
        self.paths.iter().all(|path| {
            let values = |document| {
                let mut values = Vec::new();
                sort_values(document, path, &mut |value| values.push(value));
                values
            };
            let (a, b): (Vec<RawBsonRef<'_>>, Vec<RawBsonRef<'_>>) = (values(a), values(b));
            let equal = |a: RawBsonRef<'_>, b| compare(a, b).is_eq();
            a.iter().any(|a| b.iter().any(|b| equal(*a, *b)))
        })
    }

    pub(super) fn taken(&self, collection: &str) -> Error {
        Error::new(
            ErrorKind::Constraint,
            format!(
                "another document of collection {collection} has the same values in the unique index {}",
                self.name()
            ),
        )
    }
}

/// Hands the document of a row to `see`, if there is one.
pub(super) fn fetch_document(
    documents: &Writing<'_>,
    row: &[u8],
    see: &mut dyn FnMut(&RawDocument),
) -> Result<()> {
    use redb::ReadableTable;
    let Some(stored) = documents.get(row).map_err(translate)? else {
        return Ok(());
    };
    if let Some(bytes) = Row::read(row, stored.value())?.document {
        see(RawDocument::from_bytes(bytes).map_err(|e| damaged("a document").with_source(e))?);
    }
    Ok(())
}
