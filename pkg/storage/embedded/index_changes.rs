//! What one commit call does to the indexes.

use bson::RawDocument;

use super::catalog::Collection;
use super::tables::Writing;
use crate::document::DocumentId;
use crate::error::Result;
use crate::storage::backend::CommitFailure;

/// Keys to take out and put in.
#[derive(Debug, Default)]
pub(super) struct IndexChanges {}

impl IndexChanges {
    /// Adds what one document's change means.
    pub(super) fn add(
        &mut self,
        _unit: usize,
        _collection: &Collection,
        _id: &DocumentId,
        _before: Option<&RawDocument>,
        _after: Option<&RawDocument>,
    ) -> Result<()> {
        Ok(())
    }

    /// Refuses the units whose values another document has in a unique index.
    pub(super) fn check_unique(
        &self,
        _indexes: &Writing<'_>,
    ) -> std::result::Result<(), CommitFailure> {
        Ok(())
    }

    /// Carries the changes out.
    pub(super) fn write(&self, _indexes: &mut Writing<'_>) -> Result<()> {
        Ok(())
    }
}
