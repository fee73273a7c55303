//! Documents with the newest log entries of their keys.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bson::raw::cstr;
use bson::{RawArrayBuf, RawDocument, RawDocumentBuf, rawdoc};
use futures_util::future::{join, try_join_all};
use futures_util::{StreamExt, TryStreamExt, stream};

use super::store::{LOG, Store};
use crate::document::{DocumentId, DocumentKey, Version};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::backend::{EntryKind, Loaded, LogHead, log_id, read_log_id, version_of};

/// How many single head queries run at once: more would only queue for connections.
const HEADS_AT_ONCE: usize = 8;

/// How many keys go into one `$in`, so that no command comes near its size limit with ids of the
/// largest size.
const KEYS_PER_COMMAND: usize = 1_000;

/// How many ranges of log keys go into one `$or`: the server plans each by itself.
const HEADS_PER_COMMAND: usize = 100;

pub(super) async fn load(store: &Store, keys: &[DocumentKey]) -> Result<Vec<Loaded>> {
    match keys {
        [] => Ok(Vec::new()),
        [key] => Ok(vec![load_one(store, key).await?]),
        keys => load_many(store, keys).await,
    }
}

/// Document and head in one round trip.
async fn load_one(store: &Store, key: &DocumentKey) -> Result<Loaded> {
    let command = rawdoc! {
        "find": key.collection(),
        "filter": { "_id": key.id().to_raw() },
        "limit": 1,
        "singleBatch": true,
        "readConcern": store.read_concern(),
    };
    let (found, head) = join(store.find(command), head(store, key)).await;
    let document = found
        .map_err(|failure| failure.into_error(format!("reading {key}")))?
        .pop();
    let mut head = head?;
    if may_be_behind(store, key, document.as_deref(), head) {
        head = self::head(store, key).await?;
    }
    Ok(Loaded { document, head })
}

/// Whether a head that was read beside the document may have been read before it. Then it is read
/// again, now certainly after it.
fn may_be_behind(
    store: &Store,
    key: &DocumentKey,
    document: Option<&RawDocument>,
    head: Option<LogHead>,
) -> bool {
    let version = document
        .and_then(|document| version_of(document, &store.version_field(key.collection())).ok())
        .flatten();
    match (version, head) {
        (Some(version), Some(head)) => head.version < version,
        (Some(_), None) => true,
        (None, head) => head.is_some_and(|head| head.kind != EntryKind::Deleted),
    }
}

async fn load_many(store: &Store, keys: &[DocumentKey]) -> Result<Vec<Loaded>> {
    let mut documents = read_documents(store, keys).await?;
    // From here on everything is read after the documents, so no head is older than its document.
    let mut versions = HashMap::new();
    for (key, document) in &documents {
        let field = store.version_field(key.collection());
        // A field that is no version is the caller's to report, for this document alone.
        if let Ok(Some(version)) = version_of(document, &field) {
            versions.insert(key, version);
        }
    }
    let mut heads = read_heads_at(store, &versions).await?;
    let missing: Vec<_> = keys
        .iter()
        .filter(|key| !heads.contains_key(*key))
        .map(|key| with_head(store, key))
        .collect();
    let single: Vec<_> = stream::iter(missing)
        .buffer_unordered(HEADS_AT_ONCE)
        .try_collect()
        .await?;
    for (key, head) in single {
        if let Some(head) = head {
            heads.insert(key, head);
        }
    }
    let mut repeated = HashMap::new();
    for key in keys {
        *repeated.entry(key).or_insert(0_usize) += 1;
    }
    Ok(keys
        .iter()
        .map(|key| {
            let left = repeated.get_mut(key).map_or(0, |left| {
                *left -= 1;
                *left
            });
            let document = match left {
                0 => documents.remove(key),
                _ => documents.get(key).cloned(),
            };
            Loaded {
                document,
                head: heads.get(key).copied(),
            }
        })
        .collect())
}

