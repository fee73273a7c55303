//! Reading the log of one document.

use bson::raw::cstr;
use bson::{RawDocumentBuf, Timestamp, rawdoc};

use super::store::{LOG, Store};
use crate::error::Result;
use crate::storage::backend::{LogEntry, LogRange, log_id};

pub(super) async fn read(store: &Store, range: &LogRange) -> Result<Vec<LogEntry>> {
    if range.limit == 0 || range.from > range.to {
        return Ok(Vec::new());
    }
    let mut filter = RawDocumentBuf::new();
    filter.append(
        cstr!("_id"),
        rawdoc! {
            "$gte": log_id(&range.key, range.from),
            "$lte": log_id(&range.key, range.to),
        },
    );
    if let Some(until) = range.until {
        filter.append(
            cstr!("position"),
            rawdoc! { "$lte": Timestamp::from(until) },
        );
    }
    let command = rawdoc! {
        "find": LOG,
        "filter": filter,
        "sort": { "_id": if range.newest_first { -1 } else { 1 } },
        "limit": i64::try_from(range.limit).unwrap_or(i64::MAX),
        "readConcern": store.read_concern(),
    };
    let found = store
        .find(command)
        .await
        .map_err(|failure| failure.into_error(format!("reading the log of {}", range.key)))?;
    found
        .iter()
        .map(|entry| LogEntry::from_raw(entry))
        .collect()
}
