//! What the tasks of a projection and its handles share.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::build::{Build, BuildProgress};
use super::handled::Handled;
use super::ledger::{Builds, Ledger};
use super::letters::Letters;
use super::options::ProjectionOptions;
use super::state::ProjectionState;
use super::target::ProjectionTarget;
use crate::document::DocumentKey;
use crate::error::Result;
use crate::storage::backend::{Backend, Cursor};

/// How long readers may go on with a build that was replaced by another process.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);

pub(super) struct Shared {
    pub(super) name: String,
    /// The version of the code.
    pub(super) version: u32,
    pub(super) backend: Arc<dyn Backend>,
    pub(super) target: Arc<dyn ProjectionTarget>,
    pub(super) options: ProjectionOptions,
    pub(super) ledger: Ledger,
    /// The builds as they were last read.
    pub(super) builds: watch::Sender<Builds>,
    pub(super) state: watch::Sender<ProjectionState>,
    pub(super) progress: watch::Sender<Option<BuildProgress>>,
    pub(super) handled: Handled,
    pub(super) shutdown: CancellationToken,
    /// Something about the builds has changed.
    pub(super) wake: Notify,
    seats: Mutex<BTreeMap<Build, Seat>>,
    read_at: Mutex<Option<Instant>>,
}

/// A build that runs in this process.
#[derive(Debug)]
struct Seat {
    state: ProjectionState,
    requests: mpsc::Sender<Request>,
}

/// Something to do with a parked document.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) document: DocumentKey,
    /// Whether the failed event is given up.
    pub(super) discard: bool,
    pub(super) answer: oneshot::Sender<Result<()>>,
}

impl Shared {
    pub(super) fn new(
        name: &str,
        version: u32,
        backend: Arc<dyn Backend>,
        target: Arc<dyn ProjectionTarget>,
        options: ProjectionOptions,
    ) -> Self {
        Self {
            name: name.to_owned(),
            version,
            ledger: Ledger::new(Arc::clone(&backend), name),
            backend,
            target,
            options,
            builds: watch::Sender::new(Builds::default()),
            state: watch::Sender::new(ProjectionState::Starting),
            progress: watch::Sender::new(None),
            handled: Handled::default(),
            shutdown: CancellationToken::new(),
            wake: Notify::new(),
            seats: Mutex::default(),
            read_at: Mutex::default(),
        }
    }

    /// The name of the lease of a build, and of its checkpoint.
    pub(super) fn lease_name(&self, build: Build) -> String {
        format!("projection/{}/{build}", self.name)
    }

    pub(super) fn letters(&self, build: Build) -> Letters {
        Letters::new(&self.backend, &self.name, build)
    }

    pub(super) async fn checkpoint(&self, build: Build) -> Result<Option<Cursor>> {
        self.backend.read_checkpoint(&self.lease_name(build)).await
    }

    pub(super) fn is_live(&self, build: Build) -> bool {
        self.builds.borrow().live == Some(build)
    }

    /// The builds, as they are in the store or were a moment ago.
    pub(super) async fn current(&self) -> Result<Builds> {
        let is_fresh = {
            let read_at = lock(&self.read_at);
            read_at.is_some_and(|at| at.elapsed() < LOOK_EVERY)
        };
        if is_fresh {
            return Ok(self.builds.borrow().clone());
        }
        let builds = self.ledger.read().await?;
        self.note(builds.clone());
        Ok(builds)
    }

    /// Notes builds that were read.
    pub(super) fn note(&self, builds: Builds) {
        *lock(&self.read_at) = Some(Instant::now());
        self.builds.send_if_modified(|known| {
            let changes = builds.is_after(known);
            if changes {
                *known = builds;
            }
            changes
        });
    }

    /// A build begins to run here.
    pub(super) fn sit_down(&self, build: Build, requests: mpsc::Sender<Request>) {
        let seat = Seat {
            state: ProjectionState::Starting,
            requests,
        };
        self.seats().insert(build, seat);
        self.show();
    }

    /// A build does not run here any more.
    pub(super) fn leave(&self, build: Build) {
        self.seats().remove(&build);
        self.show();
    }

    pub(super) fn set(&self, build: Build, state: ProjectionState) {
        if let Some(seat) = self.seats().get_mut(&build) {
            seat.state = state;
        }
        self.show();
    }

    /// Where requests to the builds that run here go.
    pub(super) fn requests(&self) -> Vec<mpsc::Sender<Request>> {
        let seats = self.seats();
        seats.values().map(|seat| seat.requests.clone()).collect()
    }

    /// What the projection shows as its state: trouble of any build first, else what the live one does.
    fn show(&self) {
        let live = self.builds.borrow().live;
        let shown = {
            let seats = self.seats();
            let trouble = seats
                .values()
                .filter(|seat| seat.state.error().is_some())
                .map(|seat| &seat.state)
                .next();
            let of_live = live.and_then(|live| seats.get(&live));
            let any = || seats.values().next_back();
            trouble
                .or_else(|| of_live.or_else(any).map(|seat| &seat.state))
                .cloned()
        };
        let Some(shown) = shown else { return };
        self.state.send_if_modified(|state| {
            let changes = !is_same(state, &shown);
            *state = shown;
            changes
        });
    }

    /// No code of others runs under this lock, so a poisoned one means nothing.
    fn seats(&self) -> MutexGuard<'_, BTreeMap<Build, Seat>> {
        lock(&self.seats)
    }
}

/// Whether nobody who waits for a change needs to look.
fn is_same(a: &ProjectionState, b: &ProjectionState) -> bool {
    use ProjectionState::{Building, Following, Starting, WaitingForLease};
    match (a, b) {
        (Starting, Starting) | (WaitingForLease, WaitingForLease) | (Following, Following) => true,
        (Building(a), Building(b)) => a == b,
        _ => false,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("name", &self.name)
            .field("version", &self.version)
            .field("state", &*self.state.borrow())
            .finish_non_exhaustive()
    }
}
