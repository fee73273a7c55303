//! Units into one transaction.
//!
//! Documents of one collection and their log entries take three round trips: `update` or `insert`, `insert`
//! into the log, `commitTransaction`.

use std::time::Instant;

use bson::{RawArrayBuf, RawDocument, RawDocumentBuf, rawdoc};
use tokio::time::timeout_at;

use super::blame::{Blame, Setback, Why};
use super::heads::{range, read_head};
use super::moved;
use super::rest;
use super::statement::{Form, Plan};
use super::step::{Step, Target};
use super::store::{LOG, Store, first_write_error};
use super::transaction::{Outcome, Transaction};
use crate::document::{DocumentKey, Version};
use crate::error::{Error, ErrorKind};
use crate::storage::backend::{CommitFailure, PartialCommit, Position, Unit, log_id};

/// The kind of a log entry that is inserted and deleted within one transaction, to hold a key against
/// writers that would create the document. Nobody ever reads one; tails leave it out.
pub(super) const PLACEHOLDER: &str = "placeholder";

/// What becomes of the other units when one has lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Others {
    /// Nothing is written.
    Wait,
    /// They are committed, where the one that lost can be left out.
    GoOn,
}

pub(super) async fn commit(
    store: &Store,
    units: &[Unit],
    others: Others,
    deadline: Instant,
) -> Result<PartialCommit, CommitFailure> {
    store.check_open().map_err(CommitFailure::Failed)?;
    let mut outcome = attempt(store, units, Form::Fast, others, deadline).await;
    if let Err(Setback::Nameless) = outcome {
        outcome = attempt(store, units, Form::Exact, others, deadline).await;
    }
    match outcome {
        Ok(committed) => Ok(committed),
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
    others: Others,
    deadline: Instant,
) -> Result<PartialCommit, Setback> {
    let mut plan = Plan::of(store, units, form).map_err(Setback::Final)?;
    if plan.steps.is_empty() && plan.absent.is_empty() {
        return Ok(PartialCommit {
            position: Position::START,
            lost: Vec::new(),
        });
    }
    let commands = plan.steps.iter_mut().map(Step::take_command).collect();
    let several = units.len() > 1;
    let mut attempt = Attempt {
        units,
        others,
        lost: Vec::new(),
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
        Outcome::Committed(position) => Ok(PartialCommit {
            position,
            lost: attempt.lost,
        }),
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
    units: &'a [Unit],
    others: Others,
    /// The units that are left out, in order.
    lost: Vec<usize>,
    blame: Blame<'a>,
}

impl Attempt<'_> {
    async fn run(
        &mut self,
        transaction: &mut Transaction<'_>,
        commands: Vec<RawDocumentBuf>,
    ) -> Result<(), Setback> {
        let plan = self.blame.plan;
        for (unit, key) in &plan.absent {
            self.hold_absent(transaction, *unit, key).await?;
        }
        for (step, command) in plan.steps.iter().zip(commands) {
            // What was lost had nothing but its documents, which come first, and its log entries, which
            // come last.
            if step.target == Target::Log && !self.lost.is_empty() {
                return self.log_the_rest(transaction).await;
            }
            let reply = self.send(transaction, step, command).await?;
            if !step.is_achieved(&reply) {
                let lost = self.without_lost(transaction, step, &reply).await?;
                self.lost.extend(lost);
            }
        }
        Ok(())
    }

    async fn send(
        &self,
        transaction: &mut Transaction<'_>,
        step: &Step,
        command: RawDocumentBuf,
    ) -> Result<RawDocumentBuf, Setback> {
        let reply = transaction
            .run(command)
            .await
            .map_err(|failure| self.blame.command_failed(failure, step.collection()))?;
        match first_write_error(&reply) {
            Some(error) => Err(self.blame.statement_failed(step, error)),
            None => Ok(reply),
        }
    }

    /// Which units of a step that came short the transaction goes on without.
    async fn without_lost(
        &self,
        transaction: &mut Transaction<'_>,
        step: &Step,
        reply: &RawDocument,
    ) -> Result<Vec<usize>, Setback> {
        let missed = || self.blame.missed(step);
        if self.others == Others::Wait {
            return Err(missed());
        }
        let lost = rest::lost(transaction, step, self.units, reply)
            .await
            .map_err(|failure| self.blame.command_failed(failure, step.collection()))?
            .ok_or_else(missed)?;
        if self.lost.len() + lost.len() >= self.units.len() {
            // Nothing is left.
            return Err(missed());
        }
        Ok(lost)
    }

    /// The log entries of the units that are not lost.
    async fn log_the_rest(&mut self, transaction: &mut Transaction<'_>) -> Result<(), Setback> {
        self.lost.sort_unstable();
        let rest = Plan::log(self.units, &self.lost).map_err(Setback::Final)?;
        for mut step in rest.steps {
            let command = step.take_command();
            let reply = self.send(transaction, &step, command).await?;
            if !step.is_achieved(&reply) {
                return Err(self.blame.missed(&step));
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
