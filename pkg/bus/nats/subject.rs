//! Names on the server: subjects of events, of the state, and of consumers.

use std::fmt::Write as _;

use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;

/// A token longer than this is cut: with three of them, a prefix and a reply subject a command stays far
/// below the 4,096 bytes that a server accepts by default, beyond which it ends the connection.
const LONGEST_TOKEN: usize = 200;

/// What is left of a token that is cut, in front of the hash of all of it.
const CUT_TOKEN: usize = 160;

/// Where everything of one bus lies.
#[derive(Debug, Clone)]
pub(super) struct Subjects {
    prefix: String,
    state: String,
}

impl Subjects {
    pub(super) fn new(prefix: &str) -> Result<Self> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let fits = prefix.len() <= LONGEST_TOKEN
            && prefix
                .split('.')
                .all(|token| !token.is_empty() && token.chars().all(plain));
        if !fits {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                format!(
                    "subject prefix {prefix:?} is not up to {LONGEST_TOKEN} letters, digits, '-' and '_', \
                     with dots between"
                ),
            ));
        }
        Ok(Self {
            prefix: prefix.to_owned(),
            state: format!("{prefix}-state"),
        })
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// `prefix.collection.type.id.partition`
    pub(super) fn event(&self, event: &Event, partition: u32) -> String {
        let mut subject = String::with_capacity(self.prefix.len() + 64);
        subject.push_str(&self.prefix);
        let id = event.aggregate_id().to_string();
        for part in [event.collection(), event.event_type(), &id] {
            subject.push('.');
            push_token(&mut subject, part);
        }
        // Writing to a string cannot fail.
        let _ = write!(subject, ".{partition}");
        subject
    }

    /// The same without a partition, for those who receive it as it is published.
    pub(super) fn live_event(&self, event: &Event) -> String {
        let mut subject = self.event(event, 0);
        subject.truncate(subject.len() - 2);
        subject
    }

    /// All live events.
    pub(super) fn live(&self) -> String {
        format!("{}.*.*.*", self.prefix)
    }

    /// Where a bus sends messages to itself: of the form of a live event's, and none of one.
    pub(super) fn mark(&self) -> String {
        format!("{}.%-.%-.%-", self.prefix)
    }

    /// The events of a partition.
    pub(super) fn partition(&self, partition: u32) -> String {
        format!("{}.*.*.*.{partition}", self.prefix)
    }

    /// Letters of a group on their way back to the owner of a partition: among its events, since a
    /// consumer with a second filter is many times slower, and without the subject of one.
    pub(super) fn redriven(&self, group: &str, partition: u32) -> String {
        format!("{}{}.{partition}", self.all_redriven(), token(group))
    }

    /// What the letters of all groups begin with on their way back.
    pub(super) fn all_redriven(&self) -> String {
        format!("{}.%-.redriven.", self.prefix)
    }

    /// What the stream of events takes: no subject that no partition reads.
    pub(super) fn of_stream(&self, partitions: u32) -> Vec<String> {
        (0..partitions).map(|p| self.partition(p)).collect()
    }

    /// What the stream of the state takes.
    pub(super) fn of_state(&self) -> String {
        format!("{}.>", self.state)
    }

    /// The moment at which somebody looked for groups to forget.
    pub(super) fn clock(&self) -> String {
        format!("{}.clock", self.state)
    }

    /// Everything that belongs to a group.
    pub(super) fn group(&self, group: &str) -> GroupSubjects {
        GroupSubjects(format!("{}.groups.{}", self.state, token(group)))
    }

    /// The records of all groups.
    pub(super) fn records(&self) -> String {
        format!("{}.groups.*.record", self.state)
    }

    /// Where transient groups were last seen.
    pub(super) fn sightings(&self) -> String {
        format!("{}.groups.*.seen", self.state)
    }
}

/// Where the state of one group lies.
#[derive(Debug, Clone)]
pub(super) struct GroupSubjects(String);

impl GroupSubjects {
    pub(super) fn everything(&self) -> String {
        format!("{}.>", self.0)
    }

