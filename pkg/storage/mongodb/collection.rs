//! Collections and their indexes: created if missing, verified if there.

use bson::raw::{CString, cstr};
use bson::{RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf, rawdoc};

use super::failure::{DUPLICATE_KEY, Failure, NAMESPACE_EXISTS};
use super::store::{Store, reply_document};
use crate::document::validate_collection_name;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::query::CollectionSpec;

/// An index as it must be.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) name: String,
    pub(super) paths: Vec<String>,
    pub(super) unique: bool,
}

/// Opens a collection of the user's.
pub(super) async fn open(store: &Store, spec: &CollectionSpec) -> Result<()> {
    validate_collection_name(&spec.name)?;
    check_version_field(spec)?;
    ensure(store, &spec.name).await?;
    let wanted: Vec<_> = spec
        .indexes
        .iter()
        .map(|index| Wanted {
            name: index.name(),
            paths: index.paths().to_vec(),
            unique: index.is_unique(),
        })
        .collect();
    ensure_indexes(store, &spec.name, &wanted).await?;
    store.remember(&spec.name, &spec.version_field);
    Ok(())
}

/// The field is named in filters and updates, where dots and dollar signs have a meaning.
fn check_version_field(spec: &CollectionSpec) -> Result<()> {
    let field = &spec.version_field;
    if field.is_empty() || field == "_id" || field.starts_with('$') || field.contains(['.', '\0']) {
        return Err(Error::new(
            ErrorKind::InvalidConfig,
            format!(
                "collection {}: {field:?} cannot be the version field",
                spec.name
            ),
        ));
    }
    Ok(())
}

/// Creates the collection if it is missing, and refuses one that cannot be served. Another process may
/// create it at the same time.
pub(super) async fn ensure(store: &Store, name: &str) -> Result<()> {
    if let Some(found) = find(store, name).await? {
        return check_kind(name, &found);
    }
    let created = store.write(rawdoc! { "create": name }).await;
    match created {
        Ok(_) => Ok(()),
        Err(failure) if failure.code() == Some(NAMESPACE_EXISTS) => {
            match find(store, name).await? {
                Some(found) => check_kind(name, &found),
                None => Ok(()),
            }
        }
        Err(failure) => Err(failure.into_error(format!("creating collection {name}"))),
    }
}

async fn find(store: &Store, name: &str) -> Result<Option<RawDocumentBuf>> {
    let command = rawdoc! { "listCollections": 1, "filter": { "name": name } };
    let mut found = store
        .find(command)
        .await
        .map_err(|failure| failure.into_error(format!("inspecting collection {name}")))?;
    Ok(found.pop())
}

fn check_kind(name: &str, found: &RawDocument) -> Result<()> {
    let options = reply_document(found, "options");
    let has = |option: &str| {
        options.is_some_and(|options| options.get(option).is_ok_and(|value| value.is_some()))
    };
    let reason = match found.get_str("type") {
        Ok("view") => "is a view",
        Ok("timeseries") => "is a time-series collection",
        _ if options.is_some_and(|options| options.get_bool("capped").unwrap_or(false)) => {
            "is a capped collection"
        }
        _ if has("timeseries") => "is a time-series collection",
        // With one, "USER1" finds "user1", and two documents would share one log.
        _ if has("collation") => "has a collation",
        _ => return Ok(()),
    };
    Err(Error::new(
        ErrorKind::Unsupported,
        format!("collection {name} {reason}"),
    ))
}

/// Creates the missing ones of the indexes and verifies the rest.
pub(super) async fn ensure_indexes(
    store: &Store,
    collection: &str,
    wanted: &[Wanted],
) -> Result<()> {
    if wanted.is_empty() {
        return Ok(());
    }
    let present = store
        .find(rawdoc! { "listIndexes": collection })
        .await
        .map_err(|failure| failure.into_error(format!("inspecting indexes of {collection}")))?;
    for index in wanted {
        let same_name = present
            .iter()
            .find(|found| found.get_str("name").is_ok_and(|name| name == index.name));
        match same_name {
            Some(found) if index.is_met_by(found) => {}
            Some(_) => return Err(wrong(collection, index)),
            None if present.iter().any(|found| index.is_met_by(found)) => {}
            None => create_index(store, collection, index).await?,
        }
    }
    Ok(())
}

