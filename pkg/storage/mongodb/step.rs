//! One write command of a commit.

use std::sync::Arc;

use bson::{RawDocument, RawDocumentBuf};

use super::buffer::Buffer;
use super::failure::Failure;
use super::store::{LEASES, LOG, RECORDS, count};
use super::swap::{Swap, append_by_id, append_together, is_together};
use crate::document::Version;

/// What a command writes to, which decides what its failures mean.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    /// Documents of a collection of the user's.
    Documents(Arc<str>),
    /// Records.
    Records,
    /// The lease of the fence with this index in the plan.
    Lease(usize),
    /// The log.
    Log,
}

/// Deletions come first, so that they free unique values for the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verb {
    /// A deletion that must hit something.
    Delete,
    /// A deletion of what may be gone.
    Clear,
    /// Documents replaced if they are at their versions, which the pipeline compares.
    Swap,
    Update,
    Insert,
}

/// One statement of a command.
#[derive(Debug)]
pub(super) enum Statement<'a> {
    Made(RawDocumentBuf),
    /// A document to insert.
    Document(&'a RawDocument),
    Replace(Swap<'a>),
}

impl Statement<'_> {
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Made(made) => made.as_bytes().len(),
            Self::Document(document) => document.as_bytes().len(),
            Self::Replace(swap) => swap.bytes(),
        }
    }
}

/// One write command and what it must achieve.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) target: Target,
    verb: Verb,
    /// The units of the statements, in their order.
    pub(super) units: Vec<usize>,
    /// Whether the replies number one statement for each of `units`.
    pub(super) names_statements: bool,
    command: RawDocumentBuf,
}

impl Step {
    pub(super) fn new(
        target: Target,
        verb: Verb,
        statements: &[(usize, Statement<'_>)],
    ) -> Result<Self, Failure> {
        let bytes = statements
            .iter()
            .map(|(_, it)| it.bytes() + 16)
            .sum::<usize>();
        let mut command = Buffer::with_capacity(bytes + 512);
        let (name, list) = match verb {
            Verb::Delete | Verb::Clear => ("delete", "deletes"),
            Verb::Swap | Verb::Update => ("update", "updates"),
            Verb::Insert => ("insert", "documents"),
        };
        command.text(name, collection(&target)).array(list);
        let together = verb == Verb::Swap && is_together(statements.len());
        if together {
            append_together(&mut command, &swaps(statements));
        } else {
            for (index, (_, statement)) in statements.iter().enumerate() {
                append(&mut command, index, verb, statement);
            }
        }
        // The first error aborts the transaction, and what follows would only report that.
        command.close().flag("ordered", true);
        Ok(Self {
            target,
            verb,
            units: statements.iter().map(|(unit, _)| *unit).collect(),
            names_statements: !together,
            command: command.finish()?,
        })
    }

    /// The command, which is sent once.
    pub(super) fn take_command(&mut self) -> RawDocumentBuf {
        std::mem::take(&mut self.command)
    }

    pub(super) fn collection(&self) -> &str {
        collection(&self.target)
    }

    /// How many documents were replaced, where the server counts those that it leaves as they are apart.
    pub(super) fn replaced(&self, reply: &RawDocument) -> Option<usize> {
        let is_swap = self.verb == Verb::Swap;
        is_swap.then(|| usize::try_from(count(reply, "nModified")).ok())?
    }

    /// Whether all statements took effect that must.
    pub(super) fn is_achieved(&self, reply: &RawDocument) -> bool {
        let field = match self.verb {
            Verb::Clear => return true,
            Verb::Swap => "nModified",
            Verb::Delete | Verb::Update | Verb::Insert => "n",
        };
        usize::try_from(count(reply, field)) == Ok(self.units.len())
    }
}

fn collection(target: &Target) -> &str {
    match target {
        Target::Documents(name) => name,
        Target::Records => RECORDS,
        Target::Lease(_) => LEASES,
        Target::Log => LOG,
    }
}

fn swaps<'a, 'b>(statements: &'b [(usize, Statement<'a>)]) -> Vec<(&'b Swap<'a>, Version)> {
    let swaps = statements
        .iter()
        .filter_map(|(_, statement)| match statement {
            Statement::Replace(swap) => Some((swap, swap.version()?)),
            _ => None,
        });
    swaps.collect()
}

fn append(command: &mut Buffer, index: usize, verb: Verb, statement: &Statement<'_>) {
    match statement {
        Statement::Made(made) => {
            command.raw_at(index, made);
        }
        Statement::Document(document) => {
            command.raw_at(index, document);
        }
        Statement::Replace(swap) => match swap.version() {
            Some(version) if verb == Verb::Swap => append_by_id(command, index, swap, version),
            _ => swap.append_exact(command, index),
        },
    }
}
