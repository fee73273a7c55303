//! One server transaction: statements, then a commit that is followed up until its outcome is known.

use std::time::{Duration, Instant};

use ::mongodb::ClientSession;
use ::mongodb::options::{Acknowledgment, ReadConcern, SelectionCriteria, WriteConcern};
use bson::{Bson, RawArrayBuf, RawBson, RawBsonRef, RawDocumentBuf, rawdoc};
use tokio::time::{sleep, timeout, timeout_at};

use super::failure::{Failure, NO_SUCH_TRANSACTION};
use super::store::{Store, reply_document};
use crate::storage::backend::Position;

/// How long one attempt to commit may wait for the majority before it answers that it does not know.
/// Asking again is cheap, a primary that has lost its majority never answers.
const COMMIT_ATTEMPT: Duration = Duration::from_secs(5);

/// How long a failed transaction may take to be aborted. Its documents stay locked until then; beyond
/// this the server is unreachable anyway.
const ABORT_ATTEMPT: Duration = Duration::from_secs(2);

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

pub(super) struct Transaction<'a> {
    store: &'a Store,
    /// `None` once the transaction is settled.
    session: Option<ClientSession>,
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
        // Reads inside see one snapshot; causal consistency would only add waiting.
        let mut session = store
            .client
            .start_session()
            .causal_consistency(false)
            .await?;
        let confirmed = WriteConcern::builder()
            .w(Acknowledgment::Majority)
            .w_timeout(COMMIT_ATTEMPT)
            .build();
        session
            .start_transaction()
            .read_concern(ReadConcern::snapshot())
            .write_concern(confirmed)
            .selection_criteria(SelectionCriteria::ReadPreference(
                ::mongodb::options::ReadPreference::Primary,
            ))
            .await?;
        Ok(Self {
            store,
            session: Some(session),
        })
    }

    pub(super) async fn run(&mut self, command: RawDocumentBuf) -> Result<RawDocumentBuf, Failure> {
        match &mut self.session {
            Some(session) => self.store.run_in(session, command).await,
            None => Err(Failure::reply("the transaction is over")),
        }
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
        let Some(mut session) = self.session.take() else {
            return Outcome::Unknown(None);
        };
        let deadline = tokio::time::Instant::from_std(deadline);
        let mut pause = FIRST_PAUSE;
        let mut last = None;
        loop {
            let failure = match timeout_at(deadline, session.commit_transaction()).await {
                Err(_) => break,
                Ok(Ok(())) => {
                    let position = session
                        .operation_time()
                        .map_or(Position::START, Position::from);
                    return Outcome::Committed(position);
                }
                Ok(Err(error)) => Failure::from(error),
            };
            let aborted = failure.code() == Some(NO_SUCH_TRANSACTION)
                || (failure.has_label("TransientTransactionError") && failure.code().is_some());
            if aborted && failure.is_confirmed() {
                self.store.raise_floor(session.operation_time());
                return Outcome::NothingWritten(failure);
            }
            last = Some(failure);
            if timeout_at(deadline, sleep(pause)).await.is_err() {
                break;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        Outcome::Unknown(last)
    }

    /// Aborts, so that the documents are free before anybody tries again.
    pub(super) async fn abort(mut self) {
        if let Some(mut session) = self.session.take() {
            self.store.raise_floor(session.operation_time());
            // If it fails, the server aborts by itself when the transaction has lived too long.
            let _ = timeout(ABORT_ATTEMPT, session.abort_transaction()).await;
        }
    }
}

impl Drop for Transaction<'_> {
    /// A transaction that is dropped in the middle, by a deadline or a cancelled caller, may be open on
    /// the server without the driver knowing, if its first statement was under way. Killing the session
    /// frees the documents at once instead of after a minute.
    fn drop(&mut self) {
        let Some(session) = self.session.take() else {
            return;
        };
        self.store.raise_floor(session.operation_time());
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let admin = self.store.client.database("admin");
        runtime.spawn(async move {
            let id = session.id().get("id").cloned().unwrap_or(Bson::Null);
            if let Ok(id) = RawBson::try_from(id) {
                let mut sessions = RawArrayBuf::new();
                sessions.push(rawdoc! { "id": id });
                let kill = admin.run_raw_command(rawdoc! { "killSessions": sessions });
                let _ = timeout(ABORT_ATTEMPT, kill).await;
            }
            // Not before: back in the driver's pool it may serve somebody else, who must not be killed.
            drop(session);
        });
    }
}
