//! The state of all lanes, and every step on it. Nothing here waits, runs a caller's code or touches a
//! document's bytes, so one lock around it is held for a microsecond at a time.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::super::CollectionSpec;
use super::super::base::Base;
use super::cache::Cache;
use super::lane::{Lane, Tip, View};
use super::ticket::{Answer, Answers, Part, Ticket};
use super::{CommitOptions, Tick};
use crate::document::DocumentKey;
use crate::error::Error;

/// Why a proposal was not queued.
pub(super) enum Missed {
    /// A lane has moved on.
    Moved,
    Closed,
}

/// For how many updates the cache is passed over after it was found behind: as long as other writers
/// are at the same documents, it costs more commits than it saves reads.
const DISTRUST: u32 = 32;
const MOST_DISTRUST: u32 = 1_024;

pub(super) struct State {
    pub(super) lanes: HashMap<DocumentKey, Lane>,
    pub(super) tickets: HashMap<u64, Ticket>,
    /// Lanes that have something for the next batch, first come first served.
    pub(super) ready: VecDeque<DocumentKey>,
    /// Lanes that need a read.
    pub(super) unread: VecDeque<DocumentKey>,
    numbers: u64,
    /// How many tickets are in the batches under way.
    pub(super) flying: usize,
    /// Batches put together so far.
    pub(super) batches: u64,
    /// Tasks that put batches together and commit them.
    pub(super) workers: usize,
    /// Whether one of them waits for more.
    pub(super) gathering: bool,
    /// Tasks that read.
    pub(super) readers: usize,
    /// How many updates a batch may have at the moment.
    pub(super) batch_updates: usize,
    /// How many updates were under way at the same time lately.
    pub(super) crowd: usize,
    /// How many more times the cache is passed over, because it was behind.
    pub(super) distrust: u32,
    /// When one of the lanes that are forgotten moved last.
    moved: Tick,
    /// How many updates of one document may share a write at most.
    pub(super) most_joined: usize,
    /// How many lanes the worker that waits for more would leave with at once.
    pub(super) enough: usize,
    /// How large documents were lately, in bytes.
    pub(super) document_bytes: usize,
    pub(super) closed: bool,
    cache: Cache,
}

impl State {
    pub(super) fn new(options: &CommitOptions) -> Self {
        Self {
            lanes: HashMap::new(),
            tickets: HashMap::new(),
            ready: VecDeque::new(),
            unread: VecDeque::new(),
            numbers: 0,
            flying: 0,
            batches: 0,
            workers: 0,
            gathering: false,
            readers: 0,
            batch_updates: options.batch_updates,
            crowd: 0,
            distrust: 0,
            moved: 0,
            most_joined: options.batch_updates,
            enough: 0,
            document_bytes: 0,
            closed: false,
            cache: Cache::new(options),
        }
    }

    pub(super) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// The document's lane; a new one if there is none.
    pub(super) fn lane(&mut self, key: &DocumentKey, spec: &Arc<CollectionSpec>) -> &mut Lane {
        let (generation, joined, moved) = (self.number(), self.most_joined, self.moved);
        self.lanes.entry(key.clone()).or_insert_with(|| {
            let mut lane = Lane::new(Arc::clone(spec), generation, joined);
            // A read for the lane that was here before may still be on its way.
            lane.moved = moved;
            lane
        })
    }

    /// Queues a proposal in all its lanes at once, provided that none of them has moved since.
    pub(super) fn queue(&mut self, ticket: Ticket, now: Tick) -> Result<(), Missed> {
        if self.closed {
            return Err(Missed::Closed);
        }
        if !ticket.parts.iter().all(|part| self.is_current(part)) {
            return Err(Missed::Moved);
        }
        let id = ticket.id;
        for part in &ticket.parts {
            let generation = self.number();
            let Some(lane) = self.lanes.get_mut(&part.key) else {
                continue;
            };
            lane.queue.push_back(id);
            lane.moved = lane.moved.max(now);
            lane.generation = generation;
            let cached = lane.tip.as_ref().is_some_and(|tip| tip.cached);
            lane.tip = Some(Tip {
                base: part.after.clone(),
                seen: None,
                cached,
            });
            self.mark_ready(&part.key);
        }
        self.tickets.insert(id, ticket);
        Ok(())
    }

