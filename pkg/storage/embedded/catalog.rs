//! Collections: their version fields and indexes, kept in the file.

use bson::raw::cstr;
use bson::{RawArrayBuf, RawDocument, RawDocumentBuf};

use super::failure::damaged;
use super::index::StoredIndex;
use super::tables::{Tables, put, take};
use crate::document::validate_collection_name;
use crate::error::{BoxError, Error, ErrorKind, Result};
use crate::storage::query::{CollectionSpec, Index};

/// A collection as the file knows it: with every index that was ever declared, whoever opens it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Collection {
    pub(super) name: String,
    pub(super) version_field: String,
    pub(super) indexes: Vec<StoredIndex>,
}

impl Collection {
    fn read(name: &str, stored: &[u8]) -> Result<Self> {
        Self::parse(name, stored)
            .map_err(|e| damaged(format_args!("collection {name}")).with_source(e))
    }

    fn parse(name: &str, stored: &[u8]) -> std::result::Result<Self, BoxError> {
        let raw = RawDocument::from_bytes(stored)?;
        let mut indexes = Vec::new();
        for index in raw.get_array("indexes")? {
            let index = index?.as_document().ok_or("an index is no document")?;
            let mut paths = Vec::new();
            for path in index.get_array("paths")? {
                paths.push(path?.as_str().ok_or("a path is no string")?.to_owned());
            }
            indexes.push(StoredIndex {
                number: u32::try_from(index.get_i64("number")?)?,
                paths,
                unique: index.get_bool("unique")?,
            });
        }
        Ok(Self {
            name: name.to_owned(),
            version_field: raw.get_str("versionField")?.to_owned(),
            indexes,
        })
    }

    fn to_raw(&self) -> RawDocumentBuf {
        let mut indexes = RawArrayBuf::new();
        for index in &self.indexes {
            let mut paths = RawArrayBuf::new();
            for path in &index.paths {
                paths.push(path.as_str());
            }
            let mut raw = RawDocumentBuf::new();
            raw.append(cstr!("number"), i64::from(index.number));
            raw.append(cstr!("paths"), paths);
            raw.append(cstr!("unique"), index.unique);
            indexes.push(raw);
        }
        let mut raw = RawDocumentBuf::new();
        raw.append(cstr!("versionField"), self.version_field.as_str());
        raw.append(cstr!("indexes"), indexes);
        raw
    }
}

/// Creates the collection or compares it with what was declared before, and builds the indexes that
/// are new.
///
/// # Errors
/// `InvalidConfig` for another version field or another index of the same name; `Constraint` when a
/// unique index does not fit the data. Nothing may be committed then.
pub(super) fn open(tables: &mut Tables<'_>, spec: &CollectionSpec) -> Result<Collection> {
    validate_collection_name(&spec.name)?;
    let key = spec.name.as_bytes();
    let stored = take(&tables.collections, "a collection", key)?;
    let known = stored
        .as_deref()
        .map(|stored| Collection::read(&spec.name, stored))
        .transpose()?;
    let mut collection = known.clone().unwrap_or_else(|| Collection {
        name: spec.name.clone(),
        version_field: spec.version_field.clone(),
        indexes: Vec::new(),
    });
    if collection.version_field != spec.version_field {
        return Err(Error::new(
            ErrorKind::InvalidConfig,
            format!(
                "collection {} keeps its version in {:?}, not in {:?}",
                spec.name, collection.version_field, spec.version_field
            ),
        ));
    }
    for declared in &spec.indexes {
        if is_there(&collection, declared)? {
            continue;
        }
        let index = StoredIndex {
            number: next_number(tables)?,
            paths: declared.paths().to_vec(),
            unique: declared.is_unique(),
        };
        index.build(tables, &spec.name)?;
        collection.indexes.push(index);
    }
    if known.as_ref() != Some(&collection) {
        put(&mut tables.collections, key, collection.to_raw().as_bytes())?;
    }
    Ok(collection)
}

fn is_there(collection: &Collection, declared: &Index) -> Result<bool> {
    let name = declared.name();
    let Some(index) = collection.indexes.iter().find(|index| index.name() == name) else {
        return Ok(false);
    };
    if index.paths == declared.paths() && index.unique == declared.is_unique() {
        return Ok(true);
    }
    Err(Error::new(
        ErrorKind::InvalidConfig,
        format!(
            "index {name} of collection {} exists with other paths or another uniqueness",
            collection.name
        ),
    ))
}

/// Numbers are never given twice, so that what an index left behind never shows in another.
fn next_number(tables: &mut Tables<'_>) -> Result<u32> {
    const KEY: &[u8] = b"indexes";
    let last = match take(&tables.meta, "the index number", KEY)? {
        Some(stored) => stored
            .try_into()
            .map(u32::from_le_bytes)
            .map_err(|_| damaged("the index number"))?,
        None => 0,
    };
    put(&mut tables.meta, KEY, &(last + 1).to_le_bytes())?;
    Ok(last + 1)
}
