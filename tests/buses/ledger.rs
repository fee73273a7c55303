//! What was seen of the log's events, compared with the log.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::fmt;

use serde_json::Value;

/// An event as it was seen somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sighting {
    /// `collection/id`
    pub(crate) document: String,
    pub(crate) version: u64,
    pub(crate) index: u64,
    /// The event's id.
    pub(crate) id: String,
}

impl Sighting {
    /// From a CloudEvent as it lies in a broker, without any help of the library.
    pub(crate) fn from_cloud_event(bytes: &[u8]) -> Self {
        let event: Value = serde_json::from_slice(bytes).expect("a CloudEvent is JSON");
        let text = |name: &str| {
            let text = event[name].as_str();
            text.unwrap_or_else(|| panic!("a CloudEvent without {name}"))
        };
        let number = |name: &str| {
            let number = event[name].as_u64();
            number.unwrap_or_else(|| panic!("a CloudEvent without {name}"))
        };
        assert_eq!(text("specversion"), "1.0");
        Self {
            document: format!("{}/{}", text("collection"), text("subject")),
            version: number("aggregateversion"),
            index: number("eventindex"),
            id: text("id").to_owned(),
        }
    }

    /// From a line `ID VERSION INDEX DOCUMENT`.
    pub(crate) fn from_line(line: &str) -> Self {
        let mut parts = line.splitn(4, ' ');
        let mut next = || parts.next().expect("four parts");
        Self {
            id: next().to_owned(),
            version: next().parse().expect("a version"),
            index: next().parse().expect("an index"),
            document: next().to_owned(),
        }
    }

    fn place(&self) -> (&str, u64, u64) {
        (&self.document, self.version, self.index)
    }
}

/// What the comparison found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Verdict {
    /// Events of the log.
    pub(crate) events: usize,
    /// Events of the log that were never seen.
    pub(crate) lost: usize,
    /// Events that were first seen after a later one of their document.
    pub(crate) out_of_order: usize,
    /// Further sightings of an event.
    pub(crate) duplicates: usize,
    /// Sightings under another id than the log has.
    pub(crate) other_ids: usize,
    /// Sightings of what the log does not have.
    pub(crate) unknown: usize,
}

impl Verdict {
    /// Whether everything was seen, in order, and nothing else. Duplicates are allowed.
    pub(crate) fn is_good(self) -> bool {
        let wrong = [self.lost, self.out_of_order, self.other_ids, self.unknown];
        self.events > 0 && wrong == [0; 4]
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            events,
            lost,
            out_of_order,
            duplicates,
            ..
        } = self;
        write!(
            f,
            "{events} events, {lost} lost, {out_of_order} out of order, {duplicates} duplicates, "
        )?;
        match (self.other_ids, self.unknown) {
            (0, 0) => f.write_str("all same id"),
            (others, unknown) => write!(f, "{others} with another id, {unknown} not in the log"),
        }
    }
}

/// Compares the events of the log with sightings in the order in which they were made.
pub(crate) fn compare(log: &[Sighting], seen: &[Sighting]) -> Verdict {
    let mut logged = HashMap::new();
    for event in log {
        let known = logged.insert(event.place(), event.id.as_str());
        assert_eq!(known, None, "the log has one event twice: {event:?}");
    }
    let mut verdict = Verdict {
        events: log.len(),
        ..Verdict::default()
    };
    let mut found = HashSet::new();
    let mut newest: HashMap<&str, (u64, u64)> = HashMap::new();
    for event in seen {
        match logged.get(&event.place()) {
            None => {
                verdict.unknown += 1;
                continue;
            }
            Some(id) if *id != event.id => {
                // Neither the event nor a repetition of it.
                verdict.other_ids += 1;
                continue;
            }
            Some(_) => {}
        }
        if !found.insert(event.place()) {
            verdict.duplicates += 1;
            continue;
        }
        let at = (event.version, event.index);
        match newest.entry(&event.document) {
            Entry::Vacant(first) => {
                first.insert(at);
            }
            Entry::Occupied(mut newest) if *newest.get() < at => {
                newest.insert(at);
            }
            Entry::Occupied(_) => verdict.out_of_order += 1,
        }
    }
    verdict.lost = log.len() - found.len();
    verdict
}

