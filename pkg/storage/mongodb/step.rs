//! One write command of a commit.

use std::sync::Arc;

use bson::raw::cstr;
use bson::{RawArrayBuf, RawDocumentBuf};

use super::store::{LEASES, LOG, RECORDS};

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
    Update,
    Insert,
}

/// One write command and what it must achieve.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) target: Target,
    pub(super) verb: Verb,
    /// The statements with the units they belong to.
    pub(super) statements: Vec<(usize, RawDocumentBuf)>,
}

impl Step {
    pub(super) fn collection(&self) -> &str {
        match &self.target {
            Target::Documents(name) => name,
            Target::Records => RECORDS,
            Target::Lease(_) => LEASES,
            Target::Log => LOG,
        }
    }

    /// How many statements must take effect; `None` if they need not.
    pub(super) fn expected(&self) -> Option<i64> {
        (self.verb != Verb::Clear).then_some(self.statements.len() as i64)
    }

    pub(super) fn command(&self) -> RawDocumentBuf {
        let mut list = RawArrayBuf::new();
        for (_, statement) in &self.statements {
            list.push(statement);
        }
        let mut command = RawDocumentBuf::new();
        let (verb, field) = match self.verb {
            Verb::Delete | Verb::Clear => (cstr!("delete"), cstr!("deletes")),
            Verb::Update => (cstr!("update"), cstr!("updates")),
            Verb::Insert => (cstr!("insert"), cstr!("documents")),
        };
        command.append(verb, self.collection());
        command.append(field, list);
        command
    }
}
