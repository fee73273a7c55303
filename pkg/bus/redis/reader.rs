use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use redis::aio::MultiplexedConnection;
use redis::{Value, cmd};

use super::broker::Streams;
use super::error::translated;
use super::keys::{self, EVENTS, REDRIVEN};
use crate::bus::broker::{Claim, Delivery, Payload, Position, Reader};
use crate::error::{Error, ErrorKind, Result};

/// Reads under claims, and waits on a connection of its own.
pub(super) struct StreamReader {
    streams: Arc<Streams>,
    group: String,
    member: String,
    /// How far each claim has come, in both of its sources.
    progress: HashMap<Claim, [Progress; 2]>,
    /// Whom to ask first, so that no partition starves another.
    turn: usize,
    /// `None` before the first wait, and after one that was given up: its answer may come yet.
    waiting: Option<MultiplexedConnection>,
}

/// How far a claim has come in one source.
#[derive(Debug, Clone, Copy)]
struct Progress {
    /// The last entry that was returned.
    returned: Option<Position>,
    /// Entries behind it may have been handed out to this member already: by the owner before, or by a
    /// read whose answer did not arrive. They come before what is new.
    again: bool,
}

impl StreamReader {
    pub(super) fn new(streams: Arc<Streams>, group: &str, member: &str) -> Self {
        Self {
            streams,
            group: group.to_owned(),
            member: member.to_owned(),
            progress: HashMap::new(),
            turn: 0,
            waiting: None,
        }
    }

    /// What is there now, or else where all streams end.
    async fn fetch(&mut self, claims: &[Claim], at_most: usize) -> Result<Fetched> {
        let mut script = self.streams.scripts.read.prepare_invoke();
        script
            .key(&self.streams.base)
            .arg(&self.group)
            .arg(&self.member)
            .arg(at_most);
        for claim in claims {
            let fresh = Progress {
                returned: None,
                again: true,
            };
            let progress = self.progress.entry(*claim).or_insert([fresh; 2]);
            script.arg(claim.partition).arg(claim.fence);
            for source in progress.iter_mut() {
                script.arg(match (source.again, source.returned) {
                    (false, _) => String::new(),
                    (true, None) => "0-0".to_owned(),
                    (true, Some(returned)) => keys::id(returned),
                });
                // Until the answer is here, what it brings counts as handed out and not returned.
                source.again = true;
            }
        }
        let (parts, ends): (Vec<Vec<Value>>, Vec<String>) =
            self.streams.connection.script("read", &script).await?;
        let mut deliveries = Vec::new();
        for (claim, part) in claims.iter().zip(parts) {
            let mut part = part.into_iter();
            if part.next() != Some(Value::Int(1)) {
                self.progress.remove(claim);
                continue;
            }
            for source in [EVENTS, REDRIVEN] {
                let (Some(Value::Int(again)), Some(Value::Array(entries))) =
                    (part.next(), part.next())
                else {
                    return Err(garbled());
                };
                let Some(progress) = self.progress.get_mut(claim) else {
                    continue;
                };
                let progress = &mut progress[usize::from(source)];
                for entry in entries {
                    let (position, payload, times) = entry_of(source, entry).ok_or_else(garbled)?;
                    progress.returned = Some(position);
                    deliveries.push(Delivery {
                        claim: *claim,
                        position,
                        payload,
                        redriven: source == REDRIVEN,
                        times,
                    });
                }
                progress.again = again == 1;
            }
        }
        Ok(Fetched { deliveries, ends })
    }

    /// Waits until one of the streams has something behind its end.
    async fn wait(&mut self, ends: &[String], wait: Duration) -> Result<()> {
        if ends.is_empty() {
            // No claim is current: the member will notice and ask for others.
            tokio::time::sleep(wait).await;
            return Ok(());
        }
        let mut read = cmd("XREAD");
        read.arg("COUNT")
            .arg(1)
            .arg("BLOCK")
            .arg(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1))
            .arg("STREAMS");
        for key in ends.iter().step_by(2).chain(ends.iter().skip(1).step_by(2)) {
            read.arg(key);
        }
        // Taken out: if this future is dropped, the connection goes with it.
        let mut connection = match self.waiting.take() {
            Some(connection) => connection,
            None => self.streams.connection.patient().await?,
        };
        // A server that is gone without a word must not hold up the next read for ever.
        let limit = wait + self.streams.options.timeout;
        let answer = tokio::time::timeout(limit, read.query_async::<Value>(&mut connection)).await;
        match answer {
            Ok(Ok(_)) => {
                self.waiting = Some(connection);
                Ok(())
            }
            Ok(Err(error)) => Err(translated("wait for events", &error)),
            Err(_) => Err(Error::new(
                ErrorKind::Unavailable,
                "redis bus got no answer to a wait for events",
            )),
        }
    }
}

struct Fetched {
    deliveries: Vec<Delivery>,
    /// Key and last id of every stream, in turn; only if there are no deliveries.
    ends: Vec<String>,
}

#[async_trait]
impl Reader for StreamReader {
    async fn read(
        &mut self,
        claims: &[Claim],
        at_most: usize,
        wait: Duration,
    ) -> Result<Vec<Delivery>> {
        if claims.is_empty() {
            tokio::time::sleep(wait).await;
            return Ok(Vec::new());
        }
        // A fence is never used again, so an earlier claim of the same partition is over.
        self.progress.retain(|known, _| {
            claims
                .iter()
                .all(|claim| claim.partition != known.partition || claim == known)
        });
        self.turn = self.turn.wrapping_add(1);
        let mut claims = claims.to_vec();
        let first = self.turn % claims.len();
        claims.rotate_left(first);

        let fetched = self.fetch(&claims, at_most).await?;
        if !fetched.deliveries.is_empty() || wait.is_zero() {
            return Ok(fetched.deliveries);
        }
        self.wait(&fetched.ends, wait).await?;
        Ok(self.fetch(&claims, at_most).await?.deliveries)
    }
}

/// Position and payload of a stream entry, and how often it was handed out. The payload of one that was not written by this library: its only
/// value, or else all its names and values as JSON.
fn entry_of(source: u8, entry: Value) -> Option<(Position, Payload, u32)> {
    let Value::Array(parts) = entry else {
        return None;
    };
    let mut parts = parts.into_iter();
    let id: String = redis::from_redis_value(parts.next()?).ok()?;
    let position = keys::position(source, &id)?;
    let fields: Vec<Vec<u8>> = redis::from_redis_value(parts.next()?).ok()?;
    let times = match parts.next() {
        Some(Value::Int(times)) => u32::try_from(times).unwrap_or(u32::MAX),
        // Handed out for the first time.
        _ => 1,
    };
    let mut pairs: Vec<(Vec<u8>, Vec<u8>)> = Vec::with_capacity(fields.len() / 2);
    let mut fields = fields.into_iter();
    while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
        if name == b"event" {
            return Some((position, value.into(), times));
        }
        pairs.push((name, value));
    }
    if pairs.len() == 1 {
        return pairs
            .pop()
            .map(|(_, value)| (position, value.into(), times));
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let all: Vec<(String, String)> = pairs.iter().map(|(n, v)| (text(n), text(v))).collect();
    Some((position, serde_json::to_vec(&all).ok()?.into(), times))
}

fn garbled() -> Error {
    Error::new(
        ErrorKind::Corrupt,
        "redis bus cannot read: the server's answer has an unknown form",
    )
}
