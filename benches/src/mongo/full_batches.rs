//! The limit of batching: always-full batches of compare-and-swap updates, no events, nobody waiting.

use anyhow::{Context as _, Result, ensure};
use bson::raw::cstr;
use bson::{RawArrayBuf, RawDocumentBuf, doc, rawdoc};
use fastrand::Rng;
use futures_util::TryStreamExt as _;
use mongodb::Collection;

use super::Database;
use crate::contender::Checked;
use crate::load::Worker;
use crate::user::{COLLECTION, StoredUser, distinct_ids, new_status};

pub(crate) const BATCH: usize = 128;

pub(crate) struct FullBatches {
    users: Collection<StoredUser>,
    documents: usize,
    workers: usize,
    database: Database,
}

impl FullBatches {
    pub(crate) fn new(database: Database, documents: usize, workers: usize) -> Self {
        Self {
            users: database.users(),
            documents,
            workers,
            database,
        }
    }
}

impl Worker for FullBatches {
    async fn step(&self, task: usize, rng: &mut Rng) -> Result<u64> {
        // Every worker has documents of its own, so that no statement ever misses.
        let share = self.documents / self.workers;
        let first = share * task;
        let ids = distinct_ids(rng, first..first + share, BATCH);
        let found = self.users.find(doc! { "_id": { "$in": ids } });
        let users: Vec<StoredUser> = found
            .batch_size(BATCH as u32 + 1)
            .await?
            .try_collect()
            .await?;
        ensure!(
            users.len() == BATCH,
            "{} of {BATCH} documents are there",
            users.len()
        );
        let mut updates = RawArrayBuf::new();
        for user in &users {
            updates.push(rawdoc! {
                "q": { "_id": user.id.as_str(), "version": user.version },
                "u": { "$set": user.change(&new_status(rng)) },
            });
        }
        let mut command = RawDocumentBuf::new();
        command.append(cstr!("update"), COLLECTION);
        command.append(cstr!("updates"), updates);
        command.append(cstr!("ordered"), false);
        command.append(cstr!("writeConcern"), rawdoc! { "w": "majority" });
        let answer = self.database.raw().run_raw_command(command).await?;
        let modified = answer
            .get_i32("nModified")
            .context("the answer has a count")?;
        Ok(u64::try_from(modified)?)
    }
}

impl Checked for FullBatches {
    async fn check(&self, acknowledged: u64) -> Result<()> {
        self.database.check(acknowledged).await
    }
}
