//! Units into one transaction, and what its failures mean for them.

use std::time::Instant;

use bson::{RawArrayBuf, RawBsonRef, RawDocument, rawdoc};
use tokio::time::timeout_at;

use super::failure::{DUPLICATE_KEY, Failure, VALIDATION};
use super::lease::lost;
use super::heads::{range, read_head};
use super::statement::Plan;
use super::step::{Step, Target};
use super::store::{LOG, Store, code_and_name, count, first_write_error, reply_document};
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
    let plan = Plan::of(store, units)?;
    if plan.steps.is_empty() && plan.absent.is_empty() {
        return Ok(CommitReceipt {
            position: Position::START,
        });
    }
    let attempt = Attempt {
        plan: &plan,
        only: (units.len() == 1).then_some(0),
    };
    let until = tokio::time::Instant::from_std(deadline);
    let mut transaction = match timeout_at(until, Transaction::begin(store)).await {
        Ok(Ok(transaction)) => transaction,
        Ok(Err(failure)) => return Err(CommitFailure::Failed(failure.into_error("commit"))),
        Err(_) => return Err(timed_out()),
    };
    match timeout_at(until, attempt.run(&mut transaction)).await {
        Ok(Ok(())) => {}
        Ok(Err(failure)) => {
            transaction.abort().await;
            return Err(failure);
        }
        // Dropping the transaction kills it on the server.
        Err(_) => return Err(timed_out()),
    }
    match transaction.commit(deadline).await {
        Outcome::Committed(position) => Ok(CommitReceipt { position }),
        Outcome::NothingWritten(failure) => Err(attempt.conflict(None, failure)),
        Outcome::Unknown(failure) => {
            let error = Error::new(
                ErrorKind::CommitUnknown,
                "the deadline passed before the outcome of the commit was known",
            );
            Err(CommitFailure::Unknown(match failure {
                Some(failure) => error.with_source(failure),
                None => error,
            }))
        }
    }
}

fn timed_out() -> CommitFailure {
    CommitFailure::Failed(Error::new(
        ErrorKind::Timeout,
        "the deadline passed before the commit began; nothing was written",
    ))
}

struct Attempt<'a> {
    plan: &'a Plan,
    /// The unit to blame when nothing else says so: the only one.
    only: Option<usize>,
}

