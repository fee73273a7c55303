//! Units into one transaction.
//!
//! Documents of one collection and their log entries take three round trips: `update` or `insert`, `insert`
//! into the log, `commitTransaction`.

use std::time::Instant;

use bson::{RawArrayBuf, RawDocumentBuf, rawdoc};
use tokio::time::timeout_at;

use super::blame::{Blame, Setback, Why};
use super::heads::{range, read_head};
use super::moved;
use super::statement::{Form, Plan};
use super::step::Step;
use super::store::{LOG, Store, first_write_error};
use super::transaction::{Outcome, Transaction};
use crate::document::{DocumentKey, Version};
use crate::error::{Error, ErrorKind};
use crate::storage::backend::{CommitFailure, CommitReceipt, Position, Unit, log_id};

/// The kind of a log entry that is inserted and deleted within one transaction, to hold a key against
/// writers that would create the document. Nobody ever reads one; tails leave it out.
pub(super) const PLACEHOLDER: &str = "placeholder";

pub(super) async fn commit(
    store: &Store,
    units: &[Unit],
    deadline: Instant,
) -> Result<CommitReceipt, CommitFailure> {
    store.check_open().map_err(CommitFailure::Failed)?;
    let mut outcome = attempt(store, units, Form::Fast, deadline).await;
    if let Err(Setback::Nameless) = outcome {
        outcome = attempt(store, units, Form::Exact, deadline).await;
    }
    match outcome {
        Ok(position) => Ok(CommitReceipt { position }),
        Err(Setback::Final(failure)) => Err(failure),
        Err(Setback::Conflict { unit, why }) => {
            Err(explain(store, units, unit, why, deadline).await)
        }
        Err(Setback::Nameless) => Err(Why::Found("a unit was refused").into_failure(Vec::new())),
    }
}

async fn attempt(
    store: &Store,
    units: &[Unit],
    form: Form,
    deadline: Instant,
) -> Result<Position, Setback> {
    let mut plan = Plan::of(store, units, form).map_err(Setback::Final)?;
    if plan.steps.is_empty() && plan.absent.is_empty() {
        return Ok(Position::START);
    }
    let commands = plan.steps.iter_mut().map(Step::take_command).collect();
    let several = units.len() > 1;
    let attempt = Attempt {
        blame: Blame {
            plan: &plan,
            only: (!several).then_some(0),
            may_ask_again: several && form == Form::Fast,
        },
    };
    let until = tokio::time::Instant::from_std(deadline);
    let mut transaction = match timeout_at(until, Transaction::begin(store)).await {
        Ok(Ok(transaction)) => transaction,
        Ok(Err(failure)) => {
            let error = failure.into_error("commit");
            return Err(Setback::Final(CommitFailure::Failed(error)));
        }
        Err(_) => return Err(timed_out()),
    };
    match timeout_at(until, attempt.run(&mut transaction, commands)).await {
        Ok(Ok(())) => {}
        Ok(Err(setback)) => {
            transaction.abort().await;
            return Err(setback);
        }
        Err(_) => {
            transaction.kill().await;
            return Err(timed_out());
        }
    }
    match transaction.commit(deadline).await {
        Outcome::Committed(position) => Ok(position),
        Outcome::NothingWritten(failure) => Err(Setback::lost(attempt.blame.only, failure)),
        Outcome::Unknown(failure) => {
            let error = Error::new(
                ErrorKind::CommitUnknown,
                "the deadline passed before the outcome of the commit was known",
            );
            let error = match failure {
                Some(failure) => error.with_source(failure),
                None => error,
            };
            Err(Setback::Final(CommitFailure::Unknown(error)))
        }
    }
}

fn timed_out() -> Setback {
    Setback::Final(CommitFailure::Failed(Error::new(
        ErrorKind::Timeout,
        "the deadline passed before the commit began; nothing was written",
    )))
}

/// A conflict with the units that are under suspicion: the one that a statement named, or those whose
/// documents are no longer as expected. None, where somebody holds a document that has not changed yet.
async fn explain(
    store: &Store,
    units: &[Unit],
    unit: Option<usize>,
    why: Why,
    deadline: Instant,
) -> CommitFailure {
    let until = tokio::time::Instant::from_std(deadline);
    if why.is_blocked() {
        let _ = timeout_at(until, store.sessions.look_for_dead()).await;
    }
    let suspects = match unit {
        Some(unit) => vec![unit],
        None => match timeout_at(until, moved::find(store, units)).await {
            Ok(Ok(suspects)) => suspects,
            _ => Vec::new(),
        },
    };
    why.into_failure(suspects)
}

struct Attempt<'a> {
    blame: Blame<'a>,
}

impl Attempt<'_> {
    async fn run(
        &self,
        transaction: &mut Transaction<'_>,
        commands: Vec<RawDocumentBuf>,
    ) -> Result<(), Setback> {
        for (unit, key) in &self.blame.plan.absent {
            self.hold_absent(transaction, *unit, key).await?;
        }
        for (step, command) in self.blame.plan.steps.iter().zip(commands) {
            let reply = transaction
                .run(command)
                .await
                .map_err(|failure| self.blame.command_failed(failure, step.collection()))?;
            if let Some(error) = first_write_error(&reply) {
                return Err(self.blame.statement_failed(step, error));
            }
            if !step.is_achieved(&reply) {
                return Err(self.blame.missed(step));
            }
        }
        Ok(())
    }

    /// Makes sure that there is no document and that nobody creates one before the commit.
    ///
    /// Whoever creates it through this system appends the next log entry of its key, so that key is
    /// taken and given back. A program that creates it by itself at the same time is ordered after
    /// this commit: it has read nothing that this commit writes.
    async fn hold_absent(
        &self,
        transaction: &mut Transaction<'_>,
        unit: usize,
        key: &DocumentKey,
    ) -> Result<(), Setback> {
        let failed = |failure| self.blame.command_failed(failure, key.collection());
        let document = transaction
            .find_first(rawdoc! {
                "find": key.collection(),
                "filter": { "_id": key.id().to_raw() },
                "projection": { "_id": 1 },
                "limit": 1,
                "singleBatch": true,
            })
            .await
            .map_err(failed)?;
        if document.is_some() {
            let what = "a document that should not exist is there";
            return Err(Setback::found(Some(unit), what));
        }
        let head = transaction
            .find_first(rawdoc! {
                "find": LOG,
                "filter": { "_id": range(key) },
                "sort": { "_id": -1 },
                "projection": { "kind": 1 },
                "limit": 1,
                "singleBatch": true,
            })
            .await
            .map_err(failed)?;
        let version = match head {
            Some(head) => {
                let corrupt = |error| Setback::Final(CommitFailure::Failed(error));
                read_head(&head).map_err(corrupt)?.1.version
            }
            None => Version::NONE,
        };
        let id = log_id(key, version.next());
        let mut entries = RawArrayBuf::new();
        entries.push(rawdoc! { "_id": id.clone(), "kind": PLACEHOLDER });
        let mut deletes = RawArrayBuf::new();
        deletes.push(rawdoc! { "q": { "_id": id }, "limit": 1 });
        for command in [
            rawdoc! { "insert": LOG, "documents": entries },
            rawdoc! { "delete": LOG, "deletes": deletes },
        ] {
            let reply = transaction.run(command).await.map_err(failed)?;
            if first_write_error(&reply).is_some() {
                return Err(Setback::found(Some(unit), "a document is being created"));
            }
        }
        Ok(())
    }
}
