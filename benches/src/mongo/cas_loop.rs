//! The loop that people write by hand: find, then compare and swap on the version; no events.

use std::time::Duration;

use anyhow::{Context as _, Result};
use bson::doc;
use fastrand::Rng;
use mongodb::Collection;

use super::Database;
use crate::contender::Checked;
use crate::load::Worker;
use crate::ours::Choice;
use crate::user::{StoredUser, new_status};

/// Exponential backoff with full jitter: the longest first pause is about one update, the longest of all
/// what 64 writers of one document need for one round.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(128);

/// For the record.
pub(crate) const BACKOFF: &str = "exponential from 2 ms to 128 ms, full jitter";

pub(crate) async fn pause(attempt: u32, rng: &mut Rng) {
    let longest = FIRST_PAUSE
        .saturating_mul(2_u32.saturating_pow(attempt))
        .min(LONGEST_PAUSE);
    tokio::time::sleep(longest.mul_f64(rng.f64())).await;
}

pub(crate) struct CasLoop {
    users: Collection<StoredUser>,
    choice: Choice,
    database: Database,
}

impl CasLoop {
    pub(crate) fn new(database: Database, choice: Choice) -> Self {
        Self {
            users: database.users(),
            choice,
            database,
        }
    }
}

impl Worker for CasLoop {
    async fn step(&self, _: usize, rng: &mut Rng) -> Result<u64> {
        let id = self.choice.pick(rng);
        let status = new_status(rng);
        for attempt in 0.. {
            let found = self.users.find_one(doc! { "_id": &id }).await?;
            let user = found.context("the document is not there")?;
            let change = doc! { "$set": {
                "counter": user.counter + 1,
                "status": &status,
                "version": user.version + 1,
            } };
            let current = doc! { "_id": &id, "version": user.version };
            let updated = self.users.update_one(current, change).await?;
            if updated.modified_count == 1 {
                break;
            }
            pause(attempt, rng).await;
        }
        Ok(1)
    }
}

impl Checked for CasLoop {
    async fn check(&self, acknowledged: u64) -> Result<()> {
        self.database.check(acknowledged).await
    }
}
