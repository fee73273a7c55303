//! Declared indexes: what they hold, and how commits keep them.

mod changes;
mod component;
mod unique;

use std::collections::btree_map::Entry as Slot;
use std::collections::{BTreeMap, BTreeSet};

use bson::{RawBsonRef, RawDocument};

pub(super) use self::changes::IndexChanges;
pub(super) use self::component::{WHOLE_ARRAY, append_component};
use self::unique::fetch_document;
use super::failure::{damaged, translate};
use super::keys;
use super::paths::{Hit, any, sort_values};
use super::row::Row;
use super::seal;
use super::tables::{Tables, Writing, put};
use super::varint;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::query::Index;

/// An index as the file keeps it.
///
/// An entry's key is the index's number, a component for each path, a byte that tells which of them are
/// inexact, and the document's id. A document has an entry for every combination of what its paths find:
/// the hits of a filter and the values it sorts by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoredIndex {
    /// What its keys begin with.
    pub(super) number: u32,
    pub(super) paths: Vec<String>,
    pub(super) unique: bool,
}

/// The entries of one document, without its id: by number and components.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Entries(BTreeMap<Vec<u8>, Kinds>);

/// What entries with the same values differ in.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Kinds {
    /// How long number and first component are.
    group: usize,
    /// Which components are inexact.
    inexact: BTreeSet<u8>,
    /// Whether no other document may have these values, in a unique index. Whole arrays do not count:
    /// their elements do.
    counts: bool,
}

impl StoredIndex {
    /// The name in errors, as [`Index::name`] has it.
    pub(super) fn name(&self) -> String {
        let mut paths = self.paths.iter();
        let first = paths.next().cloned().unwrap_or_default();
        paths.fold(Index::on(first), Index::then).name()
    }

    /// What all keys of the index begin with.
    pub(super) fn prefix(&self) -> Vec<u8> {
        self.number.to_be_bytes().to_vec()
    }

    /// The entries of a document.
    ///
    /// # Errors
    /// `Constraint` when two paths meet an array.
    pub(super) fn entries(&self, document: &RawDocument) -> Result<Entries> {
        let mut entries = BTreeMap::from([(
            self.prefix(),
            Kinds {
                group: 0,
                inexact: BTreeSet::from([0]),
                counts: true,
            },
        )]);
        let mut arrays = 0;
        for (place, path) in self.paths.iter().enumerate() {
            let components = components(document, path);
            if components.len() > 1 {
                arrays += 1;
            }
            // From the eighth place on they share a bit.
            let bit = 1 << place.min(7);
            let mut longer = BTreeMap::<_, Kinds>::new();
            for (begin, kinds) in &entries {
                for (component, is_exact) in &components {
                    let key = [begin.as_slice(), component].concat();
                    let bit = if *is_exact { 0 } else { bit };
                    let inexact = kinds.inexact.iter().map(|bits| bits | bit);
                    let group = if place == 0 { key.len() } else { kinds.group };
                    let counts = kinds.counts && component.first() != Some(&WHOLE_ARRAY);
                    match longer.entry(key) {
                        Slot::Vacant(slot) => {
                            slot.insert(Kinds {
                                group,
                                inexact: inexact.collect(),
                                counts,
                            });
                        }
                        Slot::Occupied(mut slot) => slot.get_mut().inexact.extend(inexact),
                    }
                }
            }
            entries = longer;
        }
        if arrays > 1 {
            return Err(Error::new(
                ErrorKind::Constraint,
                format!("index {} meets an array on more than one path", self.name()),
            ));
        }
        Ok(Entries(entries))
    }

