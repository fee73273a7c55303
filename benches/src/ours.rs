//! Our side: one call of `Storage::update` per operation.

use anyhow::{Context as _, Result};
use fastrand::Rng;
use nodestorage::Storage;
use serde::{Deserialize, Serialize};

use crate::contender::Checked;
use crate::load::Worker;
use crate::user::{COLLECTION, User, id, new_status};

/// Which documents the tasks take, at random: those from one index up to another.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Choice {
    from: usize,
    to: usize,
}

impl Choice {
    pub(crate) fn any_of(documents: usize) -> Self {
        Self {
            from: 0,
            to: documents,
        }
    }

    /// Always the same document.
    pub(crate) fn first() -> Self {
        Self { from: 0, to: 1 }
    }

    /// Any but the first.
    pub(crate) fn others(documents: usize) -> Self {
        Self {
            from: 1,
            to: documents,
        }
    }

    pub(crate) fn pick(self, rng: &mut Rng) -> String {
        id(rng.usize(self.from..self.to))
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the document is not there")]
struct Missing;

pub(crate) struct Ours<S> {
    pub(crate) storage: Storage,
    pub(crate) choice: Choice,
    /// How the store is checked.
    pub(crate) store: S,
}

impl<S: Send + Sync + 'static> Worker for Ours<S> {
    async fn step(&self, _: usize, rng: &mut Rng) -> Result<u64> {
        let id = self.choice.pick(rng);
        let status = new_status(rng);
        let change = self
            .storage
            .update(COLLECTION, &id, |user: Option<User>| {
                let mut user = user.ok_or(Missing)?;
                user.counter += 1;
                user.status.clone_from(&status);
                Ok::<_, Missing>(user)
            })
            .await
            .with_context(|| format!("update of {id}"))?;
        // A caller that looks at nothing would let the optimiser leave out what callers pay for.
        std::hint::black_box(change.version());
        Ok(1)
    }
}

impl<S: Checked> Checked for Ours<S> {
    async fn check(&self, acknowledged: u64) -> Result<()> {
        self.store.check(acknowledged).await
    }
}
