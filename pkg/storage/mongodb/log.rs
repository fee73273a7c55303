//! Reading the log of one document, and counting what lies behind a position.

use bson::raw::cstr;
use bson::{RawDocumentBuf, Timestamp, rawdoc};

use super::store::{LOG, Store, count};
use crate::error::Result;
use crate::storage::backend::{Backlog, LogEntry, LogRange, Position, log_id};

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

/// What the log holds above a position: two looks into its index.
pub(super) async fn backlog(store: &Store, after: Position, limit: u64) -> Result<Backlog> {
    let failed = |failure: super::failure::Failure| failure.into_error("counting the log");
    let above = rawdoc! { "position": { "$gt": Timestamp::from(after) } };
    let command = rawdoc! {
        "find": LOG,
        "filter": above.clone(),
        "sort": { "position": 1 },
        "limit": 1,
        "projection": { "at": 1 },
        "readConcern": store.read_concern(),
    };
    let found = store.find(command).await.map_err(failed)?;
    // A limit of 0 means none to the server.
    let Some(oldest) = found.first().filter(|_| limit > 0) else {
        return Ok(Backlog::default());
    };
    let command = rawdoc! {
        "count": LOG,
        "query": above,
        "hint": { "position": 1 },
        "limit": i64::try_from(limit).unwrap_or(i64::MAX),
        "readConcern": store.read_concern(),
    };
    let reply = store.run(command).await.map_err(failed)?;
    let entries = u64::try_from(count(&reply, "n")).unwrap_or_default();
    Ok(Backlog::new(entries, oldest.get_datetime("at").ok()))
}
