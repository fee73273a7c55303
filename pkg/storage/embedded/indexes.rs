//! Declared indexes.

use super::tables::Tables;
use crate::error::Result;
use crate::storage::query::Index;

/// An index as the file keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoredIndex {
    /// What its keys begin with.
    pub(super) number: u32,
    pub(super) paths: Vec<String>,
    pub(super) unique: bool,
}

impl StoredIndex {
    /// The name in errors, as [`Index::name`] has it.
    pub(super) fn name(&self) -> String {
        let mut paths = self.paths.iter();
        let first = paths.next().cloned().unwrap_or_default();
        paths.fold(Index::on(first), Index::then).name()
    }

    /// Fills a new index from the documents there are.
    pub(super) fn build(&self, _tables: &mut Tables<'_>, _collection: &str) -> Result<()> {
        Ok(())
    }
}
