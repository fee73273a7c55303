use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Acknowledgement, Claim, Payload, Position};
use crate::bus::RedeliveryPolicy;
use crate::bus::work::{FOREVER, Lanes, Recent};
use crate::document::DocumentKey;
use crate::event::Event;

/// What one member holds: its partitions, what was read from them and is not finished, and what is
/// finished and not acknowledged. No more than `capacity` of both together.
#[derive(Debug)]
pub(super) struct Desk {
    state: Mutex<State>,
    capacity: usize,
    /// There may be something to take.
    work: Notify,
    /// There may be room, or the claims have changed.
    pub(super) intake: Notify,
    /// There is something to acknowledge.
    pub(super) handled: Notify,
    /// Something has moved: for whoever waits for partitions to be idle, or empty.
    settled: Notify,
}

#[derive(Debug)]
struct State {
    owned: BTreeMap<u32, Owned>,
    /// The partition to take from next, so that none starves another.
    turn: u32,
    handled: Vec<Acknowledgement>,
    /// Taken from `handled`, on its way to the broker.
    acknowledging: Vec<Acknowledgement>,
    stalled: Option<Arc<str>>,
    /// Reads on until there is nothing more, and then no further.
    draining: bool,
    /// Rises whenever the claims that may be read change.
    revision: u64,
}

#[derive(Debug)]
struct Owned {
    claim: Claim,
    /// Cancelled when the claim is lost: handlers are dropped.
    lost: CancellationToken,
    lanes: Lanes<Lane, Item>,
    recent: Recent,
    busy: usize,
    /// Is being given back: nothing new is read or taken.
    yielding: bool,
    /// The broker had nothing more at some moment since draining began.
    exhausted: bool,
}

/// Events about a document share a lane; what is no event has one of its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Lane {
    Document(DocumentKey),
    Foreign(Position),
}

#[derive(Debug, Clone)]
struct Item {
    position: Position,
    content: Content,
}

/// What lies at a position of a partition.
#[derive(Debug, Clone)]
pub(super) enum Content {
    Event(Event),
    Foreign { payload: Payload, error: String },
}

/// An attempt in progress. Dropping it without a result puts it back in its old place.
#[derive(Debug)]
pub(super) struct Job {
    desk: Arc<Desk>,
    lane: Lane,
    done: Acknowledgement,
    pub(super) content: Content,
    failures: u32,
    /// Cancelled when the claim is lost.
    pub(super) lost: CancellationToken,
    settled: bool,
}

