//! Checking a commit call against the state that the writer's transaction sees, its own earlier calls
//! included.

use std::collections::{BTreeMap, HashMap};

use bson::{RawDocument, RawDocumentBuf};

use super::catalog::Collection;
use super::chain::Head;
use super::commit::{Check, Prepared, refused};
use super::failure::{damaged, translate};
use super::index::IndexChanges;
use super::keys;
use super::leases;
use super::row::Row;
use super::store::Store;
use super::tables::Tables;
use crate::document::{DocumentKey, ExpectedVersion, VersionConflict};
use crate::error::{Error, ErrorKind};
use crate::storage::backend::{CommitFailure, Condition, RecordWrite, version_of};
use std::sync::Arc;

/// Everything that a call does to documents and indexes, found possible.
pub(super) struct Plan<'u> {
    /// By row key.
    pub(super) documents: BTreeMap<&'u [u8], Pending<'u>>,
    pub(super) indexes: IndexChanges,
}

/// What is to become of one document's row.
pub(super) struct Pending<'u> {
    pub(super) head: Option<Head>,
    /// The newest version in the log, with this call's entries.
    newest: u64,
    /// The document as it is; kept only where it is needed later.
    pub(super) before: Option<RawDocumentBuf>,
    /// What is written, if anything is: a document, or nothing for a deletion.
    pub(super) after: Option<Option<&'u [u8]>>,
}

/// Why a unit cannot be committed.
enum Trouble {
    Conflict(Error),
    Refusal(Error),
    Failure(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Failure(error)
    }
}

/// Checks all units of a call; nothing has been written when it fails.
pub(super) fn check<'u>(
    store: &Store,
    tables: &Tables<'_>,
    units: &'u [Prepared],
) -> Result<Plan<'u>, CommitFailure> {
    let mut checking = Checking {
        store,
        tables,
        documents: BTreeMap::new(),
        records: HashMap::new(),
    };
    let mut conflicts = Vec::new();
    for (number, unit) in units.iter().enumerate() {
        match checking.unit(unit) {
            Ok(()) => {}
            Err(Trouble::Conflict(error)) => conflicts.push((number, error)),
            Err(Trouble::Refusal(error)) => return Err(refused(number, error)),
            Err(Trouble::Failure(error)) => return Err(CommitFailure::Failed(error)),
        }
    }
    let suspects = conflicts.iter().map(|(number, _)| *number).collect();
    if let Some((_, source)) = conflicts.into_iter().next() {
        return Err(CommitFailure::Conflict { suspects, source });
    }
    // Only now: a document that lost a race says nothing about unique values.
    let mut indexes = IndexChanges::default();
    for (number, unit) in units.iter().enumerate() {
        checking
            .indexes(number, unit, &mut indexes)
            .map_err(|error| refused(number, error))?;
    }
    indexes.check_unique(tables)?;
    Ok(Plan {
        documents: checking.documents,
        indexes,
    })
}

struct Checking<'c, 't, 'u> {
    store: &'c Store,
    tables: &'c Tables<'t>,
    documents: BTreeMap<&'u [u8], Pending<'u>>,
    /// Whether the records that the call writes exist by now.
    records: HashMap<Vec<u8>, bool>,
}

impl<'u> Checking<'_, '_, 'u> {
    fn unit(&mut self, unit: &'u Prepared) -> Result<(), Trouble> {
        if let Some(fence) = &unit.fence {
            leases::check(&self.tables.leases, fence).map_err(|error| match error.kind() {
                ErrorKind::InUse => Trouble::Refusal(error),
                _ => Trouble::Failure(error),
            })?;
        }
        for check in &unit.checks {
            let collection = self.opened(&check.key)?;
            self.tables.row(&check.row, |row| {
                Ok(examine(check, &collection, row.as_ref()))
            })??;
        }
        for write in &unit.writes {
            let collection = self.opened(&write.check.key)?;
            let indexed = !collection.indexes.is_empty();
            let pending = self.tables.row(&write.check.row, |row| {
                let verdict = examine(&write.check, &collection, row.as_ref());
                let mut pending = Pending::new(row, indexed)?;
                pending.after = Some(write.document.as_deref());
                Ok(verdict.map(|()| pending))
            })??;
            self.documents.insert(&write.check.row, pending);
        }
        for entry in &unit.entries {
            if !self.documents.contains_key(entry.row.as_slice()) {
                let pending = self.tables.row(&entry.row, |row| Pending::new(row, true))?;
                self.documents.insert(&entry.row, pending);
            }
            let Some(pending) = self.documents.get_mut(entry.row.as_slice()) else {
                continue;
            };
            if entry.version.get() <= pending.newest {
                return Err(Trouble::Conflict(Error::new(
                    ErrorKind::VersionConflict,
                    format!(
                        "version {} of {} cannot be logged, the log is at version {}",
                        entry.version, entry.key, pending.newest
                    ),
                )));
            }
            pending.newest = entry.version.get();
        }
        for write in &unit.records {
            self.record(write)?;
        }
        Ok(())
    }

