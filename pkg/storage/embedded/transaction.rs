//! One write transaction for a group of calls, and finding out what became of it when it fails.

use super::apply::{Stop, perform};
use super::failure::{guarded, translate};
use super::store::Store;
use super::tables::{State, Tables};
use super::work::{Answer, Job};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::backend::CommitFailure;

/// A transaction that did not succeed.
#[derive(Debug)]
pub(super) enum Lost {
    /// Nothing of it was written.
    Nothing(Error),
    /// It is not known whether it was written.
    Unknown(Error),
}

impl Lost {
    /// The answer to each call of the group.
    pub(super) fn to_failure(&self) -> CommitFailure {
        let again = |kind, error: &Error| match std::error::Error::source(error) {
            Some(source) => Error::new(kind, error.to_string()).with_source(source.to_string()),
            None => Error::new(kind, error.to_string()),
        };
        match self {
            Self::Nothing(error) => CommitFailure::Failed(again(error.kind(), error)),
            Self::Unknown(error) => CommitFailure::Unknown(again(ErrorKind::CommitUnknown, error)),
        }
    }
}

/// How far a transaction came.
#[derive(Default)]
struct Progress {
    answers: Vec<Answer>,
    state: State,
    committing: bool,
}

/// Carries out a group in one transaction. The answers hold once it returns, and with them the newest
/// position.
pub(super) fn transact(
    store: &Store,
    group: &[Job],
) -> std::result::Result<(Vec<Answer>, u64), Lost> {
    if store.is_broken() {
        store.reopen(store.generation()).map_err(Lost::Nothing)?;
    }
    let generation = store.generation();
    let mut progress = Progress::default();
    let Err(error) = guarded(|| write(store, group, &mut progress)) else {
        return Ok((progress.answers, progress.state.last));
    };
    let of_the_disk = matches!(
        error.kind(),
        ErrorKind::Unavailable | ErrorKind::StorageFull | ErrorKind::Corrupt
    );
    if !of_the_disk {
        return Err(Lost::Nothing(error));
    }
    // After such a failure the database takes no more writes until it is opened anew.
    match (store.reopen(generation), progress.committing) {
        (_, false) => Err(Lost::Nothing(error)),
        (Err(_), true) => Err(Lost::Unknown(error)),
        (Ok(()), true) => settle(store, progress, error),
    }
}

/// Finds out whether a commit happened that reported a failure. If it did, one more commit rewrites the
/// file's header and shows that the disk takes it: what is read back after a failed `fsync` may be in
/// memory only.
fn settle(
    store: &Store,
    progress: Progress,
    error: Error,
) -> std::result::Result<(Vec<Answer>, u64), Lost> {
    let Ok(found) = guarded(|| State::of(store.hold().database()?)) else {
        return Err(Lost::Unknown(error));
    };
    if found.commits < progress.state.commits {
        return Err(Lost::Nothing(error));
    }
    let generation = store.generation();
    if guarded(|| write(store, &[], &mut Progress::default())).is_err() {
        let _ = store.reopen(generation);
        return Err(Lost::Unknown(error));
    }
    Ok((progress.answers, progress.state.last))
}

fn write(store: &Store, group: &[Job], progress: &mut Progress) -> Result<()> {
    let held = store.hold();
    let mut transaction = held.database()?.begin_write().map_err(translate)?;
    // Without it, opening after a crash walks the whole file. In memory there is no opening again.
    transaction.set_quick_repair(store.durable);
    {
        let mut tables = Tables::open(&transaction)?;
        let mut state = tables.state()?;
        for job in group {
            let answer = match perform(store, &mut tables, &mut state, &job.work) {
                Ok(done) => Ok(done),
                Err(Stop::Unwritten(failure)) => Err(failure),
                Err(Stop::HalfWritten(error)) => return Err(error),
            };
            progress.answers.push(answer);
        }
        state.commits += 1;
        state.write(&mut tables.meta)?;
        progress.state = state;
    }
    if !group.is_empty() && progress.answers.iter().all(Result::is_err) {
        return transaction.abort().map_err(translate);
    }
    progress.committing = true;
    transaction.commit().map_err(translate)
}
