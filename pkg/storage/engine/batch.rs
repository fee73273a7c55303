//! Putting a batch together.

use std::time::Instant;

use super::super::backend::{DocumentWrite, LogEntry, RecordWrite, Unit};
use super::super::base::Base;
use super::super::stream::STREAMS;
use super::state::State;
use super::ticket::Ticket;
use crate::document::DocumentKey;

/// What is committed in one step.
#[derive(Default)]
pub(super) struct Batch {
    /// As the backend gets them, once they are [filled](Self::fill); `units[i]` is the content of
    /// `groups[i]`.
    pub(super) units: Vec<Unit>,
    pub(super) groups: Vec<Group>,
}

/// Updates that are committed as one unit: those of one document that share its write, or one proposal
/// over several documents.
pub(super) struct Group {
    pub(super) tickets: Vec<Ticket>,
    /// How many entries and checks of the unit are whose.
    pub(super) sizes: Vec<(usize, usize)>,
    pub(super) lanes: Vec<Start>,
}

/// Where a lane stood before a group.
pub(super) struct Start {
    pub(super) key: DocumentKey,
    pub(super) before: Base,
    /// Whether that state came out of the cache.
    pub(super) cached: bool,
}

impl Batch {
    pub(super) fn push(&mut self, (unit, group): (Unit, Group)) {
        self.units.push(unit);
        self.groups.push(group);
    }

    pub(super) fn into_pairs(self) -> impl Iterator<Item = (Unit, Group)> {
        self.units.into_iter().zip(self.groups)
    }

    /// Puts the units together. Copies documents, so no lock is held.
    pub(super) fn fill(&mut self) {
        self.units = self.groups.iter_mut().map(Group::unit).collect();
    }

    /// When the last of the callers stops waiting: nobody's commit is given up because of another's
    /// patience.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let tickets = self.groups.iter().flat_map(|group| &group.tickets);
        tickets.map(|ticket| ticket.deadline).max()
    }

    pub(super) fn updates(&self) -> usize {
        self.groups.iter().map(|group| group.tickets.len()).sum()
    }
}

impl Group {
    fn new(tickets: Vec<Ticket>, lanes: Vec<Start>) -> Self {
        let sizes = tickets
            .iter()
            .map(|ticket| (ticket.entries.len(), ticket.checks.len()))
            .collect();
        Self {
            tickets,
            sizes,
            lanes,
        }
    }

    /// The content of the group: each document once, as its last update leaves it, and every entry.
    fn unit(&mut self) -> Unit {
        let mut unit = Unit::default();
        for start in &self.lanes {
            let parts = self.tickets.iter().flat_map(|ticket| &ticket.parts);
            let mut written = parts.filter(|part| part.key == start.key && part.writes);
            let document = match written.next_back() {
                Some(last) => last.after.document.as_deref().cloned(),
                // Events where there is no document: that there is none is made sure of.
                None if self.emits_without(start) => None,
                None => continue,
            };
            unit.writes.push(DocumentWrite {
                key: start.key.clone(),
                condition: start.before.condition,
                document,
            });
        }
        for ticket in &mut self.tickets {
            unit.entries.append(&mut ticket.entries);
            unit.checks.append(&mut ticket.checks);
            for write in &ticket.records {
                // Of one record the last state counts, as of a document.
                if !matches!(write, RecordWrite::Insert(_)) {
                    unit.records
                        .retain(|earlier| !earlier.is_replaced_by(write));
                }
                unit.records.push(write.clone());
            }
        }
        unit
    }

    /// Whether entries are appended for a document that is not there. Streams have none ever.
    fn emits_without(&self, start: &Start) -> bool {
        let mut checks = self.tickets.iter().flat_map(|ticket| &ticket.checks);
        start.before.document.is_none()
            && start.key.collection() != STREAMS
            && !checks.any(|(key, _)| *key == start.key)
    }

    /// Gives the tickets their entries and checks back.
    pub(super) fn take_back(&mut self, unit: Unit) {
        let (mut entries, mut checks) = (unit.entries.into_iter(), unit.checks.into_iter());
        for (ticket, (n, m)) in self.tickets.iter_mut().zip(&self.sizes) {
            ticket.entries = entries.by_ref().take(*n).collect::<Vec<LogEntry>>();
            ticket.checks = checks.by_ref().take(*m).collect();
        }
    }
}

