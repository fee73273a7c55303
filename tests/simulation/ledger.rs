//! What the calls were told, to be compared with what the store holds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use nodestorage::{DocumentKey, Error, ErrorKind, NewEvent, UpdateContext};

use crate::coverage::count;
use crate::world::{Moment, Seen};

/// How a call ended.
#[derive(Debug, Clone)]
pub(crate) enum Verdict {
    /// Acknowledged, each document at its version.
    Committed(Vec<(DocumentKey, u64)>),
    /// Decided on these states to write nothing.
    Nothing(Vec<(DocumentKey, Seen)>),
    /// Decided on this version to write nothing.
    NothingAt(DocumentKey, Option<u64>),
    /// Failed, and nothing was written.
    Failed(ErrorKind),
    /// May have been written.
    Unknown,
    /// Was dropped, is still held by somebody, or has panicked.
    Silent,
}

impl Verdict {
    pub(crate) fn of_error(key: &DocumentKey, error: &Error) -> Self {
        match error.kind() {
            ErrorKind::CommitUnknown => Self::Unknown,
            ErrorKind::VersionConflict => {
                let conflict = error.version_conflict().expect("a conflict tells versions");
                let actual = conflict.actual.map(|version| version.get());
                Self::NothingAt(key.clone(), actual)
            }
            kind => Self::Failed(kind),
        }
    }
}

/// One call.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) what: &'static str,
    /// The documents it may write.
    pub(crate) keys: Vec<DocumentKey>,
    pub(crate) from: Moment,
    pub(crate) to: Moment,
    pub(crate) verdict: Verdict,
}

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    calls: Mutex<BTreeMap<i64, Call>>,
}

impl Ledger {
    pub(crate) fn calls(&self) -> MutexGuard<'_, BTreeMap<i64, Call>> {
        self.calls.lock().unwrap()
    }

    /// A new call, and the tag by which its effects are known.
    pub(crate) fn open(&self, what: &'static str, keys: &[DocumentKey]) -> i64 {
        let mut calls = self.calls();
        let tag = calls.len() as i64 + 1;
        let call = Call {
            what,
            keys: keys.to_vec(),
            from: 0,
            to: Moment::MAX,
            verdict: Verdict::Silent,
        };
        calls.insert(tag, call);
        tag
    }

    pub(crate) fn begin(&self, tag: i64, now: Moment) {
        self.calls().get_mut(&tag).expect("opened before").from = now;
    }

    pub(crate) fn end(&self, tag: i64, now: Moment, verdict: Verdict) {
        count(match &verdict {
            Verdict::Committed(_) => "acknowledged",
            Verdict::Nothing(_) => "wrote nothing",
            Verdict::NothingAt(..) => "version conflict",
            Verdict::Failed(ErrorKind::Constraint) => "constraint",
            Verdict::Failed(ErrorKind::Timeout) => "timeout",
            Verdict::Failed(_) => "failed",
            Verdict::Unknown => "unknown",
            Verdict::Silent => "silent",
        });
        let mut calls = self.calls();
        let call = calls.get_mut(&tag).expect("opened before");
        call.to = now;
        call.verdict = verdict;
    }
}

/// What a closure saw on its last run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notes(Arc<Mutex<BTreeMap<DocumentKey, Seen>>>);

impl Notes {
    pub(crate) fn clear(&self) {
        self.0.lock().unwrap().clear();
    }

    pub(crate) fn saw(&self, key: &DocumentKey, seen: Seen) {
        self.0.lock().unwrap().insert(key.clone(), seen);
    }

    pub(crate) fn all(&self) -> Vec<(DocumentKey, Seen)> {
        self.0.lock().unwrap().clone().into_iter().collect()
    }
}

/// Leaves a call's tag in the log.
pub(crate) fn emit(context: &UpdateContext, tag: i64) {
    context.emit(tagged(tag));
}

pub(crate) fn tagged(tag: i64) -> NewEvent {
    NewEvent::new("Tagged", tag).expect("a number is JSON")
}