/// `versions` of each of three documents, interleaved.
#[cfg(test)]
fn events(versions: u64) -> Vec<Sighting> {
    let event = |version: u64, document: &str| Sighting {
        document: format!("w/{document}"),
        version,
        index: 0,
        id: format!("{document}:{version}"),
    };
    (1..=versions)
        .flat_map(|version| ["a", "b", "c"].map(|document| event(version, document)))
        .collect()
}

#[test]
fn the_log_itself_is_good() {
    let log = events(5);
    let verdict = compare(&log, &log);
    assert!(verdict.is_good());
    assert_eq!(
        verdict.to_string(),
        "15 events, 0 lost, 0 out of order, 0 duplicates, all same id"
    );
    // Documents may overtake each other.
    let mut seen = log.clone();
    seen.sort_by(|a, b| (&b.document, a.version).cmp(&(&a.document, b.version)));
    assert_ne!(seen, log);
    assert_eq!(compare(&log, &seen), verdict);
    assert!(!compare(&[], &[]).is_good());
}

#[test]
fn a_lost_event_is_found_wherever_it_was() {
    let log = events(5);
    for at in 0..log.len() {
        let mut seen = log.clone();
        seen.remove(at);
        let verdict = compare(&log, &seen);
        assert!(!verdict.is_good());
        assert_eq!((verdict.lost, verdict.out_of_order), (1, 0), "{at}");
    }
    assert_eq!(compare(&log, &[]).lost, log.len());
}

#[test]
fn a_reordered_event_is_found() {
    let log = events(5);
    for at in 0..log.len() - 3 {
        let mut seen = log.clone();
        // With the next version of its document.
        seen.swap(at, at + 3);
        let verdict = compare(&log, &seen);
        assert!(!verdict.is_good());
        assert_eq!((verdict.lost, verdict.out_of_order), (0, 1), "{at}");
    }
    // Held back to the very end, though the others came in order.
    let mut seen = log.clone();
    let late = seen.remove(0);
    seen.push(late);
    assert_eq!(compare(&log, &seen).out_of_order, 1);
    // The events of one version have an order as well.
    let mut log = events(1);
    let second = Sighting {
        index: 1,
        id: "a:1:1".into(),
        ..log[0].clone()
    };
    log.push(second);
    assert!(compare(&log, &log).is_good());
    let mut seen = log.clone();
    seen.reverse();
    assert_eq!(compare(&log, &seen).out_of_order, 1);
}

#[test]
fn repetitions_are_allowed_and_counted() {
    let log = events(5);
    // A batch that came again, after a relay died between publishing and its checkpoint.
    let mut seen = log[..9].to_vec();
    seen.extend_from_slice(&log[3..]);
    let verdict = compare(&log, &seen);
    assert!(verdict.is_good());
    assert_eq!(
        verdict.to_string(),
        "15 events, 0 lost, 0 out of order, 6 duplicates, all same id"
    );
}

#[test]
fn a_repetition_under_another_id_is_found() {
    let log = events(5);
    let mut seen = log.clone();
    let mut wrong = log[4].clone();
    wrong.id = "other".into();
    seen.push(wrong);
    let verdict = compare(&log, &seen);
    assert!(!verdict.is_good());
    assert_eq!(
        verdict.to_string(),
        "15 events, 0 lost, 0 out of order, 0 duplicates, 1 with another id, 0 not in the log"
    );
    // Only under another one: lost as well.
    let mut seen = log.clone();
    seen[4].id = "other".into();
    let verdict = compare(&log, &seen);
    assert_eq!((verdict.lost, verdict.other_ids), (1, 1));
}

#[test]
fn what_the_log_does_not_have_is_found() {
    let log = events(5);
    let mut seen = log.clone();
    let mut stranger = log[14].clone();
    stranger.version = 6;
    seen.push(stranger);
    let verdict = compare(&log, &seen);
    assert!(!verdict.is_good());
    assert_eq!((verdict.unknown, verdict.lost), (1, 0));
    assert!(verdict.to_string().ends_with("1 not in the log"));
}
