//! Records: small documents of the system's own.

use bson::raw::cstr;
use bson::{RawBson, RawDocument, RawDocumentBuf, rawdoc};

use super::store::{RECORDS, Store};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::backend::Record;

/// The `_id` of a record: `{ k: kind, r: key }`.
pub(super) fn id(kind: &str, key: impl Into<RawBson>) -> RawDocumentBuf {
    let mut id = RawDocumentBuf::new();
    id.append(cstr!("k"), kind);
    id.append(cstr!("r"), key.into());
    id
}

pub(super) fn to_raw(record: &Record) -> RawDocumentBuf {
    rawdoc! { "_id": id(&record.kind, record.key.as_str()), "value": record.value.clone() }
}

pub(super) async fn read_one(store: &Store, kind: &str, key: &str) -> Result<Option<Record>> {
    let filter = rawdoc! { "_id": id(kind, key) };
    let mut found = read(store, kind, filter, 1).await?;
    Ok(found.pop())
}

pub(super) async fn read_many(
    store: &Store,
    kind: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<Record>> {
    if limit == 0 {
        return Ok(Vec::new());
    }
    let above = after.map_or(RawBson::MinKey, RawBson::from);
    let filter = rawdoc! { "_id": { "$gt": id(kind, above), "$lt": id(kind, RawBson::MaxKey) } };
    read(store, kind, filter, limit).await
}

async fn read(
    store: &Store,
    kind: &str,
    filter: RawDocumentBuf,
    limit: usize,
) -> Result<Vec<Record>> {
    let command = rawdoc! {
        "find": RECORDS,
        "filter": filter,
        "sort": { "_id": 1 },
        "limit": i64::try_from(limit).unwrap_or(i64::MAX),
        "readConcern": store.read_concern(),
    };
    let found = store
        .find(command)
        .await
        .map_err(|failure| failure.into_error(format!("reading records of kind {kind}")))?;
    found.iter().map(|raw| from_raw(raw)).collect()
}

fn from_raw(raw: &RawDocument) -> Result<Record> {
    let read = || -> bson::error::Result<Record> {
        let id = raw.get_document("_id")?;
        Ok(Record {
            kind: id.get_str("k")?.to_owned(),
            key: id.get_str("r")?.to_owned(),
            value: raw.get_document("value")?.to_owned(),
        })
    };
    read().map_err(|e| Error::new(ErrorKind::Corrupt, "a record does not read back").with_source(e))
}
