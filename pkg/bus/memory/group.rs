use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::bus::work::{FOREVER, Lanes, Recent};
use crate::bus::{DeadLetter, LetterContent, Subscription, SubscriptionState};
use crate::document::DocumentKey;
use crate::error::{Error, ErrorKind};
use crate::event::{Event, EventId};

/// Everything that the members of a group share; a broadcast is a group of one.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) name: Arc<str>,
    pub(super) spec: Subscription,
    state: Mutex<GroupState>,
    /// One publisher at a time hands over its batch, so that batches stay together and at most one
    /// waits for room.
    intake: tokio::sync::Mutex<()>,
    /// There may be something to take.
    work: Notify,
    /// There may be room, or intake has changed.
    room: Notify,
    /// The queue may be empty, or what a draining member waits for has changed.
    settled: Notify,
}

#[derive(Debug)]
struct GroupState {
    lanes: Lanes<DocumentKey, Event>,
    recent: Recent,
    dead: Vec<DeadLetter>,
    members: Vec<MemberRef>,
    next_member: u64,
    intake: Intake,
    stalled: Option<Arc<str>>,
}

#[derive(Debug)]
struct MemberRef {
    number: u64,
    state: watch::Sender<SubscriptionState>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Intake {
    Open,
    /// The last member is leaving: the group no longer counts as a subscriber.
    Ending,
    /// The group is gone for good.
    Ended,
    /// The bus is closing: publishers are told.
    Closed,
}

/// Why a group did not accept a batch to its end.
#[derive(Debug)]
pub(super) struct Refusal {
    /// How many leading events of the batch it has accepted or does not want.
    pub(super) accepted: usize,
    pub(super) error: Error,
}

enum Step {
    Next,
    Wait,
    /// Not a subscriber any more.
    Gone,
    Refuse(Error),
}

impl Group {
    pub(super) fn new(name: Arc<str>, spec: Subscription) -> Self {
        Self {
            state: Mutex::new(GroupState {
                lanes: Lanes::new(),
                recent: Recent::default(),
                dead: Vec::new(),
                members: Vec::new(),
                next_member: 0,
                intake: Intake::Open,
                stalled: None,
            }),
            name,
            spec,
            intake: tokio::sync::Mutex::new(()),
            work: Notify::new(),
            room: Notify::new(),
            settled: Notify::new(),
        }
    }

    /// No code of others runs under this lock, so a poisoned one means nothing.
    fn state(&self) -> MutexGuard<'_, GroupState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a batch over, in order, waiting for room.
    pub(super) async fn accept(&self, events: &[Event]) -> Result<(), Refusal> {
        let _turn = self.intake.lock().await;
        for (accepted, event) in events.iter().enumerate() {
            if !self.spec.filter.matches(event) {
                continue;
            }
            loop {
                match self.offer(event) {
                    Step::Next => break,
                    Step::Wait => self.room.notified().await,
                    Step::Gone => return Ok(()),
                    Step::Refuse(error) => return Err(Refusal { accepted, error }),
                }
            }
        }
        Ok(())
    }

    fn offer(&self, event: &Event) -> Step {
        let mut state = self.state();
        match state.intake {
            Intake::Open => {}
            Intake::Ending | Intake::Ended => return Step::Gone,
            Intake::Closed => return Step::Refuse(closed()),
        }
        if state.recent.contains(event.id()) {
            return Step::Next;
        }
        if state.lanes.queued() < self.spec.queue {
            state.recent.remember(event.id());
            state.append(event.clone());
            drop(state);
            self.work.notify_one();
            return Step::Next;
        }
        // Waiting for room that nobody is going to make would hang the publisher in silence.
        let why = if let Some(reason) = &state.stalled {
            reason.to_string()
        } else if state.members.is_empty() {
            "it has no member".to_owned()
        } else {
            return Step::Wait;
        };
        Step::Refuse(Error::new(
            ErrorKind::Unavailable,
            format!(
                "queue of subscription {} is full with {} events: {why}",
                self.name,
                state.lanes.queued()
            ),
        ))
    }

