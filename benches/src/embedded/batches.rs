//! The limit of batching on the embedded store: always-full batches on the same layout, nobody waiting.

use anyhow::{Context as _, Result};
use fastrand::Rng;
use nodestorage::DocumentKey;

use super::Store;
use crate::contender::Checked;
use crate::load::Worker;
use crate::units::{Stamp, commit};
use crate::user::{COLLECTION, StoredUser, distinct_ids, new_status};

pub(crate) const BATCH: usize = 64;

pub(crate) struct Batches {
    store: Store,
    workers: usize,
}

impl Batches {
    pub(crate) fn new(store: Store, workers: usize) -> Self {
        Self { store, workers }
    }
}

impl Worker for Batches {
    async fn step(&self, task: usize, rng: &mut Rng) -> Result<u64> {
        let backend = self.store.backend.as_ref();
        // Every worker has documents of its own, so that no unit ever conflicts.
        let share = self.store.documents / self.workers;
        let keys: Vec<DocumentKey> = distinct_ids(rng, share * task..share * (task + 1), BATCH)
            .into_iter()
            .map(|id| DocumentKey::new(COLLECTION, id))
            .collect();
        let stamp = Stamp::new(backend);
        let mut units = Vec::with_capacity(BATCH);
        for loaded in backend.load(&keys).await? {
            let before = loaded.document.context("a document is missing")?;
            let mut user: StoredUser = bson::deserialize_from_slice(before.as_bytes())?;
            user.counter += 1;
            user.status = new_status(rng);
            user.version += 1;
            units.push(stamp.update(&before, &user)?);
        }
        commit(backend, &units).await?;
        Ok(BATCH as u64)
    }
}

impl Checked for Batches {
    async fn check(&self, acknowledged: u64) -> Result<()> {
        self.store.check(acknowledged).await
    }
}