    fn is_current(&self, part: &Part) -> bool {
        let Some(lane) = self.lanes.get(&part.key) else {
            return false;
        };
        if part.generation == Some(lane.generation) {
            return true;
        }
        // Moved on and come to the same state: something else only read the document. Or decided on
        // what the database showed; good if the lane shows the same, or nothing and has not moved since.
        // The commit alone would not find out: a document can be gone again, and where other programs
        // used up versions, the log has room below its end.
        match &lane.tip {
            Some(tip) => tip.base.is_same(&part.before),
            None => lane.is_idle() && part.seen > Some(lane.moved),
        }
    }

    pub(super) fn mark_ready(&mut self, key: &DocumentKey) {
        if let Some(lane) = self.lanes.get_mut(key)
            && !lane.ready
            && !lane.is_busy()
            && !lane.queue.is_empty()
        {
            lane.ready = true;
            self.ready.push_back(key.clone());
        }
    }

    /// A batch has committed this lane's share.
    pub(super) fn settle(&mut self, key: &DocumentKey, began: Tick, now: Tick) {
        let most = self.most_joined;
        if let Some(lane) = self.lanes.get_mut(key) {
            let made = lane.flying.take();
            lane.moved = lane.moved.max(now);
            lane.joined = (lane.joined * 2).min(most);
            if lane.queue.is_empty() {
                lane.tip = made.map(|base| Tip {
                    base,
                    seen: Some(began),
                    cached: false,
                });
            } else if let Some(tip) = &mut lane.tip {
                tip.cached = false;
            }
        }
        self.mark_ready(key);
        self.rest(key);
    }

    /// A batch has not committed this lane's share: all that was built on it has to be decided again.
    /// `found` is what the database showed since.
    pub(super) fn fail(
        &mut self,
        key: &DocumentKey,
        found: Option<(Base, Tick)>,
        why: &Error,
        now: Tick,
        answers: &mut Answers,
    ) {
        if let Some(lane) = self.lanes.get_mut(key) {
            lane.flying = None;
            lane.moved = lane.moved.max(now);
        }
        self.cut(key, 0, why, answers);
        let generation = self.number();
        if let Some(lane) = self.lanes.get_mut(key) {
            lane.generation = generation;
            lane.tip = found.map(|(base, seen)| Tip {
                base,
                seen: Some(seen),
                cached: false,
            });
        }
        self.rest(key);
    }

    /// Takes everything from this place on out of a lane's queue, and out of the other lanes what was
    /// to be committed together with it or built on that.
    pub(super) fn cut(&mut self, key: &DocumentKey, at: usize, why: &Error, answers: &mut Answers) {
        let mut work = vec![(key.clone(), at)];
        while let Some((key, at)) = work.pop() {
            let generation = self.number();
            let Some(lane) = self.lanes.get_mut(&key) else {
                continue;
            };
            if at >= lane.queue.len() {
                continue;
            }
            let gone = lane.queue.split_off(at);
            lane.generation = generation;
            for id in gone {
                let Some(ticket) = self.tickets.remove(&id) else {
                    continue;
                };
                for part in ticket.parts.iter().filter(|part| part.key != key) {
                    let lane = self.lanes.get(&part.key);
                    if let Some(at) = lane.and_then(|l| l.queue.iter().position(|i| *i == id)) {
                        work.push((part.key.clone(), at));
                    }
                }
                let source = why.clone();
                answers.push((ticket.answer, Answer::Again { own: false, source }));
            }
            self.step_back(&key);
            self.mark_ready(&key);
            self.rest(&key);
        }
    }

    /// The tip after the end of a queue was cut off: what the last one left makes, or the batch under
    /// way. Without either the state below is unknown and has to be read.
    fn step_back(&mut self, key: &DocumentKey) {
        let Some(lane) = self.lanes.get_mut(key) else {
            return;
        };
        let last = lane.queue.back().and_then(|id| self.tickets.get(id));
        let left = last.and_then(|ticket| ticket.parts.iter().find(|part| part.key == *key));
        let base = left.map(|part| &part.after).or(lane.flying.as_ref());
        lane.tip = base.map(|base| Tip {
            base: base.clone(),
            seen: None,
            cached: false,
        });
    }

