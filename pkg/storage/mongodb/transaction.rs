//! One server transaction: statements, then a commit that is followed up until its outcome is known.

use std::time::{Duration, Instant};

use ::mongodb::options::{Acknowledgment, ReadConcern, SelectionCriteria, WriteConcern};
use bson::{RawBsonRef, RawDocumentBuf, Timestamp, rawdoc};
use tokio::time::{sleep, timeout, timeout_at};

use super::failure::{Failure, NO_SUCH_TRANSACTION};
use super::held::Held;
use super::store::{Store, reply_document, run_on};
use crate::storage::backend::Position;

/// How long one attempt to commit may wait for the majority before it answers that it does not know.
/// Asking again is cheap, a primary that has lost its majority never answers.
const COMMIT_ATTEMPT: Duration = Duration::from_secs(5);

/// How long a failed transaction may take to be aborted. Its documents stay locked until then; beyond
/// this the server is unreachable anyway.
const ABORT_ATTEMPT: Duration = Duration::from_secs(2);

/// How long the last question for an outcome may take, beyond the deadline.
const LAST_ATTEMPT: Duration = Duration::from_millis(500);

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

pub(super) struct Transaction<'a> {
    store: &'a Store,
    held: Held,
}

/// How a commit ended.
pub(super) enum Outcome {
    /// Committed, at or before this position.
    Committed(Position),
    /// Certainly not committed.
    NothingWritten(Failure),
    /// The deadline came first.
    Unknown(Option<Failure>),
}

impl<'a> Transaction<'a> {
    pub(super) async fn begin(store: &'a Store) -> Result<Self, Failure> {
        let mut held = store.sessions.acquire().await?;
        let confirmed = WriteConcern::builder()
            .w(Acknowledgment::Majority)
            .w_timeout(COMMIT_ATTEMPT)
            .build();
        held.session()?
            .start_transaction()
            .read_concern(ReadConcern::snapshot())
            .write_concern(confirmed)
            .selection_criteria(SelectionCriteria::ReadPreference(
                ::mongodb::options::ReadPreference::Primary,
            ))
            .await?;
        Ok(Self { store, held })
    }

    pub(super) async fn run(&mut self, command: RawDocumentBuf) -> Result<RawDocumentBuf, Failure> {
        self.store.run_in(self.held.session()?, command).await
    }

    /// Runs a `find` whose results fit the first batch.
    pub(super) async fn find_first(
        &mut self,
        command: RawDocumentBuf,
    ) -> Result<Option<RawDocumentBuf>, Failure> {
        let reply = self.run(command).await?;
        let batch = reply_document(&reply, "cursor").map(|cursor| cursor.get_array("firstBatch"));
        let Some(Ok(batch)) = batch else {
            return Err(Failure::reply("the reply has no batch"));
        };
        match batch.get(0).map_err(Failure::reply)? {
            Some(RawBsonRef::Document(found)) => Ok(Some(found.to_owned())),
            _ => Ok(None),
        }
    }

    /// Commits, and repeats that until the server knows the outcome or the deadline comes.
    ///
    /// Only success and `NoSuchTransaction` confirmed by the majority are final. Everything else, a
    /// broken connection above all, may hide a commit that went through.
    pub(super) async fn commit(mut self, deadline: Instant) -> Outcome {
        let deadline = tokio::time::Instant::from_std(deadline);
        let mut pause = FIRST_PAUSE;
        let mut last = None;
        loop {
            match timeout_at(deadline, self.try_commit()).await {
                Err(_) => break,
                Ok(Attempt::Committed(position)) => {
                    self.held.give_back();
                    return Outcome::Committed(position);
                }
                Ok(Attempt::Gone(failure)) => return self.nothing_written(failure).await,
                Ok(Attempt::Unclear(failure)) => last = Some(failure),
            }
            if timeout_at(deadline, sleep(pause)).await.is_err() {
                break;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        self.end(last).await
    }

    async fn try_commit(&mut self) -> Attempt {
        let committed = match self.held.session() {
            Ok(session) => session.commit_transaction().await.map_err(Failure::from),
            Err(failure) => Err(failure),
        };
        match committed {
            Ok(()) => Attempt::Committed(self.seen().map_or(Position::START, Position::from)),
            Err(failure)
                if failure.code() == Some(NO_SUCH_TRANSACTION) && failure.is_confirmed() =>
            {
                Attempt::Gone(failure)
            }
            Err(failure) => Attempt::Unclear(failure),
        }
    }

    async fn nothing_written(self, failure: Failure) -> Outcome {
        self.kill().await;
        Outcome::NothingWritten(failure)
    }

    /// At the deadline: ends the session, so that a commit that is still under way comes too late, and asks
    /// once more.
    async fn end(mut self, last: Option<Failure>) -> Outcome {
        self.store.raise_floor(self.seen());
        if self.held.kill().await.is_err() {
            return Outcome::Unknown(last);
        }
        let outcome = match timeout(LAST_ATTEMPT, self.try_commit()).await {
            Ok(Attempt::Committed(position)) => Outcome::Committed(position),
            Ok(Attempt::Gone(failure)) => Outcome::NothingWritten(failure),
            Ok(Attempt::Unclear(failure)) => Outcome::Unknown(Some(failure)),
            Err(_) => Outcome::Unknown(last),
        };
        self.held.forget();
        outcome
    }

    /// Aborts, so that the documents are free before anybody tries again.
    pub(super) async fn abort(mut self) {
        self.store.raise_floor(self.seen());
        // Not by the driver's own method: it hides failures, and then the documents stay locked.
        let abort = rawdoc! { "abortTransaction": 1, "writeConcern": { "w": 1 } };
        let admin = self.store.client.database("admin");
        let aborted = match self.held.session() {
            Ok(session) => timeout(ABORT_ATTEMPT, run_on(&admin, abort, Some(session))).await,
            Err(failure) => Ok(Err(failure)),
        };
        match aborted {
            Ok(Ok(_)) => self.held.give_back_aborted(),
            // Most failures have made the server abort by itself.
            Ok(Err(failure)) if failure.code() == Some(NO_SUCH_TRANSACTION) => {
                self.held.give_back_aborted();
            }
            _ => self.kill().await,
        }
    }

    /// Gives up in the middle of a statement.
    pub(super) async fn kill(mut self) {
        self.store.raise_floor(self.seen());
        if self.held.kill().await.is_ok() {
            self.held.forget();
        }
    }

    /// The cluster time of the last answer.
    fn seen(&mut self) -> Option<Timestamp> {
        self.held.session().ok()?.operation_time()
    }
}

/// How one attempt to commit ended.
enum Attempt {
    Committed(Position),
    Gone(Failure),
    Unclear(Failure),
}