impl Desk {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            state: Mutex::new(State {
                owned: BTreeMap::new(),
                turn: 0,
                handled: Vec::new(),
                acknowledging: Vec::new(),
                stalled: None,
                draining: false,
                revision: 0,
            }),
            capacity,
            work: Notify::new(),
            intake: Notify::new(),
            handled: Notify::new(),
            settled: Notify::new(),
        }
    }

    /// No code of others runs under this lock, so a poisoned one means nothing.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn moved(&self) {
        self.work.notify_one();
        self.intake.notify_one();
        self.settled.notify_waiters();
    }

    /// Waits until `reached` says so; it is asked whenever something has moved.
    pub(super) async fn until(&self, mut reached: impl FnMut() -> bool) {
        loop {
            let settled = self.settled.notified();
            tokio::pin!(settled);
            // Registered before looking, so that no change in between is missed.
            settled.as_mut().enable();
            if reached() {
                return;
            }
            settled.await;
        }
    }

    /// Has whoever waits in [`until`](Self::until) look again.
    pub(super) fn nudge(&self) {
        self.moved();
    }

    // Partitions.

    /// The claims that are held, those being given back included.
    pub(super) fn claims(&self) -> Vec<Claim> {
        self.state().owned.values().map(|it| it.claim).collect()
    }

    /// How many partitions are held and not being given back.
    pub(super) fn kept(&self) -> usize {
        let state = self.state();
        state.owned.values().filter(|it| !it.yielding).count()
    }

    pub(super) fn add(&self, claims: &[Claim]) {
        let mut state = self.state();
        for claim in claims {
            state.forget(claim.partition);
            state.owned.insert(
                claim.partition,
                Owned {
                    claim: *claim,
                    lost: CancellationToken::new(),
                    lanes: Lanes::new(),
                    recent: Recent::default(),
                    busy: 0,
                    yielding: false,
                    exhausted: false,
                },
            );
            state.revision += 1;
        }
        drop(state);
        self.moved();
    }

    /// Drops partitions with everything in them; handlers at work on them are broken off.
    pub(super) fn lose(&self, lost: impl Fn(Claim) -> bool) -> usize {
        let mut state = self.state();
        let gone: Vec<u32> = state
            .owned
            .values()
            .filter(|it| lost(it.claim))
            .map(|it| it.claim.partition)
            .collect();
        for partition in &gone {
            state.forget(*partition);
        }
        drop(state);
        self.moved();
        gone.len()
    }

    /// Begins to give back so many partitions, the last ones first.
    pub(super) fn give_back(&self, count: usize) {
        let mut state = self.state();
        let kept = state.owned.values_mut().rev().filter(|it| !it.yielding);
        for owned in kept.take(count) {
            owned.yielding = true;
        }
        state.revision += 1;
        drop(state);
        self.moved();
    }

    /// Takes off the desk what is being given back and is idle, with everything acknowledged.
    pub(super) fn take_given_back(&self) -> Vec<Claim> {
        let mut state = self.state();
        let idle: Vec<Claim> = state
            .owned
            .values()
            .filter(|it| it.yielding && it.busy == 0 && !state.unacknowledged(it.claim))
            .map(|it| it.claim)
            .collect();
        for claim in &idle {
            state.forget(claim.partition);
        }
        idle
    }

    pub(super) fn has_given_back(&self) -> bool {
        let state = self.state();
        state
            .owned
            .values()
            .any(|it| it.yielding && it.busy == 0 && !state.unacknowledged(it.claim))
    }

    // Reading.

    /// What to read now and how much of it; `None` while nothing should be read.
    pub(super) fn wanted(&self) -> Option<Wanted> {
        let state = self.state();
        let wanted = |it: &&Owned| !it.yielding && !(state.draining && it.exhausted);
        let kept = state.owned.values().filter(wanted);
        let claims: Vec<Claim> = kept.map(|it| it.claim).collect();
        let room = self.capacity.saturating_sub(state.held());
        // Many small reads would cost more than they bring while there is work to do.
        let worth_it = room >= self.capacity.div_ceil(4) || !state.has_ready();
        (!claims.is_empty() && room > 0 && worth_it).then_some(Wanted {
            claims,
            room,
            draining: state.draining,
            revision: state.revision,
        })
    }

    /// Waits until the claims that may be read are not those of that revision any more.
    pub(super) async fn changed(&self, revision: u64) {
        self.until(|| self.state().revision != revision).await;
    }

    /// Accepts something read, in order. What repeats an event or is not wanted counts as handled.
    pub(super) fn accept(&self, claim: Claim, position: Position, incoming: Incoming) {
        let mut state = self.state();
        let Some(owned) = state.current(claim).filter(|it| !it.yielding) else {
            // Not acknowledged, so the next owner gets it.
            return;
        };
        let (lane, content) = match incoming {
            Incoming::Unwanted => {
                state.handled.push(Acknowledgement { claim, position });
                drop(state);
                self.handled.notify_one();
                return;
            }
            Incoming::Event { event, redriven } => {
                if !owned.recent.remember(event.id()) && !redriven {
                    state.handled.push(Acknowledgement { claim, position });
                    drop(state);
                    self.handled.notify_one();
                    return;
                }
                let lane = Lane::Document(event.document().clone());
                (lane, Content::Event(event))
            }
            Incoming::Foreign { payload, error } => {
                (Lane::Foreign(position), Content::Foreign { payload, error })
            }
        };
        owned.lanes.append(lane, Item { position, content });
        drop(state);
        self.work.notify_one();
    }

    // Draining.

    /// From here on reads go on until the broker has nothing more. One that is under way began too
    /// early to tell, so it is given up.
    pub(super) fn begin_drain(&self) {
        let mut state = self.state();
        state.draining = true;
        state.revision += 1;
        drop(state);
        self.moved();
    }

    /// A read that gave nothing.
    pub(super) fn exhausted(&self, claims: &[Claim]) {
        let mut state = self.state();
        for claim in claims {
            if let Some(owned) = state.current(*claim) {
                owned.exhausted = true;
            }
        }
        drop(state);
        self.moved();
    }

    /// Whether `partitions` are held, the broker has nothing more for them, and all is acknowledged.
    pub(super) fn is_drained(&self, partitions: usize) -> bool {
        let state = self.state();
        state.held() == 0
            && state.owned.len() >= partitions
            && state.owned.values().all(|it| it.exhausted)
    }

    /// How many events were read and are not finished.
    pub(super) fn queued(&self) -> usize {
        self.state().queued()
    }

    // Work.

    /// Waits for the next attempt. Dropping the future takes nothing.
    pub(super) async fn next(self: &Arc<Self>) -> Job {
        loop {
            let due = match self.take() {
                Ok(job) => return job,
                Err(due) => due,
            };
            match due {
                Some(due) => {
                    tokio::select! {
                        () = self.work.notified() => {}
                        () = tokio::time::sleep_until(due) => {}
                    }
                }
                None => self.work.notified().await,
            }
        }
    }

    fn take(self: &Arc<Self>) -> Result<Job, Option<Instant>> {
        let mut guard = self.state();
        let state = &mut *guard;
        if state.stalled.is_some() {
            return Err(None);
        }
        let now = Instant::now();
        let mut due: Option<Instant> = None;
        let turn = state.turn;
        let ranges = [(turn, u32::MAX), (0, turn)];
        for (from, to) in ranges {
            for (partition, owned) in state.owned.range_mut(from..to) {
                if owned.yielding {
                    continue;
                }
                let Some(attempt) = owned.lanes.take(now) else {
                    due = due.into_iter().chain(owned.lanes.next_due()).min();
                    continue;
                };
                owned.busy += 1;
                state.turn = partition + 1;
                let job = Job {
                    desk: Arc::clone(self),
                    lane: attempt.key,
                    done: Acknowledgement {
                        claim: owned.claim,
                        position: attempt.item.position,
                    },
                    content: attempt.item.content,
                    failures: attempt.failures,
                    lost: owned.lost.clone(),
                    settled: false,
                };
                if state.owned.values().any(|it| it.lanes.has_more()) {
                    // This worker is busy from here on: another one must see to what is ready or
                    // resting.
                    self.work.notify_one();
                }
                return Ok(job);
            }
        }
        Err(due)
    }

    // Acknowledging.

    /// What is to be acknowledged now; [`acknowledged`](Self::acknowledged) says that it was.
    pub(super) fn take_handled(&self) -> Vec<Acknowledgement> {
        let mut state = self.state();
        state.acknowledging = std::mem::take(&mut state.handled);
        state.acknowledging.clone()
    }

    /// What [`take_handled`](Self::take_handled) gave last and has not been acknowledged yet.
    pub(super) fn acknowledging(&self) -> Vec<Acknowledgement> {
        self.state().acknowledging.clone()
    }

    /// Whether anything is left to acknowledge.
    pub(super) fn has_handled(&self) -> bool {
        let state = self.state();
        !state.handled.is_empty() || !state.acknowledging.is_empty()
    }

    pub(super) fn acknowledged(&self) {
        self.state().acknowledging.clear();
        self.moved();
    }

    // Stalling.

    pub(super) fn stall(&self, reason: Option<Arc<str>>) {
        self.state().stalled = reason;
        self.moved();
    }

    pub(super) fn stalled(&self) -> Option<Arc<str>> {
        self.state().stalled.clone()
    }
}

