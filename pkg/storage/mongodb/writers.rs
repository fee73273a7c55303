//! Who writes: the sessions of each process, so that those of a dead one can be ended.
//!
//! A process that is killed in the middle of a transaction leaves it open on the server, where it holds its
//! documents for `transactionLifetimeLimitSeconds`, a minute by default. Nobody sees whose it is, so each
//! process says beforehand which sessions are its own, and until when it is certainly alive:
//! `{ _id: UUID, sessions: [UUID], until: Date }`, on the server's clock.

use std::time::Duration;

use ::mongodb::{Client, Database};
use bson::raw::cstr;
use bson::spec::BinarySubtype;
use bson::{Binary, RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf, rawdoc};
use tokio::time::timeout;
use uuid::Uuid;

use super::failure::{DUPLICATE_KEY, Failure};
use super::store::{WRITERS, find_on, run_on};

/// How long a process counts as alive after it has said so. A paused or overloaded one that wakes later
/// may find its transactions ended, and repeats them; a dead one's documents are free soon after.
const ALIVE: Duration = Duration::from_secs(3);

/// Beyond this the server is unreachable, and whoever asked had better go on.
const ATTEMPT: Duration = Duration::from_secs(1);

/// How many dead writers are cleared away at once.
const AT_ONCE: i64 = 16;

#[derive(Debug)]
pub(super) struct Writers {
    client: Client,
    database: Database,
    id: Uuid,
}

impl Writers {
    pub(super) fn new(client: Client, database: Database) -> Self {
        Self {
            client,
            database,
            id: Uuid::new_v4(),
        }
    }

    /// Says that this process is alive and has these sessions. Waits for a primary as long as the driver
    /// does.
    pub(super) async fn register(
        &self,
        sessions: impl Iterator<Item = Uuid>,
    ) -> Result<(), Failure> {
        let sessions: RawArrayBuf = sessions.map(uuid).collect();
        let mut update = RawArrayBuf::new();
        update.push(rawdoc! { "$set": {
            "sessions": { "$literal": sessions },
            "until": { "$add": ["$$NOW", ALIVE.as_millis() as i64] },
        } });
        // Not waiting for the majority: what a lost primary forgets it forgets together with the open
        // transactions, and the next heartbeat says it again.
        let command = rawdoc! {
            "findAndModify": WRITERS,
            "query": { "_id": uuid(self.id) },
            "update": update,
            "upsert": true,
            "fields": { "_id": 1 },
            "writeConcern": { "w": 1 },
        };
        let again = command.clone();
        match run_on(&self.database, command, None).await {
            Err(failure)
                if failure.is_worth_repeating() || failure.code() == Some(DUPLICATE_KEY) =>
            {
                run_on(&self.database, again, None).await
            }
            outcome => outcome,
        }
        .map(drop)
    }

    /// Takes this process off the list: it has no transaction open.
    pub(super) async fn deregister(&self) -> Result<(), Failure> {
        self.remove(rawdoc! { "_id": uuid(self.id) }).await
    }

    /// Ends the sessions of processes that have not said for too long that they are alive.
    pub(super) async fn bury(&self) -> Result<(), Failure> {
        // What is newest on the primary, acknowledged or not: an old state may show as dead who is alive.
        let command = rawdoc! {
            "find": WRITERS,
            "filter": {
                "_id": { "$ne": uuid(self.id) },
                "$expr": { "$lt": ["$until", "$$NOW"] },
            },
            "limit": AT_ONCE,
            "singleBatch": true,
            "readConcern": { "level": "local" },
        };
        let dead = timeout(ATTEMPT, find_on(&self.database, command))
            .await
            .map_err(|_| no_answer())??;
        for writer in dead {
            self.end(&writer).await?;
        }
        Ok(())
    }

    async fn end(&self, writer: &RawDocument) -> Result<(), Failure> {
        let sessions = writer.get_array("sessions").map_err(Failure::reply)?;
        let sessions = sessions.into_iter().flatten().filter_map(|id| match id {
            RawBsonRef::Binary(id) => Uuid::from_slice(id.bytes).ok(),
            _ => None,
        });
        tracing::warn!("ending the open transactions of a process that is no longer alive");
        kill(&self.client, sessions).await?;
        // Only now, or nobody would know of them. And not if the process has come back to life.
        let mut same = RawDocumentBuf::new();
        for (field, name) in [(cstr!("_id"), "_id"), (cstr!("until"), "until")] {
            if let Ok(Some(value)) = writer.get(name) {
                same.append(field, value);
            }
        }
        self.remove(same).await
    }

    async fn remove(&self, query: RawDocumentBuf) -> Result<(), Failure> {
        let command = rawdoc! {
            "findAndModify": WRITERS,
            "query": query,
            "remove": true,
            "fields": { "_id": 1 },
            "writeConcern": { "w": 1 },
        };
        timeout(ATTEMPT, run_on(&self.database, command, None))
            .await
            .map_err(|_| no_answer())?
            .map(drop)
    }
}

/// Ends sessions and aborts their transactions.
pub(super) async fn kill(
    client: &Client,
    sessions: impl Iterator<Item = Uuid>,
) -> Result<(), Failure> {
    let sessions: RawArrayBuf = sessions.map(|id| rawdoc! { "id": uuid(id) }).collect();
    if sessions.is_empty() {
        // An empty list stands for all sessions of the login.
        return Ok(());
    }
    let command = rawdoc! { "killSessions": sessions };
    timeout(ATTEMPT, run_on(&client.database("admin"), command, None))
        .await
        .map_err(|_| no_answer())?
        .map(drop)
}

fn no_answer() -> Failure {
    Failure::silence("no answer in time")
}

fn uuid(id: Uuid) -> Binary {
    Binary {
        subtype: BinarySubtype::Uuid,
        bytes: id.as_bytes().to_vec(),
    }
}
