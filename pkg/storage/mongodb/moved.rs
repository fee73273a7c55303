//! Which units' documents are no longer as the units expect.

use std::collections::HashMap;
use std::sync::Arc;

use bson::raw::CString;
use bson::{RawArrayBuf, RawDocumentBuf, rawdoc};
use futures_util::future::try_join_all;

use super::store::Store;
use crate::document::{DocumentId, DocumentKey};
use crate::error::Result;
use crate::storage::backend::{Condition, Unit, version_of};

/// Reads the versions of all documents of a commit that failed without saying whose fault it was. Somebody
/// may hold a document and not have changed it yet, so this may find nothing.
pub(super) async fn find(store: &Store, units: &[Unit]) -> Result<Vec<usize>> {
    let mut by_collection: HashMap<Arc<str>, Vec<(usize, &DocumentKey, Condition)>> =
        HashMap::new();
    for (unit, content) in units.iter().enumerate() {
        let writes = content.writes.iter();
        let writes = writes.map(|write| (&write.key, write.condition));
        let checks = content
            .checks
            .iter()
            .map(|(key, condition)| (key, *condition));
        for (key, condition) in writes.chain(checks) {
            let expected = by_collection.entry(key.collection_arc()).or_default();
            expected.push((unit, key, condition));
        }
    }
    let reads = by_collection
        .into_iter()
        .map(|(collection, expected)| find_in(store, collection, expected));
    let mut suspects: Vec<_> = try_join_all(reads).await?.into_iter().flatten().collect();
    suspects.sort_unstable();
    suspects.dedup();
    Ok(suspects)
}

async fn find_in(
    store: &Store,
    collection: Arc<str>,
    expected: Vec<(usize, &DocumentKey, Condition)>,
) -> Result<Vec<usize>> {
    let field = store.version_field(&collection);
    let mut projection = RawDocumentBuf::new();
    if let Ok(name) = CString::try_from(&*field) {
        projection.append(&name, 1);
    }
    let ids: RawArrayBuf = expected
        .iter()
        .map(|(_, key, _)| key.id().to_raw())
        .collect();
    let found = store
        .find(rawdoc! {
            "find": &*collection,
            "filter": { "_id": { "$in": ids } },
            "projection": projection,
            "batchSize": expected.len() as i64 + 1,
            "readConcern": store.read_concern(),
        })
        .await
        .map_err(|failure| failure.into_error(format!("reading {collection}")))?;
    let mut conditions = HashMap::new();
    for document in &found {
        let id = document
            .get("_id")
            .ok()
            .flatten()
            .map(DocumentId::from_bson);
        let (Some(Ok(id)), Ok(version)) = (id, version_of(document, &field)) else {
            continue;
        };
        let condition = version.map_or(Condition::Unversioned, Condition::Version);
        conditions.insert(id, condition);
    }
    let moved = expected.into_iter().filter(|(_, key, condition)| {
        conditions
            .get(key.id())
            .copied()
            .unwrap_or(Condition::Absent)
            != *condition
    });
    Ok(moved.map(|(unit, ..)| unit).collect())
}
