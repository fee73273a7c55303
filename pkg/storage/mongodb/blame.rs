//! What a failed statement means, and for which units.

use bson::{RawBsonRef, RawDocument};

use super::failure::{DUPLICATE_KEY, Failure, VALIDATION};
use super::lease::lost;
use super::statement::Plan;
use super::step::{Step, Target};
use super::store::{code_and_name, reply_document};
use crate::error::{Error, ErrorKind};
use crate::storage::backend::CommitFailure;

/// Why a transaction was given up. Nothing of it was written.
#[derive(Debug)]
pub(super) enum Setback {
    /// Somebody else was faster, or is in the way.
    Conflict {
        unit: Option<usize>,
        why: Why,
    },
    /// The server refuses one of several units, and one statement for all of them cannot say which.
    Nameless,
    Final(CommitFailure),
}

#[derive(Debug)]
pub(super) enum Why {
    Server(Failure),
    /// What was found instead of what should be there.
    Found(&'static str),
}

impl Setback {
    pub(super) fn found(unit: Option<usize>, what: &'static str) -> Self {
        let why = Why::Found(what);
        Self::Conflict { unit, why }
    }

    pub(super) fn lost(unit: Option<usize>, failure: Failure) -> Self {
        let why = Why::Server(failure);
        Self::Conflict { unit, why }
    }
}

impl Why {
    /// Whether somebody holds what was to be written.
    pub(super) fn is_blocked(&self) -> bool {
        matches!(self, Self::Server(failure) if failure.is_blocked())
    }

    pub(super) fn into_failure(self, suspects: Vec<usize>) -> CommitFailure {
        let source = match self {
            Self::Found(what) => Error::new(ErrorKind::Unavailable, what),
            Self::Server(failure) => Error::new(
                ErrorKind::Unavailable,
                format!("the commit lost: {failure}"),
            )
            .with_source(failure),
        };
        CommitFailure::Conflict { suspects, source }
    }
}

/// The judge of one plan's failures.
#[derive(Debug, Clone, Copy)]
pub(super) struct Blame<'a> {
    pub(super) plan: &'a Plan,
    /// The unit to blame when nothing else says so: the only one.
    pub(super) only: Option<usize>,
    /// Whether there is a form in which each statement has an answer of its own.
    pub(super) may_ask_again: bool,
}

impl Blame<'_> {
    /// The command as a whole failed, which names no statement.
    pub(super) fn command_failed(&self, failure: Failure, collection: &str) -> Setback {
        if failure.is_conflict() {
            return Setback::lost(self.only, failure);
        }
        let kind = failure.kind();
        let concerns_a_unit = matches!(
            kind,
            ErrorKind::TooLarge | ErrorKind::Constraint | ErrorKind::Unsupported
        );
        if concerns_a_unit && self.may_ask_again {
            return Setback::Nameless;
        }
        let error = failure.into_error(format!("commit to {collection}"));
        Setback::Final(match (kind, self.only) {
            (ErrorKind::TooLarge | ErrorKind::Constraint, Some(unit)) => {
                CommitFailure::Refused { unit, error }
            }
            _ => CommitFailure::Failed(error),
        })
    }

    pub(super) fn statement_failed(&self, step: &Step, error: &RawDocument) -> Setback {
        let (code, name) = code_and_name(error);
        let index = usize::try_from(error.get_i32("index").unwrap_or(-1)).unwrap_or(usize::MAX);
        let unit = if step.names_statements {
            step.units.get(index).copied().or(self.only)
        } else {
            self.only
        };
        let failure = Failure::server(code, name);
        let Target::Documents(collection) = &step.target else {
            return match code {
                DUPLICATE_KEY => Setback::lost(unit, failure),
                _ => self.command_failed(failure, step.collection()),
            };
        };
        match failure.kind() {
            ErrorKind::Unavailable | ErrorKind::StorageFull | ErrorKind::Timeout => {
                return self.command_failed(failure, collection);
            }
            _ if code == DUPLICATE_KEY && is_on_id(error) => return Setback::lost(unit, failure),
            _ => {}
        }
        let Some(unit) = unit else {
            return if self.may_ask_again {
                Setback::Nameless
            } else {
                self.command_failed(failure, collection)
            };
        };
        let (kind, message) = match (code, failure.kind()) {
            (DUPLICATE_KEY, _) => (
                ErrorKind::Constraint,
                format!(
                    "unique index {} on {collection} has these values already",
                    index_name(error)
                ),
            ),
            (VALIDATION, _) => (
                ErrorKind::Constraint,
                format!("the validator of {collection} refuses the document"),
            ),
            (_, ErrorKind::TooLarge) => (
                ErrorKind::TooLarge,
                format!("a document of {collection} is larger than the server accepts"),
            ),
            // An index that cannot take the document: parallel arrays, a malformed location.
            _ => (
                ErrorKind::Constraint,
                format!("{collection} refuses the document: {failure}"),
            ),
        };
        let error = Error::new(kind, message).with_source(failure);
        Setback::Final(CommitFailure::Refused { unit, error })
    }

    /// Fewer statements than expected took effect.
    pub(super) fn missed(&self, step: &Step) -> Setback {
        let mut all = step.units.iter().copied();
        let first = all.next();
        let single = first.filter(|first| all.all(|unit| unit == *first));
        if let Target::Lease(index) = step.target
            && let (Some(unit), Some(fence)) = (first, self.plan.fences.get(index))
        {
            let error = lost(fence);
            return Setback::Final(CommitFailure::Refused { unit, error });
        }
        let unit = single.or(self.only);
        Setback::found(unit, "a document was changed by somebody else")
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