    /// Takes a ticket out again that is still queued, with all that was built on it.
    pub(super) fn withdraw(&mut self, id: u64, why: &Error, answers: &mut Answers) -> bool {
        let Some(part) = self.tickets.get(&id).and_then(|t| t.parts.first()) else {
            return false;
        };
        let key = part.key.clone();
        let lane = self.lanes.get(&key);
        if let Some(at) = lane.and_then(|l| l.queue.iter().position(|i| *i == id)) {
            self.cut(&key, at, why, answers);
        }
        true
    }

    /// Puts tickets of one lane back to the head of its queue, their batch having been refused.
    pub(super) fn put_back(&mut self, key: &DocumentKey, tickets: Vec<Ticket>) {
        for ticket in tickets.into_iter().rev() {
            let id = ticket.id;
            if let Some(lane) = self.lanes.get_mut(key) {
                lane.queue.push_front(id);
                self.tickets.insert(id, ticket);
            }
        }
        if let Some(lane) = self.lanes.get_mut(key) {
            lane.flying = None;
        }
        self.mark_ready(key);
    }

    /// A lane that may have come to rest wakes those who waited for that, and is forgotten once nobody
    /// uses it.
    fn rest(&mut self, key: &DocumentKey) {
        if let Some(lane) = self.lanes.get_mut(key)
            && lane.is_idle()
        {
            for idler in lane.idlers.drain(..) {
                let _ = idler.send(());
            }
        }
        self.forget_unused(key);
    }

    /// Moves what a lane knows into the cache once nobody uses the lane.
    pub(super) fn forget_unused(&mut self, key: &DocumentKey) {
        if !self.lanes.get(key).is_some_and(Lane::is_unused) {
            return;
        }
        let Some(lane) = self.lanes.remove(key) else {
            return;
        };
        self.moved = self.moved.max(lane.moved);
        match lane.tip {
            Some(Tip {
                base,
                seen: Some(seen),
                cached: false,
            }) => self.cache.put(key.clone(), base, seen),
            Some(_) => {}
            None => self.cache.forget(key),
        }
    }

    /// What the cache knows of a document, unless it has been behind lately.
    pub(super) fn cached(&mut self, key: &DocumentKey) -> Option<(Base, Tick)> {
        if self.is_contended() {
            self.distrust -= 1;
            return None;
        }
        self.cache.get(key)
    }

    /// Whether the cache has been behind lately.
    pub(super) fn is_contended(&self) -> bool {
        self.distrust > 0
    }

    pub(super) fn distrust_cache(&mut self) {
        self.distrust = (self.distrust * 2 + DISTRUST).min(MOST_DISTRUST);
    }

    /// Shows a committed state that was read, if the lane has not moved since the read began; returns
    /// what the calls that waited for it see.
    pub(super) fn found(&mut self, key: &DocumentKey, base: &Base, began: Tick) -> Option<View> {
        let generation = self.number();
        let lane = self.lanes.get_mut(key)?;
        let is_newer = |tip: &Tip| tip.seen < Some(began);
        let is_newest =
            lane.is_idle() && lane.moved < began && lane.tip.as_ref().is_none_or(is_newer);
        let same = lane.tip.as_ref().is_some_and(|tip| tip.base.is_same(base));
        if is_newest {
            if !same {
                lane.generation = generation;
            }
            lane.tip = Some(Tip {
                base: base.clone(),
                seen: Some(began),
                cached: false,
            });
        }
        Some(View {
            base: base.clone(),
            seen: Some(began),
            generation: (is_newest || same).then_some(lane.generation),
        })
    }

    /// Whether updates that were under way lately are neither queued nor being committed.
    pub(super) fn is_missing(&self, active: usize) -> bool {
        self.crowd.max(active) > self.tickets.len() + self.flying
    }

    /// Notes how many calls are under way; a crowd is forgotten slowly.
    pub(super) fn note_crowd(&mut self, now: usize) {
        self.crowd = now.max(self.crowd - self.crowd.div_ceil(8).min(self.crowd));
    }
}
