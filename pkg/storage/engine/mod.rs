//! The commit engine: lanes and group commit.
//!
//! Updates of one document line up in a *lane*, each built on the result of the one before, which need
//! not be committed yet. What has queued up in all lanes is committed as a *batch*, a few of them at a
//! time and never two on one document. If a batch fails, everything built on it is decided again.
//! `docs/commit_engine.md` explains why it is built this way.
//!
//! No state here ever waits for a future of a caller's: reads and commits run in tasks of the engine's
//! own, and a lane is moved only by what was handed over complete.

mod batch;
mod cache;
mod commit;
mod lane;
mod options;
mod read;
mod state;
mod telemetry;
mod ticket;
mod worker;

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use self::lane::{Reader, Tip};
use self::state::{Missed, State};
use self::telemetry::Telemetry;
use self::ticket::{Answers, Ticket, give};
use super::CollectionSpec;
use super::backend::Backend;
use super::wait::before;
use crate::document::DocumentKey;
use crate::error::{Error, ErrorKind, Result};

pub(crate) use lane::View;
pub use options::CommitOptions;
pub use telemetry::CommitStatistics;
pub(crate) use telemetry::meter;
pub(crate) use ticket::{Answer, Part, Proposal};

/// A moment in the engine's own order of events.
pub(crate) type Tick = u64;

/// Which state of a document a call wants to run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    /// The newest there is, committed or about to be.
    Newest,
    /// A committed one.
    Committed,
    /// One that a read or commit has shown as committed which began after this.
    Since(Tick),
}

#[derive(Clone)]
pub(crate) struct Engine {
    shared: Arc<Shared>,
}

struct Shared {
    backend: Arc<dyn Backend>,
    options: CommitOptions,
    tasks: TaskTracker,
    state: Mutex<State>,
    /// Wakes a worker that waits for more.
    gathered: Notify,
    places: Arc<Semaphore>,
    memory: Arc<Semaphore>,
    ticks: AtomicU64,
    telemetry: Telemetry,
}

/// A place among the updates that are worked on at once.
#[derive(Debug)]
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
}

/// Keeps a document's lane while a call is on its way between reading from it and coming back.
pub(crate) struct LaneUse {
    shared: Arc<Shared>,
    key: DocumentKey,
}

impl Engine {
    pub(crate) fn new(backend: Arc<dyn Backend>, options: CommitOptions) -> Self {
        let options = options.normalised();
        let state = State::new(&options);
        let kib = (options.queue_bytes / 1024).clamp(1, Semaphore::MAX_PERMITS);
        Self {
            shared: Arc::new(Shared {
                backend,
                tasks: TaskTracker::new(),
                state: Mutex::new(state),
                gathered: Notify::new(),
                places: Arc::new(Semaphore::new(
                    options.updates_at_once.clamp(1, Semaphore::MAX_PERMITS),
                )),
                memory: Arc::new(Semaphore::new(kib)),
                ticks: AtomicU64::new(1),
                telemetry: Telemetry::default(),
                options,
            }),
        }
    }

    pub(crate) fn backend(&self) -> &Arc<dyn Backend> {
        &self.shared.backend
    }

    pub(crate) fn statistics(&self) -> CommitStatistics {
        let (queued, committing) = {
            let state = self.shared.lock();
            (state.tickets.len(), state.flying)
        };
        self.shared.telemetry.statistics(queued, committing)
    }

    /// Now, in the engine's own order of events.
    pub(crate) fn tick(&self) -> Tick {
        self.shared.tick()
    }

    /// Does something to its end whether or not anybody waits for it.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.shared.tasks.spawn(work)
    }

    /// Waits for a place among the updates that are worked on at once, first come first served.
    pub(crate) async fn admit(&self, deadline: Instant) -> Result<Place> {
        let places = Arc::clone(&self.shared.places);
        let permit = match Arc::clone(&places).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => before(deadline, places.acquire_owned())
                .await
                .ok_or_else(|| late("a place among the updates under way was free"))?
                .map_err(|_| closed())?,
        };
        Ok(Place { _permit: permit })
    }

    /// A state to run on. Cancel-safe.
    pub(crate) async fn begin(
        &self,
        key: &DocumentKey,
        spec: &Arc<CollectionSpec>,
        want: Want,
        deadline: Instant,
    ) -> Result<(LaneUse, View)> {
        let (lane, entered) = self.shared.enter(key, spec, want);
        let view = match entered {
            Entered::At(view) => view,
            Entered::Waiting(receiver) => match before(deadline, receiver).await {
                Some(read) => read.map_err(|_| closed())??,
                None => return Err(late("the document was read; nothing was written")),
            },
        };
        Ok((lane, view))
    }

    /// Waits until nothing is queued or under way on a document. Cancel-safe.
    pub(crate) async fn idle(&self, key: &DocumentKey) {
        let waiting = {
            let mut state = self.shared.lock();
            match state.lanes.get_mut(key) {
                Some(lane) if !lane.is_idle() => {
                    let (idle, waiting) = oneshot::channel();
                    lane.idlers.push(idle);
                    waiting
                }
                _ => return,
            }
        };
        // A lane that is gone is idle.
        let _ = waiting.await;
    }

    /// Hands over what was decided, and waits for what becomes of it; `None` if a document has moved on
    /// meanwhile. Once it is queued it is committed whether or not anybody waits, until the deadline
    /// passes while it is still in the queue. `until_queued` is dropped as soon as it is.
    pub(crate) async fn propose<T>(
        &self,
        proposal: Proposal,
        until_queued: T,
    ) -> Result<Option<Answer>> {
        let shared = &self.shared;
        let deadline = proposal.deadline;
        let bytes = proposal.bytes();
        let memory = shared.reserve(bytes, deadline).await?;
        let (answer, mut answered) = oneshot::channel();
        if deadline <= Instant::now() {
            return Err(late("the change was decided; nothing was written"));
        }
        let (id, seat) = {
            let now = shared.tick();
            let mut state = shared.lock();
            let id = state.number();
            let ticket = Ticket {
                id,
                parts: proposal.parts,
                entries: proposal.entries,
                checks: proposal.checks,
                records: proposal.records,
                deadline,
                bytes,
                queued_at: state.batches,
                since: Instant::now(),
                answer,
                _memory: memory,
            };
            match state.queue(ticket, now) {
                Ok(()) => {}
                Err(Missed::Moved) => {
                    drop(state);
                    shared.telemetry.missed();
                    return Ok(None);
                }
                Err(Missed::Closed) => return Err(closed()),
            };
            let active = shared.active();
            if state.gathering && (state.ready.len() >= state.enough || !state.is_missing(active)) {
                shared.gathered.notify_one();
            }
            (id, shared.pump(&mut state))
        };
        shared.start_worker(seat);
        drop(until_queued);
        match before(deadline, &mut answered).await {
            Some(answer) => answer.map(Some).map_err(|_| stopped()),
            None => shared.give_up(id, answered).map(Some),
        }
    }

    /// Refuses new proposals and waits for those that were queued.
    pub(crate) async fn close(&self) {
        self.shared.places.close();
        self.shared.memory.close();
        self.shared.lock().closed = true;
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}

