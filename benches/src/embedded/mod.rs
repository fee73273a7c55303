//! What the scenarios on the embedded store share: a store on disk with documents in it, and its check.

pub(crate) mod batches;
pub(crate) mod sqlite;

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use futures_util::StreamExt as _;
use nodestorage::storage::backend::{Backend, TailFrom, TailItem};
use nodestorage::storage::embedded::{EmbeddedBackend, EmbeddedOptions};
use nodestorage::{DocumentKey, Storage};

use crate::contender::Checked;
use crate::units;
use crate::user::{COLLECTION, StoredUser, id};

/// An embedded store in a file of its own.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) documents: usize,
}

impl Store {
    pub(crate) async fn create(path: &Path, documents: usize) -> Result<Self> {
        let backend = Arc::new(EmbeddedBackend::open(path, EmbeddedOptions::default())?);
        units::seed(backend.as_ref(), documents).await?;
        Ok(Self { backend, documents })
    }

    /// A storage on this store.
    pub(crate) async fn storage(&self) -> Result<Storage> {
        let builder = Storage::builder().shared_backend(Arc::clone(&self.backend));
        Ok(builder.open().await?)
    }

    pub(crate) async fn close(&self) {
        self.backend.close().await;
    }
}

impl Checked for Store {
    async fn check(&self, acknowledged: u64) -> Result<()> {
        let keys: Vec<DocumentKey> = (0..self.documents)
            .map(|index| DocumentKey::new(COLLECTION, id(index)))
            .collect();
        let mut counters = 0;
        for loaded in self.backend.load(&keys).await? {
            let document = loaded.document.context("a document is missing")?;
            let user: StoredUser = bson::deserialize_from_slice(document.as_bytes())?;
            ensure!(
                user.version == user.counter + 1,
                "{} is at version {} after {} updates",
                user.id,
                user.version,
                user.counter
            );
            counters += u64::try_from(user.counter)?;
        }
        ensure!(
            counters == acknowledged,
            "counters of the documents come to {counters}, {acknowledged} were acknowledged"
        );
        let mut entries = 0;
        let mut tail = self.backend.tail(TailFrom::Beginning);
        while let Some(item) = tail.next().await {
            match item? {
                TailItem::Entry { .. } => entries += 1,
                TailItem::Idle { .. } => break,
            }
        }
        let expected = acknowledged + self.documents as u64;
        ensure!(
            entries == expected,
            "the log has {entries} entries, {expected} were acknowledged"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::sqlite::Sqlite;
    use super::*;

    #[tokio::test]
    async fn a_lost_update_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create(&folder.path().join("store"), 300)
            .await
            .unwrap();
        store.check(0).await.unwrap();
        let error = store.check(1).await.unwrap_err();
        assert!(error.to_string().contains("1 were acknowledged"), "{error}");
        store.close().await;
        let sqlite = Sqlite::create(&folder.path().join("sqlite"), 3).unwrap();
        sqlite.check(0).await.unwrap();
        assert!(sqlite.check(1).await.is_err());
    }
}
