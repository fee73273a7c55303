//! Reading documents, log chains and records.

use bson::{RawDocument, RawDocumentBuf};
use redb::ReadTransaction;

use super::chain::Link;
use super::failure::{damaged, translate};
use super::keys;
use super::row::Row;
use super::seal;
use super::tables::{DOCUMENTS, Log, RECORDS, Reading, take};
use crate::document::DocumentKey;
use crate::error::Result;
use crate::storage::backend::{Backlog, Loaded, LogEntry, LogRange, Record};

/// Loads documents and log heads.
pub(super) fn load(transaction: &ReadTransaction, keys: &[DocumentKey]) -> Result<Vec<Loaded>> {
    let documents = transaction.open_table(DOCUMENTS).map_err(translate)?;
    keys.iter()
        .map(|key| {
            with_row(&documents, key, |row| {
                let Some(row) = row else {
                    return Ok(Loaded {
                        document: None,
                        head: None,
                    });
                };
                Ok(Loaded {
                    document: row.document.map(owned).transpose()?,
                    head: row.head.map(|head| head.log_head()),
                })
            })
        })
        .collect()
}

fn with_row<T>(
    documents: &Reading,
    key: &DocumentKey,
    see: impl FnOnce(Option<Row<'_>>) -> Result<T>,
) -> Result<T> {
    let bytes = keys::document_key(key);
    match documents.get(bytes.as_slice()).map_err(translate)? {
        Some(stored) => {
            let row = Row::read(&bytes, stored.value());
            see(Some(row.map_err(|e| e.context(key))?))
        }
        None => see(None),
    }
}

/// A document out of a row.
pub(super) fn owned(bytes: &[u8]) -> Result<RawDocumentBuf> {
    RawDocumentBuf::from_bytes(bytes.to_vec()).map_err(|e| damaged("a document").with_source(e))
}

/// What the log holds above a position.
pub(super) fn backlog(transaction: &ReadTransaction, after: u64, limit: u64) -> Result<Backlog> {
    let log = Log::open(transaction)?;
    let mut oldest = None;
    log.follow(after, |position, raw| {
        oldest = Some(decode(raw, position)?.at);
        Ok(false)
    })?;
    Ok(Backlog::new(log.count(after, limit)?, oldest))
}

/// Reads a part of a document's log, in as many steps as it has entries and a few more to get there.
pub(super) fn read_log(transaction: &ReadTransaction, range: &LogRange) -> Result<Vec<LogEntry>> {
    let documents = transaction.open_table(DOCUMENTS).map_err(translate)?;
    let head = with_row(&documents, &range.key, |row| {
        Ok(row.and_then(|row| row.head))
    })?;
    let Some(head) = head else {
        return Ok(Vec::new());
    };
    let log = Log::open(transaction)?;
    let node = |link: Link| log.entry(link, |node, _| Ok(node));
    let until = range.until.map_or(u64::MAX, |until| until.to_u64());
    let seek = |too_new: &dyn Fn(Link) -> bool| head.seek(too_new, node);

    let mut newest = seek(&|link| link.version > range.to.get() || link.position > until)?;
    let limit = range.limit as u64;
    let below = if range.newest_first {
        newest.depth.saturating_sub(limit)
    } else {
        let below = seek(&|link| link.version >= range.from.get())?;
        let last = newest.depth.min(below.depth.saturating_add(limit));
        if last < newest.depth {
            newest = seek(&|link| link.depth > last)?;
        }
        below.depth
    };

    let mut entries = Vec::new();
    let mut current = newest;
    while current.depth > below && current.version >= range.from.get() {
        let (entry, previous) = log.entry(current, |node, raw| {
            Ok((decode(raw, current.position)?, node.previous))
        })?;
        if entry.key != range.key || entry.version.get() != current.version {
            return Err(damaged(format_args!("the log of {}", range.key)));
        }
        if previous.depth >= current.depth {
            return Err(damaged(format_args!("the log of {}", range.key)));
        }
        entries.push(entry);
        current = previous;
    }
    if !range.newest_first {
        entries.reverse();
    }
    Ok(entries)
}

/// A log entry out of its stored bytes.
pub(super) fn decode(raw: &[u8], position: u64) -> Result<LogEntry> {
    let raw = RawDocument::from_bytes(raw).map_err(|e| damaged("a log entry").with_source(e))?;
    let entry = LogEntry::from_raw(raw)?;
    if entry.position.to_u64() != position {
        return Err(damaged("a log entry"));
    }
    Ok(entry)
}

/// Reads records of a kind in key order.
pub(super) fn records(
    transaction: &ReadTransaction,
    kind: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<Record>> {
    let records = transaction.open_table(RECORDS).map_err(translate)?;
    let prefix = keys::collection_prefix(kind);
    let begin = match after {
        // The key right after it: itself and a zero byte.
        Some(after) => {
            let mut begin = keys::record_key(kind, after);
            begin.push(0);
            begin
        }
        None => prefix.clone(),
    };
    let mut found = Vec::new();
    for stored in records.range(begin.as_slice()..).map_err(translate)? {
        if found.len() >= limit {
            break;
        }
        let (key, stored) = stored.map_err(translate)?;
        let Some(name) = key.value().strip_prefix(prefix.as_slice()) else {
            break;
        };
        let value = seal::open("a record", key.value(), stored.value())?;
        let name = std::str::from_utf8(name).map_err(|e| damaged("a record").with_source(e))?;
        found.push(Record {
            kind: kind.to_owned(),
            key: name.to_owned(),
            value: owned(value)?,
        });
    }
    Ok(found)
}

/// Reads one record.
pub(super) fn record(
    transaction: &ReadTransaction,
    kind: &str,
    key: &str,
) -> Result<Option<Record>> {
    let records = transaction.open_table(RECORDS).map_err(translate)?;
    let value = take(&records, "a record", &keys::record_key(kind, key))?;
    let Some(value) = value else {
        return Ok(None);
    };
    Ok(Some(Record {
        kind: kind.to_owned(),
        key: key.to_owned(),
        value: owned(&value)?,
    }))
}