    /// Fills a new index from the documents there are.
    pub(super) fn build(&self, tables: &mut Tables<'_>, collection: &str) -> Result<()> {
        use redb::ReadableTable;
        let prefix = keys::collection_prefix(collection);
        let documents = tables.documents.range(prefix.as_slice()..);
        for stored in documents.map_err(translate)? {
            let (key, stored) = stored.map_err(translate)?;
            let Some(id) = key.value().strip_prefix(prefix.as_slice()) else {
                break;
            };
            let Some(bytes) = Row::read(key.value(), stored.value())?.document else {
                continue;
            };
            let document =
                RawDocument::from_bytes(bytes).map_err(|e| damaged("a document").with_source(e))?;
            let entries = self.entries(document)?;
            if self.unique {
                let other = |other: &[u8], see: &mut dyn FnMut(&RawDocument)| {
                    let row = [prefix.as_slice(), other].concat();
                    fetch_document(&tables.documents, &row, see)
                };
                self.check_unique(&tables.indexes, document, &entries, id, collection, &other)?;
            }
            for (key, group) in entries.keys(id) {
                insert(&mut tables.indexes, &key, group, id.len())?;
            }
        }
        Ok(())
    }
}

/// What one path finds: components, and whether they are exact.
fn components(document: &RawDocument, path: &str) -> BTreeSet<(Vec<u8>, bool)> {
    let mut found = BTreeSet::new();
    let mut add = |value| {
        let mut key = Vec::new();
        let is_exact = append_component(value, &mut key);
        found.insert((key, is_exact));
    };
    sort_values(document, path, &mut add);
    let mut whole = false;
    any(document, path, &mut |hit| {
        match hit {
            Hit::Value(value) => add(value),
            Hit::Missing => add(RawBsonRef::Null),
            Hit::Whole(_) => whole = true,
        }
        false
    });
    if whole {
        found.insert((vec![WHOLE_ARRAY], false));
    }
    found
}

impl Entries {
    /// The keys in the table for a document's id, with the length of their groups.
    fn keys<'e>(&'e self, id: &'e [u8]) -> impl Iterator<Item = (Vec<u8>, usize)> + 'e {
        self.0.iter().flat_map(move |(values, kinds)| {
            let key = move |inexact: &u8| [values.as_slice(), &[*inexact], id].concat();
            kinds
                .inexact
                .iter()
                .map(move |bits| (key(bits), kinds.group))
        })
    }

    /// Whether equal entries mean equal values.
    fn is_exact(&self) -> bool {
        self.0
            .values()
            .all(|kinds| kinds.inexact.iter().all(|bits| *bits == 0))
    }

    /// Number and components of the entries that no other document may have.
    fn unique_values(&self) -> impl Iterator<Item = &[u8]> {
        self.0
            .iter()
            .filter(|(_, kinds)| kinds.counts)
            .map(|(values, _)| values.as_slice())
    }
}

/// Writes an entry. Its value says where the key's parts are: the id's length and the group's.
fn insert(indexes: &mut Writing<'_>, key: &[u8], group: usize, id_bytes: usize) -> Result<()> {
    let mut lengths = Vec::new();
    varint::append(id_bytes as u64, &mut lengths);
    varint::append(group as u64, &mut lengths);
    put(indexes, key, &lengths)
}

/// A stored entry.
#[derive(Debug)]
pub(super) struct Entry<'k> {
    /// Number and first component.
    pub(super) group: &'k [u8],
    pub(super) id: &'k [u8],
}

impl<'k> Entry<'k> {
    pub(super) fn read(key: &'k [u8], stored: &[u8]) -> Result<Self> {
        let lengths = seal::open("an index entry", key, stored)?;
        Self::parse(key, lengths).ok_or_else(|| damaged("an index entry"))
    }

    fn parse(key: &'k [u8], mut lengths: &[u8]) -> Option<Self> {
        let id_bytes = usize::try_from(varint::take(&mut lengths)?).ok()?;
        let group = usize::try_from(varint::take(&mut lengths)?).ok()?;
        Some(Self {
            group: key.get(..group)?,
            id: key.get(key.len().checked_sub(id_bytes)?..)?,
        })
    }
}
