use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};

use tokio::time::Instant;

use crate::bus::recent::Recent;
use crate::document::DocumentKey;
use crate::event::Event;

/// How many event ids a group remembers to recognise repetitions: a relay repeats at most what it
/// published since its last checkpoint, by default some thousand events. About 200 kB per group.
const REMEMBERED_IDS: usize = 4_096;

/// The events that a group has accepted and not finished, one lane per document.
///
/// A lane is in exactly one of three places: `ready`, with a worker (`busy`), or `resting` until its
/// front event may be tried again. That is what keeps a document's events in order, whoever works.
/// The front event stays in its lane while it is in work, so a worker that vanishes loses nothing.
#[derive(Debug)]
pub(super) struct Lanes {
    lanes: HashMap<DocumentKey, Lane>,
    ready: VecDeque<DocumentKey>,
    /// With a sequence number, so that keys are never compared.
    resting: BinaryHeap<Reverse<(Instant, u64, DocumentKey)>>,
    rests: u64,
    queued: usize,
    capacity: usize,
    recent: Recent,
}

#[derive(Debug, Default)]
struct Lane {
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    event: Event,
    failures: u32,
}

/// What became of an offered event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offer {
    Accepted,
    Repeated,
    Full,
}

/// One attempt at the front event of a lane.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) event: Event,
    /// Failed attempts before this one.
    pub(super) failures: u32,
}

impl Lanes {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            lanes: HashMap::new(),
            ready: VecDeque::new(),
            resting: BinaryHeap::new(),
            rests: 0,
            queued: 0,
            capacity,
            recent: Recent::new(REMEMBERED_IDS),
        }
    }

    /// How many events wait or are in work.
    pub(super) fn queued(&self) -> usize {
        self.queued
    }

    /// Accepts an event unless there is no room, or its id was accepted lately.
    pub(super) fn offer(&mut self, event: &Event) -> Offer {
        if self.recent.contains(event.id()) {
            return Offer::Repeated;
        }
        if self.queued >= self.capacity {
            return Offer::Full;
        }
        self.recent.remember(event.id());
        self.append(event.clone());
        Offer::Accepted
    }

    /// Puts an event behind those of its document, whether or not there is room: a dead letter that is
    /// redriven takes the room it had as a letter.
    pub(super) fn append(&mut self, event: Event) {
        let key = event.document().clone();
        let lane = self.lanes.entry(key.clone()).or_default();
        if lane.waiting.is_empty() {
            self.ready.push_back(key);
        }
        lane.waiting.push_back(Waiting { event, failures: 0 });
        self.queued += 1;
    }

    /// Takes the next attempt that may be made, which occupies its lane.
    pub(super) fn take(&mut self, now: Instant) -> Option<Attempt> {
        while let Some(Reverse((until, ..))) = self.resting.peek() {
            if *until > now {
                break;
            }
            if let Some(Reverse((_, _, key))) = self.resting.pop() {
                self.ready.push_back(key);
            }
        }
        let key = self.ready.pop_front()?;
        let front = self.lanes.get(&key)?.waiting.front()?;
        Some(Attempt {
            event: front.event.clone(),
            failures: front.failures,
        })
    }

    /// When the next resting lane may be tried again.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.resting.peek().map(|Reverse((until, ..))| *until)
    }

    /// Whether something could be taken at once, or later.
    pub(super) fn has_more(&self) -> bool {
        !self.ready.is_empty() || !self.resting.is_empty()
    }

    /// The front event of an occupied lane is finished: handled, or given up.
    pub(super) fn finish(&mut self, key: &DocumentKey) {
        let Some(lane) = self.lanes.get_mut(key) else {
            return;
        };
        if lane.waiting.pop_front().is_some() {
            self.queued -= 1;
        }
        if lane.waiting.is_empty() {
            self.lanes.remove(key);
        } else {
            // Behind the other documents, so that a hot one does not starve them.
            self.ready.push_back(key.clone());
        }
    }

    /// The attempt failed; the lane rests.
    pub(super) fn rest(&mut self, key: &DocumentKey, until: Instant) {
        if let Some(front) = self.lanes.get_mut(key).and_then(|l| l.waiting.front_mut()) {
            front.failures = front.failures.saturating_add(1);
            self.rests += 1;
            self.resting.push(Reverse((until, self.rests, key.clone())));
        }
    }

    /// The attempt was broken off, or its failure could not be recorded; the lane is next again.
    pub(super) fn put_back(&mut self, key: &DocumentKey) {
        self.ready.push_front(key.clone());
    }
}