impl State {
    /// Takes the next batch out of the queues. A lane gives all it has, so that an update waits for
    /// the batches under way and for the lanes in front of its own, never for updates of its own
    /// document.
    pub(super) fn take_batch(&mut self, most_bytes: usize) -> Option<Batch> {
        let mut batch = Batch::default();
        let (mut updates, mut callers, mut bytes) = (0, 0, 0);
        while updates < self.batch_updates {
            let Some(key) = self.ready.pop_front() else {
                break;
            };
            let Some(lane) = self.lanes.get_mut(&key) else {
                continue;
            };
            lane.ready = false;
            if lane.is_busy() {
                continue;
            }
            let Some(first) = lane.queue.front().and_then(|id| self.tickets.get(id)) else {
                continue;
            };
            if updates > 0 && bytes + first.bytes > most_bytes {
                lane.ready = true;
                self.ready.push_front(key);
                break;
            }
            let tickets = if first.joins() {
                self.take_run(&key, most_bytes.saturating_sub(bytes))
            } else {
                self.take_alone(&key)
            };
            if tickets.is_empty() {
                continue;
            }
            updates += tickets.iter().map(Ticket::updates).sum::<usize>();
            callers += tickets.len();
            bytes += tickets.iter().map(|ticket| ticket.bytes).sum::<usize>();
            let lanes = self.start(&tickets);
            batch.groups.push(Group::new(tickets, lanes));
        }
        if batch.groups.is_empty() {
            return None;
        }
        self.flying += callers;
        self.batches += 1;
        Some(batch)
    }

    /// The updates at the head of a lane that can share one write.
    fn take_run(&mut self, key: &DocumentKey, most_bytes: usize) -> Vec<Ticket> {
        let mut run = Vec::new();
        let mut bytes = 0;
        let Some(lane) = self.lanes.get_mut(key) else {
            return run;
        };
        while run.len() < lane.joined
            && let Some(ticket) = lane.queue.front().and_then(|id| self.tickets.get(id))
            && ticket.joins()
            && (run.is_empty() || bytes + ticket.bytes <= most_bytes)
        {
            bytes += ticket.bytes;
            let id = lane.queue.pop_front();
            run.extend(id.and_then(|id| self.tickets.remove(&id)));
        }
        run
    }

    /// A proposal of its own, if it stands at the head of all its lanes and none of them is under way;
    /// else the last of them to come free brings it up again.
    fn take_alone(&mut self, key: &DocumentKey) -> Vec<Ticket> {
        let Some(id) = self
            .lanes
            .get(key)
            .and_then(|lane| lane.queue.front())
            .copied()
        else {
            return Vec::new();
        };
        let Some(ticket) = self.tickets.get(&id) else {
            return Vec::new();
        };
        let is_free = |key: &DocumentKey| {
            let lane = self.lanes.get(key);
            lane.is_some_and(|lane| !lane.is_busy() && lane.queue.front() == Some(&id))
        };
        if !ticket.parts.iter().all(|part| is_free(&part.key)) {
            return Vec::new();
        }
        for part in &ticket.parts {
            if let Some(lane) = self.lanes.get_mut(&part.key) {
                lane.queue.pop_front();
            }
        }
        self.tickets.remove(&id).into_iter().collect()
    }

    /// Marks the lanes as under way, and notes where they stood.
    fn start(&mut self, tickets: &[Ticket]) -> Vec<Start> {
        let mut starts: Vec<Start> = Vec::new();
        for part in tickets.iter().flat_map(|ticket| &ticket.parts) {
            let Some(lane) = self.lanes.get_mut(&part.key) else {
                continue;
            };
            if lane.flying.is_none() {
                starts.push(Start {
                    key: part.key.clone(),
                    before: part.before.clone(),
                    cached: lane.tip.as_ref().is_some_and(|tip| tip.cached),
                });
            }
            lane.flying = Some(part.after.clone());
        }
        starts
    }
}
