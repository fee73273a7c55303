//! The sessions that commits run in: few, long-lived, and registered before they are used.
//!
//! One serves one commit at a time. A new transaction in a session ends whatever the last one left open on
//! the server, and the list of a process's sessions hardly ever changes.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ::mongodb::{Client, ClientSession, Database};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::failure::Failure;
use super::held::Held;
use super::pool::{Ended, Pool, id_of};
use super::writers::{Writers, kill};

/// How many sessions are opened and registered at once: as many as commits are usually in flight.
const AT_ONCE: usize = 4;

/// More than this many idle sessions are given back to the driver.
const MOST_IDLE: usize = 16;

/// How often a process says that it is alive. Three times within the span that it counts as alive for.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// How old the last heartbeat may be when a transaction begins, so that it has a second at least before
/// anybody takes the process for dead.
const FRESH: Duration = Duration::from_secs(2);

/// A process that has not written for so long leaves the list; its next commit takes a round trip more.
const IDLE: Duration = Duration::from_secs(60);

/// How often conflicts make the process look for dead ones. The look is a small read.
const LOOK: Duration = Duration::from_millis(500);

/// How long a message that nobody waits for may take.
const ATTEMPT: Duration = Duration::from_secs(1);

pub(super) struct Sessions {
    client: Client,
    writers: Writers,
    closed: CancellationToken,
    pool: Mutex<Pool>,
    /// Held while the registration is written, so that no older list overtakes a newer one.
    registering: tokio::sync::Mutex<()>,
    /// Work for the keeper.
    wake: Notify,
    last_look: Mutex<Option<Instant>>,
}

impl Sessions {
    pub(super) fn new(client: Client, database: Database, closed: CancellationToken) -> Self {
        Self {
            writers: Writers::new(client.clone(), database),
            client,
            closed,
            pool: Mutex::default(),
            registering: tokio::sync::Mutex::default(),
            wake: Notify::new(),
            last_look: Mutex::default(),
        }
    }

    /// A session, registered and alive.
    pub(super) async fn acquire(self: &Arc<Self>) -> Result<Held, Failure> {
        if let Some(held) = self.take() {
            return Ok(held);
        }
        loop {
            let _turn = self.registering.lock().await;
            if let Some(held) = self.take() {
                return Ok(held);
            }
            let mut new = Vec::new();
            if self.pool().idle.is_empty() {
                for _ in 0..AT_ONCE {
                    // Reads inside see one snapshot; causal consistency would only add waiting.
                    let session = self.client.start_session().causal_consistency(false);
                    new.push(session.await?);
                }
            }
            self.register(new).await?;
            self.watch();
        }
    }

    fn take(self: &Arc<Self>) -> Option<Held> {
        let mut pool = self.pool();
        let is_fresh = pool.registered.is_some_and(|sent| sent.elapsed() < FRESH);
        let session = is_fresh.then(|| pool.idle.pop_front()).flatten()?;
        pool.in_use += 1;
        pool.last_used = Some(Instant::now());
        Some(Held::new(Arc::clone(self), session))
    }

    /// Says that this process is alive; the new sessions are usable afterwards.
    async fn register(&self, new: Vec<ClientSession>) -> Result<(), Failure> {
        let mut ids = self.pool().ids.clone();
        ids.extend(new.iter().filter_map(id_of));
        let sent = Instant::now();
        self.writers.register(ids.into_iter()).await?;
        let mut pool = self.pool();
        pool.ids.extend(new.iter().filter_map(id_of));
        pool.idle.extend(new);
        pool.registered = Some(sent);
        Ok(())
    }

    /// Makes sure that the keeper is at work. It ends when the store is closed, dropped or idle.
    fn watch(self: &Arc<Self>) {
        let mut pool = self.pool();
        // The runtime that it was started in may be gone.
        if pool.keeper.as_ref().is_none_or(JoinHandle::is_finished) {
            pool.keeper = Some(tokio::spawn(Arc::clone(self).keep()));
        }
    }

