use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::leader::{Interrupt, Leader};
use super::letters::{PARKED, parked_from_record, record_key};
use super::options::RelayOptions;
use super::progress::{Progress, held_back, some_held_back};
use super::state::RelayState;
use super::telemetry::Meter;
use crate::bus::EventBus;
use crate::document::DocumentKey;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::backend::{Backend, Lease, LeaseRequest};

/// How often to look how far the relay that holds the lease is, while someone here waits for it: well
/// below the interval of its checkpoints.
pub(super) const ELSEWHERE_POLL: Duration = Duration::from_millis(20);

/// What handles and task of a relay share.
pub(super) struct Inner {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) buses: Vec<Arc<dyn EventBus>>,
    pub(super) options: RelayOptions,
    pub(super) owner: String,
    pub(super) progress: Progress,
    pub(super) meter: Meter,
    pub(super) state: watch::Sender<RelayState>,
    pub(super) shutdown: CancellationToken,
}

/// Asks the relay to publish what it holds back of a document.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) document: DocumentKey,
    pub(super) discard: bool,
    pub(super) answer: oneshot::Sender<Result<()>>,
}

/// The task of a relay, to its end.
pub(super) async fn run(inner: Arc<Inner>, mut requests: mpsc::Receiver<Request>) {
    let ending = Ending(&inner);
    let error = work(&inner, &mut requests).await;
    if error.kind() != ErrorKind::Closed {
        tracing::error!(relay = %inner.options.name, %error, "relay stopped");
    }
    inner.stop(error);
    std::mem::forget(ending);
}

/// Says so if the task ends in another way: a bus that panics, a runtime that shuts down.
struct Ending<'a>(&'a Inner);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0
            .stop(Error::new(ErrorKind::Closed, "relay was broken off"));
    }
}

/// Lines up for the lease and publishes while holding it; returns why it ended.
async fn work(inner: &Inner, requests: &mut mpsc::Receiver<Request>) -> Error {
    if inner.buses.is_empty() {
        return inner.watch(requests).await;
    }
    loop {
        let (lease, asked_at) = match inner.wait_for_lease(requests).await {
            Ok(granted) => granted,
            Err(error) => return error,
        };
        let mut leader = Leader::new(inner, requests, lease, asked_at);
        let interrupt = leader.lead().await;
        leader.step_down(&interrupt).await;
        inner.progress.follow();
        inner.meter.leading(false);
        inner.meter.parked(0);
        match interrupt {
            Interrupt::LeaseLost => {
                tracing::warn!(relay = %inner.options.name, "relay lost its lease");
            }
            Interrupt::Shutdown => return shut_down(),
            Interrupt::Fatal(error) => return error,
        }
    }
}

impl Inner {
    pub(super) fn record_key(&self, document: &DocumentKey) -> String {
        record_key(self.backend.store_id(), document)
    }

    pub(super) fn lease_request(&self) -> LeaseRequest {
        LeaseRequest {
            name: self.options.name.clone(),
            owner: self.owner.clone(),
            ttl: self.options.lease_ttl,
        }
    }

    fn stop(&self, error: Error) {
        let error = Arc::new(error);
        self.progress.stop(&error);
        self.state.send_replace(RelayState::Stopped(error));
    }

    /// Asks for the lease until it is granted; returns it with the time at which it was asked for.
    async fn wait_for_lease(
        &self,
        requests: &mut mpsc::Receiver<Request>,
    ) -> Result<(Lease, Instant)> {
        // Ten looks per lease let a takeover begin soon after its end.
        let poll =
            (self.options.lease_ttl / 10).clamp(Duration::from_millis(10), Duration::from_secs(1));
        let request = self.lease_request();
        let mut failures = 0;
        loop {
            let asked_at = Instant::now();
            let granted = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return Err(shut_down()),
                granted = self.backend.acquire_lease(&request) => granted,
            };
            let pause = match granted {
                Ok(lease) => return Ok((lease, asked_at)),
                Err(error) if error.kind() == ErrorKind::InUse => {
                    failures = 0;
                    self.state.send_replace(RelayState::WaitingForLease);
                    poll
                }
                Err(error) if error.is_retryable() => {
                    failures += 1;
                    self.state
                        .send_replace(RelayState::Retrying(Arc::new(error)));
                    self.options.attempts.delay(failures)
                }
                Err(error) => return Err(error),
            };
            self.stand_by(Instant::now() + pause, requests).await?;
        }
    }

    /// Waits, and answers with what another relay has done.
    pub(super) async fn stand_by(
        &self,
        until: Instant,
        requests: &mut mpsc::Receiver<Request>,
    ) -> Result<()> {
        loop {
            let looking = self.progress.has_waiters();
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return Err(shut_down()),
                () = sleep_until(until) => return Ok(()),
                Some(request) = requests.recv() => {
                    let error = Error::new(
                        ErrorKind::InUse,
                        format!("another relay holds the lease {}", self.options.name),
                    );
                    // Whoever asked may be gone by now.
                    let _ = request.answer.send(Err(error));
                }
                () = self.progress.asked(), if !looking => {}
                () = sleep(ELSEWHERE_POLL), if looking => self.look_elsewhere().await,
            }
        }
    }

    /// Answers waiters from the checkpoint and the parked documents of the relay that holds the lease.
    pub(super) async fn look_elsewhere(&self) {
        let position = match self.backend.read_checkpoint(&self.options.name).await {
            Ok(Some(cursor)) => cursor.position,
            Ok(None) => return,
            Err(error) if error.is_retryable() => return,
            Err(error) => {
                let kind = error.kind();
                let message = format!("progress of another relay is not to be had: {error}");
                return self.progress.refuse(|| Error::new(kind, message.as_str()));
            }
        };
        for (number, version) in self.progress.due_elsewhere(position) {
            // Parked documents are recorded before the checkpoint passes them, so reading in this order
            // misses none.
            let result = match version {
                Some((document, version)) => {
                    let key = self.record_key(&document);
                    let record = self.backend.read_record(PARKED, &key).await;
                    record.and_then(|record| {
                        match record.as_ref().map(parked_from_record).transpose()? {
                            Some((_, first)) if first <= version => Err(held_back(&document)),
                            _ => Ok(()),
                        }
                    })
                }
                None => {
                    let parked = self.backend.read_records(PARKED, None, 1).await;
                    parked.and_then(|parked| match parked.len() {
                        0 => Ok(()),
                        some => Err(some_held_back(some)),
                    })
                }
            };
            match result {
                Err(error) if error.is_retryable() => {}
                result => self.progress.answer(number, result),
            }
        }
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay")
            .field("name", &self.options.name)
            .field("owner", &self.owner)
            .field("buses", &self.buses)
            .field("state", &*self.state.borrow())
            .finish_non_exhaustive()
    }
}

fn shut_down() -> Error {
    Error::new(ErrorKind::Closed, "relay was shut down")
}
