use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use super::backend::{Backend, CommitFailure, CommitReceipt, Unit};
use super::turns::Turn;
use crate::error::{Error, ErrorKind};

/// More commits at once than this only wait for each other inside the database.
const MAX_IN_FLIGHT: usize = 64;

/// Carries commits out in tasks of its own, so that a caller that is dropped changes nothing but its own
/// answer: a transaction is never left open half-way.
#[derive(Debug)]
pub(crate) struct Engine {
    backend: Arc<dyn Backend>,
    tasks: TaskTracker,
    in_flight: Arc<Semaphore>,
}

/// A commit's outcome, with the unit given back, and the turns if it failed.
pub(crate) struct Committed {
    pub(crate) unit: Unit,
    pub(crate) turns: Vec<Turn>,
    pub(crate) result: Result<CommitReceipt, CommitFailure>,
}

impl Engine {
    pub(crate) fn new(backend: Arc<dyn Backend>) -> Self {
        Self {
            backend,
            tasks: TaskTracker::new(),
            in_flight: Arc::new(Semaphore::new(MAX_IN_FLIGHT)),
        }
    }

    pub(crate) fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// Does something to its end whether or not anybody waits for it.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.tasks.spawn(work)
    }

    /// Commits a unit. Dropping the future before the first poll has ended commits nothing; later, the
    /// commit goes on. The turns are held until it is over.
    pub(crate) async fn commit(
        &self,
        unit: Unit,
        turns: Vec<Turn>,
        deadline: Instant,
    ) -> Result<Committed, Error> {
        let permit = Arc::clone(&self.in_flight)
            .acquire_owned()
            .await
            .map_err(|_| closed())?;
        let (answer, answered) = oneshot::channel();
        let backend = Arc::clone(&self.backend);
        turns.iter().for_each(Turn::entrust);
        self.tasks.spawn(async move {
            let result = backend.commit(std::slice::from_ref(&unit), deadline).await;
            drop(permit);
            turns.iter().for_each(Turn::hand_back);
            let turns = if result.is_ok() { Vec::new() } else { turns };
            let committed = Committed {
                unit,
                turns,
                result,
            };
            // The caller may be gone; the commit stands all the same.
            let _ = answer.send(committed);
        });
        answered.await.map_err(|_| {
            Error::new(
                ErrorKind::CommitUnknown,
                "the runtime stopped before the outcome of the commit was known",
            )
        })
    }

    /// Refuses new commits and waits for those under way.
    pub(crate) async fn close(&self) {
        self.in_flight.close();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the storage is closed")
}