    async fn keep(self: Arc<Self>) {
        let mut heartbeats = interval(HEARTBEAT);
        heartbeats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        heartbeats.tick().await;
        loop {
            tokio::select! {
                () = self.closed.cancelled() => return,
                () = self.wake.notified() => self.settle().await,
                _ = heartbeats.tick() => {
                    self.settle().await;
                    if self.rests().await {
                        return;
                    }
                    let _turn = self.registering.lock().await;
                    // If it fails, the next commit tries again before it begins.
                    let _ = timeout(ATTEMPT, self.register(Vec::new())).await;
                }
            }
        }
    }

    /// Takes an idle process off the list. Its sessions go back to the driver.
    async fn rests(&self) -> bool {
        let _turn = self.registering.lock().await;
        let idle = {
            let mut pool = self.pool();
            let rests = pool.last_used.is_none_or(|last| last.elapsed() >= IDLE);
            if pool.is_busy() || !rests {
                return false;
            }
            pool.keeper = None;
            pool.empty()
        };
        drop(idle);
        // What stays is ended and removed by the next process that looks.
        let _ = self.writers.deregister().await;
        true
    }

    /// Ends what is open and takes back what can be used again.
    async fn settle(&self) {
        let ended = std::mem::take(&mut self.pool().ended);
        for ended in ended {
            match ended {
                Ended::Aborted(mut session) => {
                    // The driver sends a message of its own, to which the answer does not matter.
                    let _ = timeout(ATTEMPT, session.abort_transaction()).await;
                    self.rest(session);
                }
                Ended::Unknown(session) => match self.kill(&session).await {
                    Ok(()) => self.forget(&session),
                    Err(_) => self.pool().ended.push(Ended::Unknown(session)),
                },
            }
        }
    }

    /// Takes back a session whose transaction is over.
    pub(super) fn rest(&self, session: ClientSession) {
        let mut pool = self.pool();
        if pool.idle.len() < MOST_IDLE {
            pool.idle.push_back(session);
        } else if let Some(id) = id_of(&session) {
            pool.ids.remove(&id);
        }
    }

    /// Strikes a session off that has ended.
    pub(super) fn forget(&self, session: &ClientSession) {
        if let Some(id) = id_of(session) {
            self.pool().ids.remove(&id);
        }
    }

    /// Ends one session, and whatever it has open.
    pub(super) async fn kill(&self, session: &ClientSession) -> Result<(), Failure> {
        kill(&self.client, id_of(session).into_iter()).await
    }

    /// Leaves a session to the keeper.
    pub(super) fn leave(&self, ended: Ended) {
        self.pool().ended.push(ended);
        self.wake.notify_one();
    }

    pub(super) fn is_returned(&self) {
        let mut pool = self.pool();
        pool.in_use = pool.in_use.saturating_sub(1);
    }

    /// After a conflict: perhaps the other one is dead.
    pub(super) async fn look_for_dead(&self) {
        {
            let mut last = self
                .last_look
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if last.is_some_and(|last| last.elapsed() < LOOK) {
                return;
            }
            *last = Some(Instant::now());
        }
        // The next conflict looks again.
        let _ = self.writers.bury().await;
    }

    /// Leaves nothing open, once commits have come to their end.
    pub(super) async fn close(&self) {
        let keeper = self.pool().keeper.take();
        if let Some(keeper) = keeper {
            let _ = keeper.await;
        }
        self.settle().await;
        let _turn = self.registering.lock().await;
        let idle = {
            let mut pool = self.pool();
            if pool.is_busy() {
                // Whoever needs the documents finds the registration.
                return;
            }
            pool.empty()
        };
        if !idle.is_empty() {
            let _ = self.writers.deregister().await;
        }
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        // Nothing panics while it is locked.
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").finish_non_exhaustive()
    }
}
