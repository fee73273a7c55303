use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::lag::{self, RelayLag};
use super::letters::{DEAD_LETTER, DeadLetter};
use super::run::{Inner, Request};
use super::state::RelayState;
use crate::document::{DocumentKey, Version};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Delivery;
use crate::storage::backend::Position;

/// A running relay. Cheap to clone; the relay ends when it is shut down, or when the last handle is
/// dropped.
#[derive(Debug, Clone)]
pub struct RelayHandle(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    inner: Arc<Inner>,
    requests: mpsc::Sender<Request>,
    task: TaskTracker,
    _shutdown: DropGuard,
}

impl RelayHandle {
    pub(super) fn new(
        inner: Arc<Inner>,
        requests: mpsc::Sender<Request>,
        shutdown: CancellationToken,
        task: TaskTracker,
    ) -> Self {
        Self(Arc::new(Parts {
            inner,
            requests,
            task,
            _shutdown: shutdown.drop_guard(),
        }))
    }

    /// What the relay is doing now.
    #[must_use]
    pub fn state(&self) -> RelayState {
        self.0.inner.state.borrow().clone()
    }

    /// Follows what the relay is doing.
    #[must_use]
    pub fn state_changes(&self) -> watch::Receiver<RelayState> {
        self.0.inner.state.subscribe()
    }

    /// The position up to which everything committed has been confirmed or set aside, as far as this
    /// relay published it itself. Its seconds are the database's time, so that
    /// `now - position.seconds()` bounds the lag while there is traffic.
    #[must_use]
    pub fn position(&self) -> Position {
        self.0.inner.progress.position()
    }

    /// How far the relay that holds the lease is behind the log: this one, or one in another process. Costs
    /// a few look-ups in the store; every few seconds is no burden.
    ///
    /// # Errors
    /// Those of the store; `Unsupported` if it cannot count its log.
    pub async fn lag(&self) -> Result<RelayLag> {
        lag::measure(&self.0.inner).await
    }

    /// How many documents are parked, while this relay holds the lease; else 0.
    #[must_use]
    pub fn parked_documents(&self) -> usize {
        self.0.inner.progress.parked_documents()
    }

    /// Dead letters, one per parked document, at most `limit`, in an order of their own; `after` is the
    /// document of the last one of the page before. Whichever relay wrote them.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn dead_letters(
        &self,
        after: Option<&DocumentKey>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>> {
        let backend = &self.0.inner.backend;
        let after = after.map(|document| self.0.inner.record_key(document));
        let records = backend
            .read_records(DEAD_LETTER, after.as_deref(), limit)
            .await?;
        records.iter().map(DeadLetter::from_record).collect()
    }

    /// Publishes what was held back of a document, the failed event first, then forgets its dead letter
    /// and goes on with it. Other documents wait meanwhile. Dropping the future does not stop it.
    ///
    /// # Errors
    /// `NotFound` if the document is not parked; `DeadLettered` if an event of it fails again, which
    /// leaves it parked there; `InUse` if another relay holds the lease; `Closed` if the relay has
    /// stopped; errors of the store.
    pub async fn release(&self, document: &DocumentKey) -> Result<()> {
        self.request(document, false).await
    }

    /// As [`release`](Self::release), but gives the failed event up for good.
    ///
    /// # Errors
    /// As [`release`](Self::release).
    pub async fn discard(&self, document: &DocumentKey) -> Result<()> {
        self.request(document, true).await
    }

    /// Releases all parked documents and says how many. Those that fail again stay parked.
    ///
    /// # Errors
    /// As [`release`](Self::release), except `NotFound` and `DeadLettered`.
    pub async fn release_all(&self) -> Result<usize> {
        let mut after = None;
        let mut released = 0;
        loop {
            // A page bounds memory.
            let letters = self.dead_letters(after.as_ref(), 100).await?;
            let Some(last) = letters.last() else {
                return Ok(released);
            };
            after = Some(last.document.clone());
            for letter in letters {
                match self.release(&letter.document).await {
                    Ok(()) => released += 1,
                    Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::DeadLettered) => {
                    }
                    Err(e) => return Err(e),
                }
            }
        }
    }

    /// Publishes what can be published at once, stores the checkpoint, gives up the lease and ends. A
    /// publish in flight is waited for within
    /// [`drain_timeout`](super::RelayOptions::drain_timeout); what remains is in the log.
    pub async fn shutdown(&self) {
        self.0.inner.shutdown.cancel();
        self.0.task.wait().await;
    }

    async fn request(&self, document: &DocumentKey, discard: bool) -> Result<()> {
        let gone = || Error::new(ErrorKind::Closed, "relay has stopped");
        let (answer, answered) = oneshot::channel();
        let request = Request {
            document: document.clone(),
            discard,
            answer,
        };
        self.0.requests.send(request).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

#[async_trait]
impl Delivery for RelayHandle {
    /// The log is pushed to the relay by the store, so there is nothing to hurry.
    fn committed(&self) {}

    async fn delivered(
        &self,
        document: &DocumentKey,
        version: Version,
        committed: Position,
    ) -> Result<()> {
        let version = Some((document.clone(), version));
        self.0.inner.progress.wait(version, committed).await
    }

    async fn flush(&self, up_to: Position) -> Result<()> {
        self.0.inner.progress.wait(None, up_to).await
    }

    async fn shutdown(&self) {
        Self::shutdown(self).await;
    }
}
