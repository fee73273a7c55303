//! Documents with the newest log entries of their keys.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bson::{RawArrayBuf, RawDocument, RawDocumentBuf, rawdoc};
use futures_util::future::{join, try_join_all};

use super::heads;
use super::store::Store;
use crate::document::{DocumentId, DocumentKey};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::backend::{EntryKind, Loaded, LogHead, version_of};

/// How many keys go into one `$in`, so that no command comes near its size limit with ids of the
/// largest size.
const KEYS_PER_COMMAND: usize = 1_000;

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
    let (found, head) = join(store.find(command), heads::newest(store, key)).await;
    let document = found
        .map_err(|failure| failure.into_error(format!("reading {key}")))?
        .pop();
    let mut head = head?;
    if may_be_behind(store, key, document.as_deref(), head) {
        head = heads::newest(store, key).await?;
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
    // Heads are read after the documents, so that none is older than its document.
    let heads = heads::read(store, keys, &documents).await?;
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