/// What to read.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) claims: Vec<Claim>,
    pub(super) room: usize,
    pub(super) draining: bool,
    /// For [`Desk::changed`].
    pub(super) revision: u64,
}

/// Something read, as the desk has to know it.
#[derive(Debug)]
pub(super) enum Incoming {
    /// An event that does not pass the filter.
    Unwanted,
    Event {
        event: Event,
        redriven: bool,
    },
    Foreign {
        payload: Payload,
        error: String,
    },
}

impl State {
    fn current(&mut self, claim: Claim) -> Option<&mut Owned> {
        let owned = self.owned.get_mut(&claim.partition)?;
        (owned.claim == claim).then_some(owned)
    }

    fn forget(&mut self, partition: u32) {
        if let Some(owned) = self.owned.remove(&partition) {
            owned.lost.cancel();
            self.revision += 1;
            // Its acknowledgements would be passed over.
            self.handled.retain(|it| it.claim != owned.claim);
        }
    }

    fn queued(&self) -> usize {
        self.owned.values().map(|it| it.lanes.queued()).sum()
    }

    fn held(&self) -> usize {
        self.queued() + self.handled.len() + self.acknowledging.len()
    }

    fn has_ready(&self) -> bool {
        self.owned.values().any(|it| it.lanes.has_ready())
    }

    fn unacknowledged(&self, claim: Claim) -> bool {
        let mut all = self.handled.iter().chain(&self.acknowledging);
        all.any(|it| it.claim == claim)
    }
}

impl Job {
    pub(super) fn done(&self) -> Acknowledgement {
        self.done
    }

    /// How many attempts there were when this one fails as well.
    pub(super) fn attempts(&self) -> u32 {
        self.failures.saturating_add(1)
    }

    /// It was handled, or needs no handling any more, and is to be acknowledged.
    pub(super) fn handled(self) {
        self.finish(true);
    }

    /// It lies in the dead letters, which acknowledged it.
    pub(super) fn buried(self) {
        self.finish(false);
    }

    fn finish(mut self, acknowledge: bool) {
        self.settle(|owned, lane| owned.lanes.finish(lane), acknowledge);
    }

    /// It failed. Says whether it will be tried again; otherwise it stays in work.
    pub(super) fn retried(&mut self, policy: RedeliveryPolicy) -> bool {
        let Some(delay) = policy.delay_after(self.attempts()) else {
            return false;
        };
        let until = Instant::now() + delay.min(FOREVER);
        self.settle(|owned, lane| owned.lanes.rest(lane, until), false);
        true
    }

    fn settle(&mut self, how: impl FnOnce(&mut Owned, &Lane), acknowledge: bool) {
        self.settled = true;
        let mut state = self.desk.state();
        // A lost claim took its lanes along.
        let Some(owned) = state.current(self.done.claim) else {
            return;
        };
        owned.busy -= 1;
        how(owned, &self.lane);
        if acknowledge {
            state.handled.push(self.done);
            self.desk.handled.notify_one();
        }
        drop(state);
        self.desk.moved();
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if !self.settled {
            self.settle(|owned, lane| owned.lanes.put_back(lane), false);
        }
    }
}
