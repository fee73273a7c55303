//! SQLite as people use it in a service: one connection on a thread of its own, a transaction per update.

use std::path::Path;
use std::sync::mpsc;
use std::thread;

use anyhow::{Context as _, Result, anyhow, ensure};
use fastrand::Rng;
use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use tokio::sync::oneshot;

use crate::contender::Checked;
use crate::load::Worker;
use crate::ours::Choice;
use crate::user::{StoredUser, User, new_status};

/// WAL with a full sync: a committed transaction survives a power cut, as it does in the embedded store.
pub(crate) const SETTINGS: &[(&str, &str)] = &[("journal_mode", "WAL"), ("synchronous", "FULL")];

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// A connection on its thread.
pub(crate) struct Sqlite {
    jobs: mpsc::Sender<Job>,
    documents: usize,
}

impl Sqlite {
    pub(crate) fn create(path: &Path, documents: usize) -> Result<Self> {
        let mut connection = Connection::open(path)?;
        for (name, value) in SETTINGS {
            connection.pragma_update(None, name, value)?;
        }
        connection.execute_batch(
            "CREATE TABLE users (id TEXT PRIMARY KEY, version INTEGER NOT NULL, body TEXT NOT NULL) WITHOUT ROWID;
             CREATE TABLE log (id TEXT NOT NULL, version INTEGER NOT NULL, event TEXT NOT NULL,
                               PRIMARY KEY (id, version)) WITHOUT ROWID;",
        )?;
        let transaction = connection.transaction()?;
        {
            let mut insert = transaction.prepare("INSERT INTO users VALUES (?1, ?2, ?3)")?;
            for index in 0..documents {
                let user = StoredUser::new(index);
                let body = serde_json::to_string(&user)?;
                insert.execute(params![user.id, user.version, body])?;
            }
        }
        transaction.commit()?;
        let (jobs, queue) = mpsc::channel::<Job>();
        thread::spawn(move || {
            for job in queue {
                job(&mut connection);
            }
        });
        Ok(Self { jobs, documents })
    }

    async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (answer, answered) = oneshot::channel();
        let job = Box::new(move |connection: &mut Connection| {
            // Nobody waits any more where the answer does not arrive.
            let _ = answer.send(job(connection));
        });
        let sent = self.jobs.send(job);
        sent.map_err(|_| anyhow!("the thread of the connection has ended"))?;
        answered.await?
    }
}

fn update(connection: &mut Connection, id: &str, status: String) -> Result<()> {
    let transaction =
        Transaction::new(connection, TransactionBehavior::Immediate).context("begin")?;
    let (version, body): (i64, String) = transaction
        .prepare_cached("SELECT version, body FROM users WHERE id = ?1")?
        .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let mut user: User = serde_json::from_str(&body)?;
    user.counter += 1;
    user.status = status;
    let changed = transaction
        .prepare_cached("UPDATE users SET version = ?1, body = ?2 WHERE id = ?3 AND version = ?4")?
        .execute(params![
            version + 1,
            serde_json::to_string(&user)?,
            id,
            version
        ])?;
    ensure!(changed == 1, "{id} has moved inside of a transaction");
    let data = serde_json::json!({ "counter": user.counter, "status": user.status });
    let event = serde_json::json!({ "type": "UserUpdated", "data": data });
    transaction
        .prepare_cached("INSERT INTO log VALUES (?1, ?2, ?3)")?
        .execute(params![id, version + 1, event.to_string()])?;
    transaction.commit().context("commit")
}

impl Worker for Sqlite {
    async fn step(&self, _: usize, rng: &mut Rng) -> Result<u64> {
        let id = Choice::any_of(self.documents).pick(rng);
        let status = new_status(rng);
        self.run(move |connection| update(connection, &id, status))
            .await?;
        Ok(1)
    }
}

impl Checked for Sqlite {
    async fn check(&self, acknowledged: u64) -> Result<()> {
        let counts = |connection: &mut Connection| -> Result<(u64, u64)> {
            let counters = "SELECT sum(json_extract(body, '$.counter')) FROM users";
            Ok((
                connection.query_row(counters, [], |row| row.get(0))?,
                connection.query_row("SELECT count(*) FROM log", [], |row| row.get(0))?,
            ))
        };
        let (counters, entries) = self.run(counts).await?;
        ensure!(
            counters == acknowledged && entries == acknowledged,
            "counters come to {counters} and the log to {entries}, {acknowledged} were acknowledged"
        );
        Ok(())
    }
}