    fn opened(&self, key: &DocumentKey) -> Result<Arc<Collection>, Trouble> {
        self.store.collection(key.collection()).ok_or_else(|| {
            Trouble::Refusal(Error::new(
                ErrorKind::InvalidConfig,
                format!("collection {} was not opened", key.collection()),
            ))
        })
    }

    fn record(&mut self, write: &RecordWrite) -> Result<(), Trouble> {
        let (kind, key) = match write {
            RecordWrite::Insert(record) | RecordWrite::Put(record) => (&record.kind, &record.key),
            RecordWrite::Delete { kind, key } => (kind, key),
        };
        let row = keys::record_key(kind, key);
        if let RecordWrite::Insert(_) = write {
            use redb::ReadableTable;
            let exists = match self.records.get(&row) {
                Some(exists) => *exists,
                None => {
                    let stored = self.tables.records.get(row.as_slice());
                    stored.map_err(translate)?.is_some()
                }
            };
            if exists {
                return Err(Trouble::Conflict(Error::new(
                    ErrorKind::VersionConflict,
                    format!("record {kind}/{key} exists already"),
                )));
            }
        }
        let exists = !matches!(write, RecordWrite::Delete { .. });
        self.records.insert(row, exists);
        Ok(())
    }

    fn indexes(
        &self,
        number: usize,
        unit: &Prepared,
        changes: &mut IndexChanges,
    ) -> Result<(), Error> {
        for write in &unit.writes {
            let Some(collection) = self.store.collection(write.check.key.collection()) else {
                continue;
            };
            if collection.indexes.is_empty() {
                continue;
            }
            let before = self.documents.get(write.check.row.as_slice());
            let before = before.and_then(|pending| pending.before.as_deref());
            let after = write.document.as_deref().map(RawDocument::from_bytes);
            let after = after.transpose().map_err(|e| {
                Error::new(
                    ErrorKind::Serialization,
                    format!("{} is no document", write.check.key),
                )
                .with_source(e)
            })?;
            changes.add(number, &collection, write.check.key.id(), before, after)?;
        }
        Ok(())
    }
}

impl Pending<'_> {
    fn new(row: Option<Row<'_>>, keep_document: bool) -> Result<Self, Error> {
        let (head, document) = row.map_or((None, None), |row| (row.head, row.document));
        let before = match document.filter(|_| keep_document) {
            Some(bytes) => Some(
                RawDocumentBuf::from_bytes(bytes.to_vec())
                    .map_err(|e| damaged("a document").with_source(e))?,
            ),
            None => None,
        };
        Ok(Self {
            newest: head.as_ref().map_or(0, |head| head.newest().version),
            head,
            before,
            after: None,
        })
    }
}

/// Compares a stored document with the state it must have.
fn examine(check: &Check, collection: &Collection, row: Option<&Row<'_>>) -> Result<(), Trouble> {
    let found = match row.and_then(|row| row.document) {
        None => None,
        Some(bytes) => {
            let document =
                RawDocument::from_bytes(bytes).map_err(|e| damaged(&check.key).with_source(e))?;
            let version = version_of(document, &collection.version_field)
                .map_err(|e| Trouble::Refusal(e.context(&check.key)))?;
            Some(version)
        }
    };
    let (holds, expected) = match check.condition {
        Condition::Absent => (found.is_none(), ExpectedVersion::MustNotExist),
        Condition::Version(version) => (
            found == Some(Some(version)),
            ExpectedVersion::Exact(version),
        ),
        Condition::Unversioned => {
            if found == Some(None) {
                return Ok(());
            }
            return Err(Trouble::Conflict(Error::new(
                ErrorKind::VersionConflict,
                format!("{} has a version by now or is gone", check.key),
            )));
        }
    };
    if holds {
        return Ok(());
    }
    let actual = found.map(Option::unwrap_or_default);
    Err(Trouble::Conflict(
        VersionConflict::new(expected, actual).into_error(&check.key),
    ))
}
