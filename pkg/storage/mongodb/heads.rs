//! The newest log entries of documents.

use std::collections::{HashMap, HashSet};

use bson::raw::cstr;
use bson::{RawArrayBuf, RawBson, RawDocument, RawDocumentBuf, rawdoc};
use futures_util::future::{try_join, try_join_all};
use futures_util::{StreamExt, TryStreamExt, stream};

use super::failure::Failure;
use super::store::{LOG, Store};
use crate::document::{DocumentKey, Version};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::backend::{LogHead, log_id, read_log_id, version_of};

/// How many single head queries run at once: more would only queue for connections.
const HEADS_AT_ONCE: usize = 8;

/// How many ranges of log keys go into one `$or`. Planning costs 10 µs per range up to here and more beyond:
/// 256 ranges in one command took 6.4 ms, in four of 64 together 4.7 [measured against 6.0.5].
const RANGES_PER_COMMAND: usize = 64;

/// How many entries of documents that are gone are read beyond one for each: deleted documents mostly have
/// short histories, and the rest is asked for one by one.
const SPARE_ENTRIES: usize = 256;

type Heads = HashMap<DocumentKey, LogHead>;

/// The heads of `keys`, whose documents were read just before.
///
/// Where there is a document, everything from its version on is asked for: usually that is one entry, and
/// more where another program restored an older state. An entry at the version itself would not prove
/// that it is the newest, nor would a missing one behind it: adoption and retention leave gaps.
pub(super) async fn read(
    store: &Store,
    keys: &[DocumentKey],
    documents: &HashMap<DocumentKey, RawDocumentBuf>,
) -> Result<Heads> {
    let (mut from, mut unknown) = (Vec::new(), Vec::new());
    let mut seen = HashSet::new();
    for key in keys.iter().filter(|key| seen.insert(*key)) {
        let field = store.version_field(key.collection());
        // A field that is no version is the caller's to report, for this document alone.
        match documents
            .get(key)
            .map(|document| version_of(document, &field))
        {
            Some(Ok(Some(version))) => from.push((key, version)),
            _ => unknown.push(key),
        }
    }
    let (mut heads, rest) = try_join(read_from(store, &from), read_any(store, &unknown)).await?;
    heads.extend(rest);
    // Behind the version of its document a log can only be if another program raised it.
    let behind = from.iter().map(|(key, _)| *key);
    let behind = behind.filter(|key| !heads.contains_key(*key)).collect();
    heads.extend(read_singly(store, behind).await?);
    Ok(heads)
}

/// The newest entries at these versions or above.
async fn read_from(store: &Store, from: &[(&DocumentKey, Version)]) -> Result<Heads> {
    let reads = from.chunks(RANGES_PER_COMMAND).map(|from| {
        let ranges = from.iter().map(|(key, version)| {
            let to = log_id_bound(key, RawBson::MaxKey);
            rawdoc! { "_id": { "$gte": log_id(key, *version), "$lte": to } }
        });
        store.find(within(store, ranges))
    });
    let found = try_join_all(reads).await.map_err(reading)?;
    newest_of(found.iter().flatten())
}

/// The newest entries at any version, of documents that are probably not there.
async fn read_any(store: &Store, keys: &[&DocumentKey]) -> Result<Heads> {
    let reads = keys.chunks(RANGES_PER_COMMAND).map(|keys| async move {
        let limit = keys.len() + SPARE_ENTRIES;
        let ranges = keys.iter().map(|key| rawdoc! { "_id": range(key) });
        let mut command = within(store, ranges);
        command.append(cstr!("sort"), rawdoc! { "_id": -1 });
        command.append(cstr!("limit"), limit as i64);
        let found = store.find(command).await.map_err(reading)?;
        let mut heads = newest_of(&found)?;
        if found.len() >= limit {
            // Each key that was seen was seen at its newest entry; the others were cut off.
            let unseen = keys.iter().copied();
            let unseen = unseen.filter(|key| !heads.contains_key(*key)).collect();
            heads.extend(read_singly(store, unseen).await?);
        }
        Ok::<_, Error>(heads)
    });
    Ok(try_join_all(reads).await?.into_iter().flatten().collect())
}

/// A `find` over ranges of log keys.
///
/// Alone at the top of a filter, an `$or` is planned branch by branch, which takes twice as long; the
/// condition beside it, which every key fulfils, keeps the planner from that.
fn within(store: &Store, ranges: impl Iterator<Item = RawDocumentBuf>) -> RawDocumentBuf {
    let ranges: RawArrayBuf = ranges.collect();
    rawdoc! {
        "find": LOG,
        "filter": { "_id": { "$gte": RawBson::MinKey }, "$or": ranges },
        "projection": { "kind": 1 },
        "readConcern": store.read_concern(),
    }
}

async fn read_singly(store: &Store, keys: Vec<&DocumentKey>) -> Result<Heads> {
    let reads: Vec<_> = keys.into_iter().map(|key| with_key(store, key)).collect();
    let found: Vec<_> = stream::iter(reads)
        .buffer_unordered(HEADS_AT_ONCE)
        .try_collect()
        .await?;
    Ok(found
        .into_iter()
        .filter_map(|(key, head)| Some((key, head?)))
        .collect())
}

async fn with_key(store: &Store, key: &DocumentKey) -> Result<(DocumentKey, Option<LogHead>)> {
    Ok((key.clone(), newest(store, key).await?))
}

fn newest_of<'a>(entries: impl IntoIterator<Item = &'a RawDocumentBuf>) -> Result<Heads> {
    let mut heads = Heads::new();
    for entry in entries {
        let (key, head) = read_head(entry)?;
        let newest = heads.entry(key).or_insert(head);
        if head.version > newest.version {
            *newest = head;
        }
    }
    Ok(heads)
}

fn reading(failure: Failure) -> Error {
    failure.into_error("reading the log")
}

/// The newest log entry of one document.
pub(super) async fn newest(store: &Store, key: &DocumentKey) -> Result<Option<LogHead>> {
    let mut command = rawdoc! {
        "find": LOG,
        "filter": { "_id": range(key) },
        "sort": { "_id": -1 },
        "projection": { "kind": 1 },
        "limit": 1,
        "singleBatch": true,
    };
    command.append(cstr!("readConcern"), store.read_concern());
    let found = store
        .find(command)
        .await
        .map_err(|failure| failure.into_error(format!("reading the log of {key}")))?;
    Ok(match found.first() {
        Some(entry) => Some(read_head(entry)?.1),
        None => None,
    })
}

/// All log keys of a document, as a range of `_id`.
pub(super) fn range(key: &DocumentKey) -> RawDocumentBuf {
    let bound = |v| log_id_bound(key, v);
    rawdoc! { "$gte": bound(RawBson::MinKey), "$lte": bound(RawBson::MaxKey) }
}

/// A log key with something else than a version, to bound a range.
fn log_id_bound(key: &DocumentKey, v: RawBson) -> RawDocumentBuf {
    let mut id = RawDocumentBuf::new();
    id.append(cstr!("c"), key.collection());
    id.append(cstr!("d"), key.id().to_raw());
    id.append(cstr!("v"), v);
    id
}

pub(super) fn read_head(entry: &RawDocument) -> Result<(DocumentKey, LogHead)> {
    let (key, version) = read_log_id(entry)?;
    let kind = entry
        .get_str("kind")
        .map_err(|e| {
            Error::new(
                ErrorKind::Corrupt,
                format!("log entry {version} of {key} has no kind"),
            )
            .with_source(e)
        })?
        .parse()?;
    Ok((key, LogHead { version, kind }))
}