impl Attempt<'_> {
    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<(), CommitFailure> {
        for (unit, key) in &self.plan.absent {
            self.hold_absent(transaction, *unit, key).await?;
        }
        for step in &self.plan.steps {
            let reply = transaction
                .run(step.command())
                .await
                .map_err(|failure| self.command_failed(failure, step.collection()))?;
            if let Some(error) = first_write_error(&reply) {
                return Err(self.statement_failed(step, error));
            }
            if step.expected().is_some_and(|n| count(&reply, "n") != n) {
                return Err(self.missed(step));
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
    ) -> Result<(), CommitFailure> {
        let failed = |failure| self.command_failed(failure, key.collection());
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
            return Err(
                self.found_otherwise(Some(unit), "a document that should not exist is there")
            );
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
            Some(head) => read_head(&head).map_err(CommitFailure::Failed)?.1.version,
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
                return Err(self.found_otherwise(Some(unit), "a document is being created"));
            }
        }
        Ok(())
    }

    /// The command as a whole failed, which names no statement.
    fn command_failed(&self, failure: Failure, collection: &str) -> CommitFailure {
        if failure.is_conflict() {
            return self.conflict(None, failure);
        }
        let kind = failure.kind();
        let error = failure.into_error(format!("commit to {collection}"));
        match (kind, self.only) {
            (ErrorKind::TooLarge | ErrorKind::Constraint, Some(unit)) => {
                CommitFailure::Refused { unit, error }
            }
            _ => CommitFailure::Failed(error),
        }
    }

    fn statement_failed(&self, step: &Step, error: &RawDocument) -> CommitFailure {
        let (code, name) = code_and_name(error);
        let index = usize::try_from(error.get_i32("index").unwrap_or(-1)).unwrap_or(usize::MAX);
        let unit = step
            .statements
            .get(index)
            .map(|(unit, _)| *unit)
            .or(self.only);
        let failure = Failure::server(code, name);
        let (Some(unit), Target::Documents(collection)) = (unit, &step.target) else {
            return match code {
                DUPLICATE_KEY => self.conflict(unit, failure),
                _ => self.command_failed(failure, step.collection()),
            };
        };
        let refused = |kind, message| CommitFailure::Refused {
            unit,
            error: Error::new(kind, message).with_source(failure.clone()),
        };
        match (code, failure.kind()) {
            (DUPLICATE_KEY, _) if is_on_id(error) => self.conflict(Some(unit), failure),
            (DUPLICATE_KEY, _) => refused(
                ErrorKind::Constraint,
                format!(
                    "unique index {} on {collection} has these values already",
                    index_name(error)
                ),
            ),
            (VALIDATION, _) => refused(
                ErrorKind::Constraint,
                format!("the validator of {collection} refuses the document"),
            ),
            (_, ErrorKind::TooLarge) => refused(
                ErrorKind::TooLarge,
                format!("a document of {collection} is larger than the server accepts"),
            ),
            (_, ErrorKind::Unavailable | ErrorKind::StorageFull | ErrorKind::Timeout) => {
                self.command_failed(failure, collection)
            }
            // An index that cannot take the document: parallel arrays, a malformed location.
            _ => refused(
                ErrorKind::Constraint,
                format!("{collection} refuses the document: {failure}"),
            ),
        }
    }

    /// Fewer statements than expected took effect.
    fn missed(&self, step: &Step) -> CommitFailure {
        let units = || step.statements.iter().map(|(unit, _)| *unit);
        let mut all = units();
        let first = all.next();
        let single = first.filter(|first| all.all(|unit| unit == *first));
        if let Target::Lease(index) = step.target
            && let (Some(unit), Some(fence)) = (first, self.plan.fences.get(index))
        {
            return CommitFailure::Refused {
                unit,
                error: lost(fence),
            };
        }
        self.found_otherwise(single, "a document was changed by somebody else")
    }

    fn found_otherwise(&self, unit: Option<usize>, what: &str) -> CommitFailure {
        CommitFailure::Conflict {
            suspects: unit.or(self.only).into_iter().collect(),
            source: Error::new(ErrorKind::Unavailable, what),
        }
    }

    fn conflict(&self, unit: Option<usize>, failure: Failure) -> CommitFailure {
        CommitFailure::Conflict {
            suspects: unit.or(self.only).into_iter().collect(),
            source: Error::new(
                ErrorKind::Unavailable,
                format!("the commit lost: {failure}"),
            )
            .with_source(failure),
        }
    }
}

/// Whether a duplicate key is one of the `_id` index.
fn is_on_id(error: &RawDocument) -> bool {
    let Some(pattern) = reply_document(error, "keyPattern") else {
        return false;
    };
    let mut fields = pattern.iter().flatten();
    matches!(fields.next(), Some((name, RawBsonRef::Int32(1))) if name == "_id")
        && fields.next().is_none()
}

/// The name of the index that a duplicate key error is about, taken out of a message of the form
/// `E11000 duplicate key error collection: db.users index: email_1 dup key: { email: "…" }`. The values
/// behind it stay where they are.
fn index_name(error: &RawDocument) -> String {
    let name = error
        .get_str("errmsg")
        .ok()
        .and_then(|message| message.split_once(" index: "))
        .and_then(|(_, rest)| rest.split_once(" dup key: "))
        .map(|(name, _)| name.to_owned());
    name.unwrap_or_else(|| {
        let paths = reply_document(error, "keyPattern").map(|pattern| {
            let paths = pattern.iter().flatten().map(|(path, _)| path.to_string());
            paths.collect::<Vec<_>>().join(", ")
        });
        format!("on ({})", paths.unwrap_or_default())
    })
}
