//! What one commit call does to the indexes.

use std::collections::{BTreeMap, BTreeSet};

use bson::{RawDocument, RawDocumentBuf};

use super::super::catalog::Collection;
use super::super::failure::translate;
use super::super::keys;
use super::super::tables::{Tables, Writing};
use super::unique::fetch_document;
use super::{Entries, StoredIndex, insert};
use crate::document::DocumentId;
use crate::error::{ErrorKind, Result};
use crate::storage::backend::CommitFailure;

/// Keys to take out and put in.
#[derive(Debug, Default)]
pub(in crate::storage::embedded) struct IndexChanges {
    removed: BTreeSet<Vec<u8>>,
    /// Key, and the lengths of group and id in it.
    added: Vec<(Vec<u8>, usize, usize)>,
    /// What must be unique.
    claims: Vec<Claim>,
    /// Index number and row key where what the index holds now says nothing any more.
    settled: BTreeSet<(u32, Vec<u8>)>,
}

/// A document's entries in a unique index.
#[derive(Debug)]
struct Claim {
    unit: usize,
    collection: String,
    index: StoredIndex,
    id: Vec<u8>,
    entries: Entries,
    document: RawDocumentBuf,
}

impl IndexChanges {
    /// Adds what one document's change means.
    ///
    /// # Errors
    /// `Constraint` when an index cannot hold the document.
    pub(in crate::storage::embedded) fn add(
        &mut self,
        unit: usize,
        collection: &Collection,
        id: &DocumentId,
        before: Option<&RawDocument>,
        after: Option<&RawDocument>,
    ) -> Result<()> {
        let mut bytes = Vec::new();
        keys::append_id(id, &mut bytes);
        let id = bytes;
        let mut row = keys::collection_prefix(&collection.name);
        row.extend_from_slice(&id);
        for index in &collection.indexes {
            let old = before.map(|before| index.entries(before)).transpose()?;
            let new = after.map(|after| index.entries(after));
            let new = new.transpose().map_err(|error| {
                error.context(format_args!("a document of collection {}", collection.name))
            })?;
            // Inexact entries may be equal for values that are not.
            if old == new && new.as_ref().is_none_or(Entries::is_exact) {
                continue;
            }
            self.settled.insert((index.number, row.clone()));
            let keys = |entries: &Option<Entries>| -> BTreeMap<Vec<u8>, usize> {
                let entries = entries.iter();
                entries.flat_map(|entries| entries.keys(&id)).collect()
            };
            let (gone, come) = (keys(&old), keys(&new));
            let lost = gone.keys().filter(|key| !come.contains_key(*key));
            self.removed.extend(lost.cloned());
            let fresh = come.into_iter().filter(|(key, _)| !gone.contains_key(key));
            self.added
                .extend(fresh.map(|(key, group)| (key, group, id.len())));
            if let (true, Some(entries), Some(after)) = (index.unique, new, after) {
                self.claims.push(Claim {
                    unit,
                    collection: collection.name.clone(),
                    index: index.clone(),
                    id: id.clone(),
                    entries,
                    document: after.to_owned(),
                });
            }
        }
        Ok(())
    }

    /// Refuses the units whose values another document has in a unique index, before or by this call.
    pub(in crate::storage::embedded) fn check_unique(
        &self,
        tables: &Tables<'_>,
    ) -> std::result::Result<(), CommitFailure> {
        let mut earlier: BTreeMap<&[u8], Vec<&Claim>> = BTreeMap::new();
        for claim in &self.claims {
            let mut rivals = Vec::new();
            for values in claim.entries.unique_values() {
                let holders = earlier.entry(values).or_default();
                rivals.extend(holders.iter().copied());
                holders.push(claim);
            }
            self.check_claim(tables, claim, &rivals)
                .map_err(|error| match error.kind() {
                    ErrorKind::Constraint => CommitFailure::Refused {
                        unit: claim.unit,
                        error,
                    },
                    _ => CommitFailure::Failed(error),
                })?;
        }
        Ok(())
    }

    fn check_claim(&self, tables: &Tables<'_>, claim: &Claim, rivals: &[&Claim]) -> Result<()> {
        let index = &claim.index;
        if rivals
            .iter()
            .any(|rival| index.share(&rival.document, &claim.document))
        {
            return Err(index.taken(&claim.collection));
        }
        let prefix = keys::collection_prefix(&claim.collection);
        let fetch = |other: &[u8], see: &mut dyn FnMut(&RawDocument)| {
            let place = (index.number, [prefix.as_slice(), other].concat());
            // Changed by this call: deleted, or among the claims.
            if self.settled.contains(&place) {
                return Ok(());
            }
            fetch_document(&tables.documents, &place.1, see)
        };
        index.check_unique(
            &tables.indexes,
            &claim.document,
            &claim.entries,
            &claim.id,
            &claim.collection,
            &fetch,
        )
    }

    /// Carries the changes out.
    pub(in crate::storage::embedded) fn write(&self, indexes: &mut Writing<'_>) -> Result<()> {
        for key in &self.removed {
            indexes.remove(key.as_slice()).map_err(translate)?;
        }
        for (key, group, id_bytes) in &self.added {
            insert(indexes, key, *group, *id_bytes)?;
        }
        Ok(())
    }
}
