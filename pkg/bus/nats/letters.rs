//! Dead letters: entries of the state, one per event and group.

use async_nats::HeaderMap;
use uuid::Uuid;

use super::jetstream::{ENVELOPE, Shared};
use super::state::{Entry, Terms};
use crate::bus::broker::{Acknowledgement, Burial, Letter, Payload};
use crate::error::Result;
use crate::event::EventId;

const ERROR: &str = "Nodestorage-Error";
const ATTEMPTS: &str = "Nodestorage-Attempts";
const PARTITION: &str = "Nodestorage-Partition";

/// How much of an error's text is kept, in bytes: with the payload it has to fit into one message.
const LONGEST_ERROR: usize = 4_096;

impl Shared {
    /// See [`Broker::bury`](crate::bus::broker::Broker::bury).
    pub(super) async fn bury(
        &self,
        group: &str,
        member: &str,
        done: Acknowledgement,
        letter: &Letter,
        at_most: usize,
    ) -> Result<Burial> {
        let current = self.leases.current(group, member, &[done.claim]);
        let Some(lease) = current.first() else {
            return Ok(Burial::NotOwner);
        };
        if !lease.hand().holds(done.position) {
            // An earlier call came to its end and nobody heard of it.
            return Ok(Burial::Stored);
        }
        let subjects = self.subjects.group(group);
        let subject = subjects.letter(letter.id.as_uuid());
        let needed = u64::try_from(letter.payload.0.len() + ENVELOPE).unwrap_or(u64::MAX);
        let count = self.state.count(&subjects.letters()).await?;
        if count.entries >= at_most || count.room.is_some_and(|room| room < needed) {
            let repeated = self.state.last(std::slice::from_ref(&subject)).await?;
            if repeated.is_empty() {
                return Ok(Burial::Full);
            }
        }
        let mut headers = HeaderMap::new();
        headers.insert(ERROR, in_a_header(&letter.error));
        headers.insert(ATTEMPTS, letter.attempts.to_string());
        headers.insert(PARTITION, letter.partition.to_string());
        // An event leaves room for this; the largest message that somebody else has sent does not.
        let largest = self.server.client().max_payload() - ENVELOPE;
        let payload = &letter.payload.0[..letter.payload.0.len().min(largest)];
        self.state
            .put(subject, Terms::default(), headers, payload.to_vec())
            .await?;
        self.acknowledge(group, member, &[done]).await?;
        Ok(Burial::Stored)
    }

    /// See [`Broker::letters`](crate::bus::broker::Broker::letters).
    pub(super) async fn letters(&self, group: &str, at_most: usize) -> Result<Vec<Letter>> {
        let subjects = self.subjects.group(group).letters();
        let entries = self.state.list(&subjects, at_most).await?;
        Ok(entries.into_iter().filter_map(letter).collect())
    }

    /// See [`Broker::redrive`](crate::bus::broker::Broker::redrive).
    pub(super) async fn redrive(&self, group: &str, letters: &[EventId]) -> Result<usize> {
        let mut found = 0;
        for id in letters {
            let subject = self.subjects.group(group).letter(id.as_uuid());
            let Some(entry) = self.state.last(&[subject]).await?.into_iter().next() else {
                continue;
            };
            let revision = entry.revision;
            let Some(letter) = letter(entry) else {
                continue;
            };
            // Whoever repeats this after a crash between the two steps sends the same id.
            let message_id = format!("{group}/{revision}");
            let subject = self.subjects.redriven(group, letter.partition);
            self.send_back(subject, &message_id, &letter.payload)
                .await?;
            self.state.remove(revision).await?;
            found += 1;
        }
        Ok(found)
    }

    /// See [`Broker::discard`](crate::bus::broker::Broker::discard).
    pub(super) async fn discard(&self, group: &str, letters: &[EventId]) -> Result<usize> {
        let mut found = 0;
        for id in letters {
            let subject = self.subjects.group(group).letter(id.as_uuid());
            let entry = self.state.last(&[subject]).await?.into_iter().next();
            if let Some(entry) = entry
                && self.state.remove(entry.revision).await?
            {
                found += 1;
            }
        }
        Ok(found)
    }
}

fn letter(entry: Entry) -> Option<Letter> {
    let number = |name: &str| entry.header(name)?.parse().ok();
    Some(Letter {
        id: EventId::from(Uuid::parse_str(entry.name()).ok()?),
        partition: number(PARTITION)?,
        attempts: number(ATTEMPTS)?,
        error: entry
            .header(ERROR)
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default(),
        payload: Payload::from(entry.payload),
    })
}

/// A header has one line: the text as a JSON string.
fn in_a_header(text: &str) -> String {
    let mut end = text.len().min(LONGEST_ERROR);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    // A string always has a JSON form.
    serde_json::to_string(&text[..end]).unwrap_or_default()
}