    /// Adds a member; `None` if the group has ended.
    pub(super) fn join(&self, member: &watch::Sender<SubscriptionState>) -> Option<u64> {
        let mut state = self.state();
        match state.intake {
            Intake::Ended | Intake::Closed => return None,
            Intake::Open | Intake::Ending => state.intake = Intake::Open,
        }
        let number = state.next_member;
        state.next_member += 1;
        if let Some(reason) = &state.stalled {
            member.send_replace(SubscriptionState::Stalled {
                reason: Arc::clone(reason),
            });
        }
        state.members.push(MemberRef {
            number,
            state: member.clone(),
        });
        drop(state);
        self.work.notify_one();
        self.room.notify_one();
        self.settled.notify_waiters();
        Some(number)
    }

    /// Takes a member off the list. With `drain` the last one stops the intake and is told to empty
    /// the queue; otherwise what waits stays for the next member. Returns whether to drain.
    pub(super) fn leave(&self, number: u64, drain: bool) -> bool {
        let mut state = self.state();
        state.members.retain(|member| member.number != number);
        let last = state.members.is_empty();
        if last && drain && state.intake == Intake::Open {
            state.intake = Intake::Ending;
        }
        drop(state);
        self.room.notify_one();
        self.settled.notify_waiters();
        last && drain
    }

    /// Waits until a leaving last member has nothing left to do: the queue is empty, a new member took
    /// over, or nothing moves any more.
    pub(super) async fn drained(&self) {
        loop {
            let settled = self.settled.notified();
            tokio::pin!(settled);
            // Registered before looking, so that no change in between is missed.
            settled.as_mut().enable();
            {
                let state = self.state();
                let taken_over = !state.members.is_empty();
                if state.lanes.queued() == 0 || taken_over || state.stalled.is_some() {
                    return;
                }
            }
            settled.await;
        }
    }

    /// Ends the group if its last member has left for good and nothing is left in it, or, for a
    /// broadcast, in any case. Returns how many events nobody will handle now, with whether the group
    /// goes on keeping them.
    pub(super) fn end(&self) -> Leftover {
        let mut state = self.state();
        let left = state.lanes.queued();
        if !state.members.is_empty() {
            return Leftover::default();
        }
        let keeps = left > 0 && self.spec.group.is_some();
        let stalled = state.stalled.clone();
        match state.intake {
            Intake::Closed | Intake::Ended => {}
            Intake::Open | Intake::Ending if keeps => state.intake = Intake::Open,
            Intake::Open | Intake::Ending => state.intake = Intake::Ended,
        }
        drop(state);
        self.room.notify_one();
        Leftover {
            events: left,
            stalled,
        }
    }

    /// Refuses everything from now on because the bus is closing.
    pub(super) fn close_intake(&self) {
        self.state().intake = Intake::Closed;
        self.room.notify_one();
    }

    pub(super) fn has_ended(&self) -> bool {
        self.state().intake == Intake::Ended
    }

    pub(super) fn queued(&self) -> usize {
        self.state().lanes.queued()
    }

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
        let mut state = self.state();
        if state.stalled.is_some() {
            return Err(None);
        }
        let Some(attempt) = state.lanes.take(Instant::now()) else {
            return Err(state.lanes.next_due());
        };
        let more = state.lanes.has_more();
        drop(state);
        if more {
            // This worker is busy from here on: another one must see to what is ready or resting.
            self.work.notify_one();
        }
        Ok(Job {
            group: Arc::clone(self),
            key: attempt.key,
            event: attempt.item,
            failures: attempt.failures,
            settled: false,
        })
    }

    pub(super) fn dead_letters(&self, limit: usize) -> Vec<DeadLetter> {
        self.state().dead.iter().take(limit).cloned().collect()
    }

    /// Keeps bytes that are no event, if there is room: they come from nobody who would wait.
    #[cfg(any(feature = "redis", feature = "nats"))]
    pub(super) fn refuse(&self, letter: DeadLetter) {
        let mut state = self.state();
        let kept = state.dead.len() < self.spec.max_dead_letters;
        if kept {
            state.dead.push(letter);
        }
        drop(state);
        tracing::warn!(subscription = %self.name, kept, "something that is no event came");
    }

