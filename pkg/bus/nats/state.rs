//! The stream that holds what is small and changes: groups, members, claims, dead letters. One message
//! per subject, the latest; claims and members vanish by themselves unless they are renewed.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::context::PublishErrorKind;
use serde_json::json;

use super::error;
use super::server::{Done, Server};
use crate::error::{Error, ErrorKind, Result};

const EXPECTED: &str = "Nats-Expected-Last-Subject-Sequence";
const TTL: &str = "Nats-TTL";

/// How many entries one request reads: together they stay far below what a connection buffers.
const PAGE: usize = 64;

#[derive(Debug, Clone)]
pub(super) struct State {
    server: Server,
    stream: String,
}

/// The message at a subject.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) subject: String,
    /// Its number in the stream, which is its revision: larger than all before.
    pub(super) revision: u64,
    /// When it was stored, by the server's clock, in milliseconds.
    pub(super) stored_millis: i64,
    pub(super) headers: HeaderMap,
    pub(super) payload: Vec<u8>,
}

impl Entry {
    /// The last token of the subject.
    pub(super) fn name(&self) -> &str {
        self.subject.rsplit('.').next().unwrap_or_default()
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.as_str())
    }
}

/// What becomes of a message that replaces another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    Stored(u64),
    /// The subject is not at the expected revision.
    Conflict,
}

/// This part of the stream is not for dead letters: a group without room for its claims would stand still.
const RESERVED: u64 = 16;

/// What there is of something.
#[derive(Debug, Clone, Copy)]
pub(super) struct Count {
    pub(super) entries: usize,
    /// How many bytes of dead letters the stream still takes; `None` without a bound.
    pub(super) room: Option<u64>,
}

/// When a message may be stored, and for how long.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Terms {
    /// The revision to replace; 0 for nothing.
    pub(super) expected: Option<u64>,
    pub(super) ttl: Option<Duration>,
}

impl State {
    pub(super) fn new(server: Server, stream: String) -> Self {
        Self { server, stream }
    }

    pub(super) async fn put(
        &self,
        subject: String,
        terms: Terms,
        mut headers: HeaderMap,
        payload: Vec<u8>,
    ) -> Result<Put> {
        let what = "the state of a group";
        self.server.check_connected()?;
        if let Some(expected) = terms.expected {
            headers.insert(EXPECTED, expected.to_string());
        }
        if let Some(ttl) = terms.ttl {
            headers.insert(TTL, whole_seconds(ttl));
        }
        let sent = self.server.publish(subject, headers, payload.into()).await;
        let acknowledged = match sent {
            Ok(sent) => sent.await,
            Err(error) => Err(error),
        };
        match acknowledged {
            Ok(stored) => Ok(Put::Stored(stored.sequence)),
            Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => Ok(Put::Conflict),
            Err(error) => Err(error::unpublished(what, error)),
        }
    }

    /// The entries at subjects, which may have wildcards; a few at most. As of one moment.
    pub(super) async fn last(&self, subjects: &[String]) -> Result<Vec<Entry>> {
        let found = self
            .server
            .get(&self.stream, &json!({ "multi_last": subjects }))
            .await?;
        found.into_iter().map(entry).collect()
    }

    /// The entries at a subject with wildcards, oldest first.
    pub(super) async fn list(&self, subjects: &str, at_most: usize) -> Result<Vec<Entry>> {
        let mut entries: Vec<Entry> = Vec::new();
        while entries.len() < at_most {
            let wanted = PAGE.min(at_most - entries.len());
            let after = entries.last().map_or(0, |entry| entry.revision);
            let request = json!({
                "seq": after + 1,
                "next_by_subj": subjects,
                "batch": wanted,
            });
            let page = self.server.get(&self.stream, &request).await?;
            let count = page.len();
            for message in page {
                entries.push(entry(message)?);
            }
            if count < wanted {
                break;
            }
        }
        Ok(entries)
    }

    /// How many entries there are at a subject with wildcards, and how full the stream is.
    pub(super) async fn count(&self, subjects: &str) -> Result<Count> {
        #[derive(serde::Deserialize)]
        struct Answer {
            config: Config,
            state: Subjects,
        }
        #[derive(serde::Deserialize)]
        struct Config {
            /// -1 without a bound.
            max_bytes: i64,
        }
        #[derive(serde::Deserialize)]
        struct Subjects {
            bytes: u64,
            #[serde(default)]
            num_subjects: usize,
            #[serde(default)]
            subjects: Option<std::collections::HashMap<String, u64>>,
        }
        let answer: Answer = self
            .server
            .call(
                "counting dead letters",
                format!("STREAM.INFO.{}", self.stream),
                &json!({ "subjects_filter": subjects }),
            )
            .await?;
        // `num_subjects` is of the whole stream; the list is of those that were asked for, or absent.
        let found = answer.state.subjects.map_or(0, |found| found.len());
        let room = u64::try_from(answer.config.max_bytes).ok();
        Ok(Count {
            entries: found.min(answer.state.num_subjects),
            room: room.map(|all| (all - all / RESERVED).saturating_sub(answer.state.bytes)),
        })
    }

    /// Removes one entry if it is still this one. Says whether it was.
    pub(super) async fn remove(&self, revision: u64) -> Result<bool> {
        let removed: Result<Done> = self
            .server
            .call(
                "removing an entry of the state",
                format!("STREAM.MSG.DELETE.{}", self.stream),
                &json!({ "seq": revision, "no_erase": true }),
            )
            .await;
        match removed {
            Ok(_) => Ok(true),
            // "no message found", or an older server's words for it.
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidConfig) =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Removes everything at a subject, which may have wildcards.
    pub(super) async fn purge(&self, subjects: &str) -> Result<()> {
        let _: Done = self
            .server
            .call(
                "removing the state of a group",
                format!("STREAM.PURGE.{}", self.stream),
                &json!({ "filter": subjects }),
            )
            .await?;
        Ok(())
    }
}

/// The server keeps times to live in whole seconds and rounds down, and a claim must never end in the
/// broker before its owner lets go of it.
fn whole_seconds(ttl: Duration) -> String {
    let up = u64::from(ttl.subsec_nanos() > 0);
    format!("{}s", (ttl.as_secs() + up).max(1))
}

fn entry(message: async_nats::Message) -> Result<Entry> {
    let strange = || {
        Error::new(
            ErrorKind::Unsupported,
            "nats: the server answers a batched direct get without its headers",
        )
    };
    let headers = message.headers.ok_or_else(strange)?;
    let text = |name: &str| headers.get(name).map(|value| value.as_str().to_owned());
    let stored = text("Nats-Time-Stamp").and_then(|at| bson::DateTime::parse_rfc3339_str(at).ok());
    Ok(Entry {
        subject: text("Nats-Subject").ok_or_else(strange)?,
        revision: text("Nats-Sequence")
            .and_then(|number| number.parse().ok())
            .ok_or_else(strange)?,
        stored_millis: stored.ok_or_else(strange)?.timestamp_millis(),
        headers,
        payload: message.payload.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_to_live_are_rounded_up() {
        for (millis, expected) in [(1, "1s"), (1_000, "1s"), (1_001, "2s"), (10_000, "10s")] {
            assert_eq!(whole_seconds(Duration::from_millis(millis)), expected);
        }
    }
}
