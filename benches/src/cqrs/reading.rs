//! Aggregates with many versions and with few, and what is read of them.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use fastrand::Rng;
use nodestorage::Stored;
use nodestorage::aggregate::Repository;
use nodestorage::command::CommandOptions;

use super::account::{Account, deposit, opening};
use crate::contender::Checked;
use crate::load::{Worker, repeat};

/// Tasks that fill an aggregate together: as many as one write serves.
const FILLING_TASKS: usize = 128;

/// An aggregate with so many versions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject {
    pub(crate) id: &'static str,
    pub(crate) versions: u64,
}

/// What is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Newest,
    At(u64),
}

/// One read per operation.
#[derive(Clone)]
pub(crate) struct Reading {
    pub(crate) repository: Repository<Account>,
    pub(crate) subject: Subject,
    pub(crate) what: What,
}

impl Reading {
    pub(crate) async fn read(&self) -> Result<Stored<Account>> {
        let id = self.subject.id;
        let found = match self.what {
            What::Newest => self.repository.find(id).await?,
            What::At(version) => self.repository.load_at(id, version).await?,
        };
        found.with_context(|| format!("{id} is not there"))
    }
}

impl Worker for Reading {
    async fn step(&self, _: usize, _: &mut Rng) -> Result<u64> {
        std::hint::black_box(self.read().await?);
        Ok(1)
    }
}

impl Checked for Reading {
    /// Compares what is read with what was done: the opening, then a deposit of 1 per version.
    async fn check(&self, _: u64) -> Result<()> {
        let expected = match self.what {
            What::Newest => self.subject.versions,
            What::At(version) => version,
        };
        let found = self.read().await?;
        let (version, balance) = (found.version().get(), found.balance);
        ensure!(
            version == expected && balance == i64::try_from(expected)? - 1,
            "{} was read at version {version} with {balance}, version {expected} was asked for",
            self.subject.id
        );
        Ok(())
    }
}

/// One deposit per operation, each on the same account.
struct Filling {
    repository: Repository<Account>,
    id: &'static str,
}

impl Worker for Filling {
    async fn step(&self, _: usize, _: &mut Rng) -> Result<u64> {
        let options = CommandOptions::new();
        let done = self.repository.execute(self.id, &deposit(), options).await;
        done.with_context(|| format!("a deposit on {}", self.id))?;
        Ok(1)
    }
}

/// Makes the aggregate, by one command per version.
pub(crate) async fn fill(
    repository: &Repository<Account>,
    subject: Subject,
    tasks: Tasks,
) -> Result<()> {
    let id = subject.id;
    let command = opening(0);
    let opened = repository.execute(id, &command, CommandOptions::new());
    opened.await.with_context(|| format!("opening {id}"))?;
    let worker = Arc::new(Filling {
        repository: repository.clone(),
        id,
    });
    let tasks = match tasks {
        Tasks::Many => FILLING_TASKS,
        Tasks::One => 1,
    };
    repeat(&worker, tasks, subject.versions - 1, 0).await?;
    Ok(())
}

/// How many fill an aggregate at the same time.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Tasks {
    Many,
    /// Of aggregates that are events alone: each command reads what the one before has added.
    One,
}
