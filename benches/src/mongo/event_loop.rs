//! The hand-written loop with events: find, compare and swap, and the insert of an event, in a transaction
//! per update.

use anyhow::{Context as _, Result};
use bson::{DateTime, Document, doc};
use fastrand::Rng;
use mongodb::error::{Error, TRANSIENT_TRANSACTION_ERROR, UNKNOWN_TRANSACTION_COMMIT_RESULT};
use mongodb::options::ReadConcern;
use mongodb::{ClientSession, Collection};

use super::cas_loop::pause;
use super::{Database, majority};
use crate::contender::Checked;
use crate::load::Worker;
use crate::ours::Choice;
use crate::user::{StoredUser, new_status};

pub(crate) const EVENTS: &str = "events";

pub(crate) struct EventLoop {
    users: Collection<StoredUser>,
    events: Collection<Document>,
    choice: Choice,
    database: Database,
}

/// How an attempt ended.
enum Attempt {
    Committed,
    /// Another writer was faster.
    Lost,
}

impl EventLoop {
    pub(crate) fn new(database: Database, choice: Choice) -> Self {
        Self {
            users: database.users(),
            events: database.raw().collection(EVENTS),
            choice,
            database,
        }
    }

    async fn attempt(
        &self,
        session: &mut ClientSession,
        id: &str,
        status: &str,
    ) -> Result<Attempt> {
        session
            .start_transaction()
            .read_concern(ReadConcern::snapshot())
            .write_concern(majority())
            .await?;
        let found = self
            .users
            .find_one(doc! { "_id": id })
            .session(&mut *session)
            .await?;
        let user = found.context("the document is not there")?;
        let (counter, version) = (user.counter + 1, user.version + 1);
        let change = doc! { "$set": { "counter": counter, "status": status, "version": version } };
        let current = doc! { "_id": id, "version": user.version };
        let updating = self
            .users
            .update_one(current, change)
            .session(&mut *session);
        if updating.await?.modified_count != 1 {
            session.abort_transaction().await?;
            return Ok(Attempt::Lost);
        }
        let event = doc! {
            "type": "UserUpdated",
            "user": id,
            "version": version,
            "at": DateTime::now(),
            "data": { "counter": counter, "status": status },
        };
        self.events.insert_one(event).session(&mut *session).await?;
        loop {
            match session.commit_transaction().await {
                Ok(()) => return Ok(Attempt::Committed),
                Err(error) if error.contains_label(UNKNOWN_TRANSACTION_COMMIT_RESULT) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn is_transient(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<Error>();
    error.is_some_and(|error| error.contains_label(TRANSIENT_TRANSACTION_ERROR))
}

impl Worker for EventLoop {
    async fn step(&self, _: usize, rng: &mut Rng) -> Result<u64> {
        let id = self.choice.pick(rng);
        let status = new_status(rng);
        let mut session = self.database.client().start_session().await?;
        for attempt in 0.. {
            match self.attempt(&mut session, &id, &status).await {
                Ok(Attempt::Committed) => break,
                Ok(Attempt::Lost) => {}
                Err(error) if is_transient(&error) => {
                    // The server has aborted it already; this only tells the session.
                    let _ = session.abort_transaction().await;
                }
                Err(error) => return Err(error),
            }
            pause(attempt, rng).await;
        }
        Ok(1)
    }
}

impl Checked for EventLoop {
    async fn check(&self, acknowledged: u64) -> Result<()> {
        self.database.check(acknowledged).await
    }
}