enum Entered {
    At(View),
    Waiting(oneshot::Receiver<Result<View>>),
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code of a caller's runs under the lock, and nothing there panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tick(&self) -> Tick {
        self.ticks.fetch_add(1, Ordering::SeqCst)
    }

    /// How many updates are under way.
    fn active(&self) -> usize {
        self.options
            .updates_at_once
            .saturating_sub(self.places.available_permits())
    }

    fn enter(
        self: &Arc<Self>,
        key: &DocumentKey,
        spec: &Arc<CollectionSpec>,
        want: Want,
    ) -> (LaneUse, Entered) {
        let mut state = self.lock();
        let mut cached = None;
        if want == Want::Newest && !state.lanes.contains_key(key) {
            cached = state.cached(key);
        }
        let lane = state.lane(key, spec);
        lane.users += 1;
        let used = LaneUse {
            shared: Arc::clone(self),
            key: key.clone(),
        };
        if let Some((base, seen)) = cached {
            lane.tip = Some(Tip {
                base,
                seen: Some(seen),
                cached: true,
            });
        }
        let seen = lane.tip.as_ref().map(|tip| tip.seen);
        let good = match want {
            Want::Newest => seen.is_some(),
            Want::Committed => lane.is_idle() && seen.flatten().is_some(),
            Want::Since(since) => lane.is_idle() && seen.flatten() > Some(since),
        };
        if good && let Some(view) = lane.view() {
            return (used, Entered::At(view));
        }
        let after = match want {
            Want::Newest | Want::Committed => 0,
            Want::Since(since) => since,
        };
        let (answer, receiver) = oneshot::channel();
        lane.readers.push(Reader { after, answer });
        let under_way = lane.reading.is_some_and(|began| began > after);
        if !under_way && !lane.read_queued {
            lane.read_queued = true;
            state.unread.push_back(key.clone());
        }
        let seat = self.pump_reads(&mut state);
        drop(state);
        self.start_reader(seat);
        (used, Entered::Waiting(receiver))
    }

    /// Waits until what is queued leaves room for this.
    async fn reserve(
        &self,
        bytes: usize,
        deadline: Instant,
    ) -> Result<Option<OwnedSemaphorePermit>> {
        let all = self.options.queue_bytes / 1024;
        let kib = (bytes / 1024 + 1).min(all.max(1));
        let kib = u32::try_from(kib).unwrap_or(u32::MAX);
        let memory = Arc::clone(&self.memory);
        if let Ok(permit) = Arc::clone(&memory).try_acquire_many_owned(kib) {
            return Ok(Some(permit));
        }
        let permit = before(deadline, memory.acquire_many_owned(kib)).await;
        let permit = permit.ok_or_else(|| late("the queue had room for it"))?;
        permit.map(Some).map_err(|_| closed())
    }

    /// At a caller's deadline: out of the queue, or the outcome is left open.
    fn give_up(
        self: &Arc<Self>,
        id: u64,
        mut answered: oneshot::Receiver<Answer>,
    ) -> Result<Answer> {
        let why = Error::new(
            ErrorKind::Unavailable,
            "the update that this one was built on was given up",
        );
        let mut answers = Answers::new();
        let (was_queued, seat) = {
            let mut state = self.lock();
            let was_queued = state.withdraw(id, &why, &mut answers);
            (was_queued, self.pump(&mut state))
        };
        self.start_worker(seat);
        give(answers);
        if was_queued {
            return Err(late("the commit began; nothing was written"));
        }
        answered.try_recv().map_err(|_| {
            Error::new(
                ErrorKind::CommitUnknown,
                "the deadline passed before the outcome of the commit was known",
            )
        })
    }
}

impl fmt::Debug for LaneUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LaneUse").field(&self.key).finish()
    }
}

impl Drop for LaneUse {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        if let Some(lane) = state.lanes.get_mut(&self.key) {
            lane.users -= 1;
        }
        state.forget_unused(&self.key);
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the storage is closed")
}

fn stopped() -> Error {
    Error::new(
        ErrorKind::CommitUnknown,
        "the runtime stopped before the outcome of the commit was known",
    )
}

fn late(what: &str) -> Error {
    Error::new(
        ErrorKind::Timeout,
        format!("the deadline passed before {what}"),
    )
}