async fn create_index(store: &Store, collection: &str, index: &Wanted) -> Result<()> {
    let mut description = rawdoc! { "key": index.key()?, "name": index.name.as_str() };
    if index.unique {
        description.append(cstr!("unique"), true);
    }
    let mut indexes = RawArrayBuf::new();
    indexes.push(description);
    // Outside `Store::write`: building an index may take longer than its time limit.
    let command = rawdoc! {
        "createIndexes": collection,
        "indexes": indexes,
        "writeConcern": { "w": "majority" },
    };
    match store.run(command).await {
        Ok(_) => Ok(()),
        Err(failure) => Err(index_error(failure, collection, index)),
    }
}

fn index_error(failure: Failure, collection: &str, index: &Wanted) -> Error {
    match failure.code() {
        Some(DUPLICATE_KEY) => Error::new(
            ErrorKind::Constraint,
            format!(
                "unique index {} on {collection} does not fit its documents: some have the same values",
                index.name
            ),
        )
        .with_source(failure),
        // IndexOptionsConflict and IndexKeySpecsConflict.
        Some(85 | 86) => wrong(collection, index).with_source(failure),
        _ => failure.into_error(format!("creating index {} on {collection}", index.name)),
    }
}

fn wrong(collection: &str, index: &Wanted) -> Error {
    Error::new(
        ErrorKind::InvalidConfig,
        format!(
            "index {} on {collection} exists with other keys or options; drop it or change the declaration",
            index.name
        ),
    )
}

impl Wanted {
    fn key(&self) -> Result<RawDocumentBuf> {
        let mut key = RawDocumentBuf::new();
        for path in &self.paths {
            let path = CString::try_from(path.as_str()).map_err(|e| {
                Error::new(
                    ErrorKind::InvalidConfig,
                    format!("index {} has a path with NUL", self.name),
                )
                .with_source(e)
            })?;
            key.append(&path, 1);
        }
        Ok(key)
    }

    fn is_met_by(&self, found: &RawDocument) -> bool {
        let Some(key) = reply_document(found, "key") else {
            return false;
        };
        let mut paths = self.paths.iter();
        for field in key {
            let Ok((path, direction)) = field else {
                return false;
            };
            let ascending = match direction {
                RawBsonRef::Int32(n) => n == 1,
                RawBsonRef::Int64(n) => n == 1,
                RawBsonRef::Double(n) => n == 1.0,
                _ => false,
            };
            if !ascending || paths.next().is_none_or(|wanted| wanted != path.as_str()) {
                return false;
            }
        }
        let flag = |name: &str| found.get_bool(name).unwrap_or(false);
        let has = |name: &str| found.get(name).is_ok_and(|value| value.is_some());
        paths.next().is_none()
            && flag("unique") == self.unique
            && !flag("sparse")
            && !flag("hidden")
            && !has("partialFilterExpression")
            && !has("collation")
            && !has("expireAfterSeconds")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Wanted {
        Wanted {
            name: "n".into(),
            paths: vec!["a".into(), "b.c".into()],
            unique: true,
        }
    }

    #[test]
    fn only_the_same_index_meets_the_declaration() {
        let wanted = wanted();
        assert!(wanted.is_met_by(&rawdoc! { "key": { "a": 1, "b.c": 1.0 }, "unique": true }));
        for other in [
            rawdoc! { "key": { "a": 1, "b.c": 1 } },
            rawdoc! { "key": { "a": 1 }, "unique": true },
            rawdoc! { "key": { "a": 1, "b.c": -1 }, "unique": true },
            rawdoc! { "key": { "b.c": 1, "a": 1 }, "unique": true },
            rawdoc! { "key": { "a": 1, "b.c": 1, "d": 1 }, "unique": true },
            rawdoc! { "key": { "a": 1, "b.c": "text" }, "unique": true },
            rawdoc! { "key": { "a": 1, "b.c": 1 }, "unique": true, "sparse": true },
        ] {
            assert!(!wanted.is_met_by(&other), "{other:?}");
        }
    }
}
