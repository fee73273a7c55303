use std::collections::VecDeque;

use bson::DateTime;
use serde_json::Value;

use crate::document::{DocumentKey, Version};
use crate::event::Event;
use crate::storage::backend::Cursor;

/// A stretch of the log on its way to the buses.
#[derive(Debug)]
pub(super) struct Outgoing {
    events: Vec<Event>,
    /// The step that each event belongs to, by its number among all that were added; rising.
    owners: Vec<usize>,
    /// Those that are not finished.
    steps: VecDeque<Step>,
    /// How many leading events each bus has confirmed.
    done: Vec<usize>,
    /// How many steps were handed out as finished.
    finished: usize,
    /// About how many bytes of payload the events have.
    bytes: usize,
}

/// A log entry, or a place in the log without one.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) version: Option<(DocumentKey, Version)>,
    /// The place in the log after it; `None` for entries that are read again out of turn.
    pub(super) cursor: Option<Cursor>,
    /// When the entry was committed.
    pub(super) at: Option<DateTime>,
}

impl Outgoing {
    pub(super) fn new(buses: usize) -> Self {
        Self {
            events: Vec::new(),
            owners: Vec::new(),
            steps: VecDeque::new(),
            done: vec![0; buses],
            finished: 0,
            bytes: 0,
        }
    }

    pub(super) fn add(&mut self, step: Step, events: Vec<Event>) {
        let owner = self.steps();
        self.bytes += events
            .iter()
            .map(|event| weight(event.data()))
            .sum::<usize>();
        self.owners.extend(events.iter().map(|_| owner));
        self.events.extend(events);
        self.steps.push_back(step);
    }

    pub(super) fn events(&self) -> usize {
        self.events.len()
    }

    /// About how many bytes of payload there are.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many steps were added.
    pub(super) fn steps(&self) -> usize {
        self.finished + self.steps.len()
    }

    /// Whether the log had nothing more after the last step, if that is not finished.
    pub(super) fn ends_idle(&self) -> bool {
        self.steps.back().is_some_and(|step| step.version.is_none())
    }

    /// What a bus has not confirmed.
    pub(super) fn rest(&self, bus: usize) -> &[Event] {
        &self.events[self.done[bus]..]
    }

    /// How many leading events a bus has confirmed.
    pub(super) fn confirmed_by(&self, bus: usize) -> usize {
        self.done[bus]
    }

    /// How many leading events every bus has confirmed.
    pub(super) fn confirmed(&self) -> usize {
        let lowest = self.done.iter().copied().min();
        lowest.unwrap_or(self.events.len())
    }

    pub(super) fn event(&self, place: usize) -> Option<&Event> {
        self.events.get(place)
    }

    /// A bus has confirmed this many more. Says whether that is any.
    pub(super) fn advance(&mut self, bus: usize, events: usize) -> bool {
        let rest = self.events.len() - self.done[bus];
        let events = events.min(rest);
        self.done[bus] += events;
        events > 0
    }

    /// Takes out the steps whose events all buses have confirmed, in order.
    pub(super) fn take_finished(&mut self) -> Vec<Step> {
        let until = self
            .owners
            .get(self.confirmed())
            .copied()
            .unwrap_or(self.steps());
        let count = until.saturating_sub(self.finished);
        self.finished += count;
        self.steps.drain(..count).collect()
    }

    /// Leaves out the events of a document from a version on.
    pub(super) fn hold_back(&mut self, document: &DocumentKey, from: Version) {
        let keep: Vec<bool> = self
            .events
            .iter()
            .map(|event| event.document() != document || event.version() < from)
            .collect();
        for done in &mut self.done {
            *done = keep[..*done].iter().filter(|kept| **kept).count();
        }
        let mut kept = keep.iter();
        self.events.retain(|_| kept.next().copied().unwrap_or(true));
        let mut kept = keep.iter();
        self.owners.retain(|_| kept.next().copied().unwrap_or(true));
    }
}

/// About how many bytes a payload has as JSON: near enough for a bound, and much cheaper than writing it.
fn weight(value: &Value) -> usize {
    /// Punctuation, and a number or word.
    const SMALL: usize = 8;
    SMALL
        + match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
            Value::String(text) => text.len(),
            Value::Array(items) => items.iter().map(weight).sum(),
            Value::Object(fields) => fields
                .iter()
                .map(|(name, value)| name.len() + weight(value))
                .sum(),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(id: &str, version: u64) -> (Step, DocumentKey, Version) {
        let (key, version) = (DocumentKey::new("users", id), Version::new(version));
        let step = Step {
            version: Some((key.clone(), version)),
            cursor: None,
            at: None,
        };
        (step, key, version)
    }

    fn event(key: &DocumentKey, version: Version, index: u32) -> Event {
        Event::from_parts(crate::event::EventParts {
            id: crate::event::EventId::derive(uuid::Uuid::nil(), key, version, index),
            event_type: "E".into(),
            aggregate_type: "User".into(),
            document: key.clone(),
            version,
            index,
            time: bson::DateTime::from_millis(0),
            schema: 1,
            data: serde_json::Value::Null,
            metadata: crate::event::Metadata::default(),
        })
    }

    fn outgoing() -> Outgoing {
        let mut outgoing = Outgoing::new(2);
        // Two events, none, one, two.
        for (id, version, events) in [("a", 1, 2), ("b", 1, 0), ("b", 2, 1), ("a", 2, 2)] {
            let (step, key, version) = step(id, version);
            let events = (0..events).map(|n| event(&key, version, n)).collect();
            outgoing.add(step, events);
        }
        outgoing
    }

    #[test]
    fn a_step_is_finished_when_every_bus_has_all_its_events() {
        let mut outgoing = outgoing();
        assert_eq!(outgoing.take_finished().len(), 0);
        assert!(outgoing.advance(0, 5));
        assert!(!outgoing.advance(0, 1));
        assert_eq!(outgoing.take_finished().len(), 0);
        outgoing.advance(1, 1);
        assert_eq!(outgoing.take_finished().len(), 0);
        outgoing.advance(1, 1);
        assert_eq!(outgoing.take_finished().len(), 2);
        outgoing.advance(1, 2);
        assert_eq!(outgoing.take_finished().len(), 1);
        outgoing.advance(1, 9);
        assert_eq!(outgoing.take_finished().len(), 1);
        assert_eq!(outgoing.take_finished().len(), 0);
    }

    #[test]
    fn what_is_held_back_counts_as_finished() {
        let mut outgoing = outgoing();
        outgoing.advance(0, 4);
        outgoing.advance(1, 1);
        outgoing.hold_back(&DocumentKey::new("users", "a"), Version::new(1));
        assert_eq!(outgoing.events(), 1);
        assert!(outgoing.rest(0).is_empty());
        assert_eq!(outgoing.rest(1).len(), 1);
        assert_eq!(outgoing.take_finished().len(), 2);
        outgoing.advance(1, 1);
        assert_eq!(outgoing.take_finished().len(), 2);
    }

    #[test]
    fn the_weight_of_a_payload_is_near_its_size() {
        let long = "x".repeat(1_000);
        let value = serde_json::json!({
            "text": long, "list": [1, 2.5, null, true], "deep": {"a": {"b": "c"}},
        });
        let size = value.to_string().len();
        let weight = weight(&value);
        assert!(
            weight > size * 9 / 10 && weight < size * 2,
            "{weight} for {size}"
        );
    }
}