    pub(super) fn record(&self) -> String {
        format!("{}.record", self.0)
    }

    pub(super) fn seen(&self) -> String {
        format!("{}.seen", self.0)
    }

    pub(super) fn member(&self, member: &str) -> String {
        format!("{}.members.{}", self.0, token(member))
    }

    pub(super) fn members(&self) -> String {
        format!("{}.members.*", self.0)
    }

    pub(super) fn claim(&self, partition: u32) -> String {
        format!("{}.claims.{partition}", self.0)
    }

    pub(super) fn claims(&self) -> String {
        format!("{}.claims.*", self.0)
    }

    /// How many attempts at an event have begun, by its number in the stream.
    pub(super) fn attempt(&self, partition: u32, place: u64) -> String {
        format!("{}.attempts.{partition}.{place}", self.0)
    }

    pub(super) fn letter(&self, id: Uuid) -> String {
        format!("{}.letters.{id}", self.0)
    }

    pub(super) fn letters(&self) -> String {
        format!("{}.letters.*", self.0)
    }
}

/// The durable consumer of a partition for a group.
pub(super) fn consumer(group: &str, partition: u32) -> String {
    // Unique: what follows the last underscore is the number.
    format!("{}_{partition}", token(group))
}

/// A text as one token of a subject, and as a name: letters, digits, `-`, `_` and `~` stay, everything
/// else is percent-encoded byte by byte (RFC 3986, section 2.1).
pub(super) fn token(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    push_token(&mut out, text);
    out
}

fn push_token(out: &mut String, text: &str) {
    let begin = out.len();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    if out.len() == begin {
        // A token may not be empty; this is the encoding of nothing else.
        out.push('%');
    } else if out.len() - begin > LONGEST_TOKEN {
        let mut end = begin + CUT_TOKEN;
        // Not within an encoded byte.
        if let Some(at) = out[end - 2..end].find('%') {
            end = end - 2 + at;
        }
        out.truncate(end);
        let hash = Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes()).simple();
        let _ = write!(out, "%-{hash}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn what_subjects_forbid_is_encoded() {
        for (text, expected) in [
            ("users", "users"),
            ("app.users", "app%2Eusers"),
            ("User Was-Seen.", "User%20Was-Seen%2E"),
            ("*", "%2A"),
            (">", "%3E"),
            ("50%", "50%25"),
            ("ß", "%C3%9F"),
            ("a/b\\c\r\n", "a%2Fb%5Cc%0D%0A"),
            ("", "%"),
        ] {
            assert_eq!(token(text), expected);
        }
    }

    #[test]
    fn long_texts_stay_apart_and_short() {
        let mut seen = HashSet::new();
        for length in 0..300 {
            for last in ["a", "b", "ü"] {
                let token = token(&format!("{}{last}", "x".repeat(length)));
                assert!(token.len() <= LONGEST_TOKEN, "{token}");
                assert!(seen.insert(token));
            }
        }
        for shift in 0..3 {
            let token = token(&format!("{}{}", "x".repeat(shift), "ü".repeat(100)));
            let (kept, hash) = token.split_once("%-").unwrap();
            assert_eq!(hash.len(), 32);
            assert_eq!(kept[shift..].len() % 3, 0, "{kept}");
        }
    }

    #[test]
    fn prefixes() {
        for fine in ["events", "a.b-c.D_1"] {
            Subjects::new(fine).unwrap();
        }
        for wrong in [
            "",
            ".",
            "a.",
            "a..b",
            "a b",
            "a.>",
            "*",
            "ä",
            &"a".repeat(201),
        ] {
            assert!(Subjects::new(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn redriven_letters_are_told_from_events() {
        let subjects = Subjects::new("events").unwrap();
        let redriven = subjects.redriven("g.1", 3);
        assert_eq!(redriven, "events.%-.redriven.g%2E1.3");
        assert!(redriven.starts_with(&subjects.all_redriven()));
        // No text is encoded as that.
        for text in ["%-", "-", "%", ""] {
            assert_ne!(token(text), "%-");
        }
    }
}