/// One `find` per collection and thousand keys, all at once.
async fn read_documents(
    store: &Store,
    keys: &[DocumentKey],
) -> Result<HashMap<DocumentKey, RawDocumentBuf>> {
    let mut by_collection: BTreeMap<&str, Vec<&DocumentKey>> = BTreeMap::new();
    for key in keys {
        by_collection.entry(key.collection()).or_default().push(key);
    }
    let mut reads = Vec::new();
    for (collection, keys) in by_collection {
        for keys in keys.chunks(KEYS_PER_COMMAND) {
            let mut ids = RawArrayBuf::new();
            for key in keys {
                ids.push(key.id().to_raw());
            }
            let name = keys.first().map(|key| key.collection_arc());
            let command = rawdoc! {
                "find": collection,
                "filter": { "_id": { "$in": ids } },
                "batchSize": keys.len() as i32 + 1,
                "readConcern": store.read_concern(),
            };
            reads.push(read_collection(store, name, command));
        }
    }
    Ok(try_join_all(reads).await?.into_iter().flatten().collect())
}

async fn read_collection(
    store: &Store,
    collection: Option<Arc<str>>,
    command: RawDocumentBuf,
) -> Result<Vec<(DocumentKey, RawDocumentBuf)>> {
    let collection = collection.unwrap_or_else(|| Arc::from(""));
    let found = store
        .find(command)
        .await
        .map_err(|failure| failure.into_error(format!("reading {collection}")))?;
    found
        .into_iter()
        .map(|document| {
            // The number 7 finds the stored ids 7, 7i64 and 7.0.
            let id = document
                .get("_id")
                .ok()
                .flatten()
                .map(DocumentId::from_bson)
                .ok_or_else(|| Error::new(ErrorKind::Corrupt, "a document has no _id"))
                .and_then(|id| id)
                .map_err(|e| e.context(&collection))?;
            Ok((DocumentKey::new(Arc::clone(&collection), id), document))
        })
        .collect()
}

/// The newest log entries from these versions on: usually the ones at the versions themselves, newer ones
/// where a document was restored to an older state.
async fn read_heads_at(
    store: &Store,
    versions: &HashMap<&DocumentKey, Version>,
) -> Result<HashMap<DocumentKey, LogHead>> {
    let versions: Vec<_> = versions.iter().collect();
    let reads = versions.chunks(HEADS_PER_COMMAND).map(|versions| {
        let mut ranges = RawArrayBuf::new();
        for (key, version) in versions {
            let from = log_id(key, **version);
            let to = log_id_bound(key, bson::RawBson::MaxKey);
            ranges.push(rawdoc! { "_id": { "$gte": from, "$lte": to } });
        }
        store.find(rawdoc! {
            "find": LOG,
            "filter": { "$or": ranges },
            "projection": { "kind": 1 },
            "readConcern": store.read_concern(),
        })
    });
    let found = try_join_all(reads)
        .await
        .map_err(|failure| failure.into_error("reading the log"))?;
    let mut heads: HashMap<DocumentKey, LogHead> = HashMap::new();
    for entry in found.iter().flatten() {
        let (key, head) = read_head(entry)?;
        let newest = heads.entry(key).or_insert(head);
        if head.version > newest.version {
            *newest = head;
        }
    }
    Ok(heads)
}

async fn with_head(store: &Store, key: &DocumentKey) -> Result<(DocumentKey, Option<LogHead>)> {
    Ok((key.clone(), head(store, key).await?))
}

/// The newest log entry of one document.
async fn head(store: &Store, key: &DocumentKey) -> Result<Option<LogHead>> {
    let mut command = rawdoc! {
        "find": LOG,
        "filter": { "_id": newest_first(key) },
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
pub(super) fn newest_first(key: &DocumentKey) -> RawDocumentBuf {
    let bound = |v| log_id_bound(key, v);
    rawdoc! { "$gte": bound(bson::RawBson::MinKey), "$lte": bound(bson::RawBson::MaxKey) }
}

/// A log key with something else than a version, to bound a range.
fn log_id_bound(key: &DocumentKey, v: bson::RawBson) -> RawDocumentBuf {
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
