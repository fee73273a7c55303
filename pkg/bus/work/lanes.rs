use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::hash::Hash;

use tokio::time::Instant;

/// The items that were accepted and are not finished, one lane per key: per document.
///
/// A lane is in exactly one of three places: `ready`, with a worker, or `resting` until its front item
/// may be tried again. That is what keeps a document's events in order, whoever works.
/// The front item stays in its lane while it is in work, so a worker that vanishes loses nothing.
#[derive(Debug)]
pub(in crate::bus) struct Lanes<K, T> {
    lanes: HashMap<K, VecDeque<Waiting<T>>>,
    ready: VecDeque<K>,
    resting: BinaryHeap<Reverse<Resting<K>>>,
    rests: u64,
    queued: usize,
}

#[derive(Debug)]
struct Waiting<T> {
    item: T,
    failures: u32,
}

#[derive(Debug)]
struct Resting<K> {
    until: Instant,
    /// Tells those apart that may go on at the same moment, so that keys are never compared.
    number: u64,
    key: K,
}

/// One attempt at the front item of a lane.
#[derive(Debug)]
pub(in crate::bus) struct Attempt<K, T> {
    pub(in crate::bus) key: K,
    pub(in crate::bus) item: T,
    /// Failed attempts before this one.
    pub(in crate::bus) failures: u32,
}

impl<K: Clone + Eq + Hash, T: Clone> Lanes<K, T> {
    pub(in crate::bus) fn new() -> Self {
        Self {
            lanes: HashMap::new(),
            ready: VecDeque::new(),
            resting: BinaryHeap::new(),
            rests: 0,
            queued: 0,
        }
    }

    /// How many items wait or are in work.
    pub(in crate::bus) fn queued(&self) -> usize {
        self.queued
    }

    /// Puts an item behind those with the same key.
    pub(in crate::bus) fn append(&mut self, key: K, item: T) {
        let waiting = Waiting { item, failures: 0 };
        self.queued += 1;
        if let Some(lane) = self.lanes.get_mut(&key) {
            lane.push_back(waiting);
            return;
        }
        self.lanes.insert(key.clone(), VecDeque::from([waiting]));
        self.ready.push_back(key);
    }

    /// Takes the next attempt that may be made, which occupies its lane.
    pub(in crate::bus) fn take(&mut self, now: Instant) -> Option<Attempt<K, T>> {
        while self.next_due().is_some_and(|until| until <= now) {
            if let Some(Reverse(resting)) = self.resting.pop() {
                self.ready.push_back(resting.key);
            }
        }
        let key = self.ready.pop_front()?;
        let front = self.lanes.get(&key)?.front()?;
        Some(Attempt {
            item: front.item.clone(),
            failures: front.failures,
            key,
        })
    }

    /// When the next resting lane may be tried again.
    pub(in crate::bus) fn next_due(&self) -> Option<Instant> {
        self.resting.peek().map(|Reverse(resting)| resting.until)
    }

    /// Whether something could be taken at once.
    #[cfg_attr(not(any(feature = "redis", feature = "nats")), expect(dead_code))]
    pub(in crate::bus) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether something could be taken at once, or later.
    pub(in crate::bus) fn has_more(&self) -> bool {
        !self.ready.is_empty() || !self.resting.is_empty()
    }

    /// The front item of an occupied lane is finished: handled, or given up.
    pub(in crate::bus) fn finish(&mut self, key: &K) {
        let Some(lane) = self.lanes.get_mut(key) else {
            return;
        };
        if lane.pop_front().is_some() {
            self.queued -= 1;
        }
        if lane.is_empty() {
            self.lanes.remove(key);
        } else {
            // Behind the others, so that a hot document does not starve them.
            self.ready.push_back(key.clone());
        }
    }

    /// The attempt failed; the lane rests.
    pub(in crate::bus) fn rest(&mut self, key: &K, until: Instant) {
        if let Some(front) = self.lanes.get_mut(key).and_then(VecDeque::front_mut) {
            front.failures = front.failures.saturating_add(1);
            self.rests += 1;
            self.resting.push(Reverse(Resting {
                until,
                number: self.rests,
                key: key.clone(),
            }));
        }
    }

    /// The attempt was broken off, or its failure could not be recorded; the lane is next again.
    pub(in crate::bus) fn put_back(&mut self, key: &K) {
        self.ready.push_front(key.clone());
    }
}

impl<K> PartialEq for Resting<K> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl<K> Eq for Resting<K> {}

impl<K> PartialOrd for Resting<K> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<K> Ord for Resting<K> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.until, self.number).cmp(&(other.until, other.number))
    }
}