    /// Takes letters out; with `redrive` they are queued again.
    pub(super) fn remove_dead(&self, events: &[EventId], redrive: bool) -> Result<usize, Error> {
        let mut state = self.state();
        if redrive && matches!(state.intake, Intake::Ended | Intake::Closed) {
            return Err(Error::new(
                ErrorKind::Closed,
                format!("subscription {} has ended", self.name),
            ));
        }
        let (taken, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut state.dead)
            .into_iter()
            .partition(|letter| events.contains(&letter.id));
        state.dead = kept;
        let count = taken.len();
        if redrive {
            for letter in taken {
                match letter.content {
                    // Whether or not there is room: it takes the room that it had as a letter.
                    LetterContent::Event(event) => state.append(event),
                    // Nobody here can do more with it than before.
                    LetterContent::Foreign(_) => state.dead.push(letter),
                }
            }
        }
        if count > 0 && state.stalled.take().is_some() {
            for member in &state.members {
                member.state.send_replace(SubscriptionState::Running);
            }
        }
        drop(state);
        self.work.notify_one();
        self.room.notify_one();
        Ok(count)
    }

    fn succeeded(&self, key: &DocumentKey) {
        self.state().lanes.finish(key);
        self.moved();
    }

    fn failed(&self, event: &Event, failures: u32, error: String) {
        let mut state = self.state();
        if let Some(delay) = self.spec.retry.delay_after(failures) {
            state
                .lanes
                .rest(event.document(), Instant::now() + delay.min(FOREVER));
        } else if state.dead.len() < self.spec.max_dead_letters {
            state
                .dead
                .push(DeadLetter::new(event.clone(), error, failures));
            state.lanes.finish(event.document());
            tracing::warn!(
                subscription = %self.name, event = %event.id(), event_type = event.event_type(),
                attempts = failures, "event given up and put into the dead letters"
            );
        } else {
            // Nowhere to put it: the event keeps its place and everything stops until there is room.
            state.lanes.put_back(event.document());
            let reason: Arc<str> = format!(
                "all {} dead letters are taken; redrive or discard some",
                self.spec.max_dead_letters
            )
            .into();
            for member in &state.members {
                member.state.send_replace(SubscriptionState::Stalled {
                    reason: Arc::clone(&reason),
                });
            }
            tracing::error!(subscription = %self.name, %reason, "subscription stalled");
            state.stalled = Some(reason);
        }
        drop(state);
        self.moved();
    }

    fn broken_off(&self, key: &DocumentKey) {
        self.state().lanes.put_back(key);
        self.moved();
    }

    fn moved(&self) {
        self.work.notify_one();
        self.room.notify_one();
        self.settled.notify_waiters();
    }
}

impl GroupState {
    fn append(&mut self, event: Event) {
        self.lanes.append(event.document().clone(), event);
    }
}

/// What a group still held when its last member left.
#[derive(Debug, Default)]
pub(super) struct Leftover {
    pub(super) events: usize,
    pub(super) stalled: Option<Arc<str>>,
}

pub(super) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "memory bus is closed")
}

/// An attempt in progress. Dropping it without a result gives the event back to the group in its old
/// place, so a member that dies hands over what it had not finished.
#[derive(Debug)]
pub(super) struct Job {
    group: Arc<Group>,
    key: DocumentKey,
    event: Event,
    failures: u32,
    settled: bool,
}

impl Job {
    pub(super) fn event(&self) -> &Event {
        &self.event
    }

    pub(super) fn settle(mut self, result: Result<(), String>) {
        self.settled = true;
        match result {
            Ok(()) => self.group.succeeded(&self.key),
            Err(error) => self
                .group
                .failed(&self.event, self.failures.saturating_add(1), error),
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if !self.settled {
            self.group.broken_off(&self.key);
        }
    }
}
