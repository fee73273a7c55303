//! Groups: a record in the state, and a durable consumer per partition.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::ErrorCode;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::error;
use super::jetstream::Shared;
use super::server::Done;
use super::state::{Put, Terms};
use super::subject;
use crate::bus::StartFrom;
use crate::bus::broker::GroupRecord;
use crate::error::{Error, ErrorKind, Result};

/// A group's record as it is stored.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    name: String,
    asks: String,
    from_beginning: bool,
    transient: bool,
}

impl Shared {
    /// See [`Broker::open_group`](crate::bus::broker::Broker::open_group).
    pub(super) async fn open_group(&self, group: &GroupRecord) -> Result<GroupRecord> {
        let stored = self.record(group).await?;
        // By whoever opens it, each time: whoever wrote the record may have died before this.
        let creating = (0..self.partitions).map(|partition| self.consume(&stored, partition));
        join_all(creating)
            .await
            .into_iter()
            .collect::<Result<()>>()?;
        self.remember_transient(&stored.name, stored.transient);
        Ok(stored)
    }

    /// The record that is stored, which is this one unless somebody was faster.
    async fn record(&self, group: &GroupRecord) -> Result<GroupRecord> {
        let subject = self.subjects.group(&group.name).record();
        let own = Stored {
            name: group.name.to_string(),
            asks: group.asks.clone(),
            from_beginning: group.start == StartFrom::Beginning,
            transient: group.transient,
        };
        let payload = serde_json::to_vec(&own).map_err(|error| damaged(&group.name, error))?;
        let terms = Terms {
            expected: Some(0),
            ttl: None,
        };
        // More than once: between the two steps it may have been removed, and a replica that answers
        // the second may be behind.
        for _ in 0..5 {
            let put = self
                .state
                .put(subject.clone(), terms, HeaderMap::new(), payload.clone())
                .await?;
            if matches!(put, Put::Stored(_)) {
                return Ok(group.clone());
            }
            let found = self.state.last(std::slice::from_ref(&subject)).await?;
            if let Some(entry) = found.first() {
                let stored: Stored = serde_json::from_slice(&entry.payload)
                    .map_err(|error| damaged(&group.name, error))?;
                return Ok(GroupRecord {
                    name: stored.name.into(),
                    asks: stored.asks,
                    start: if stored.from_beginning {
                        StartFrom::Beginning
                    } else {
                        StartFrom::Now
                    },
                    transient: stored.transient,
                });
            }
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            format!("nats: the record of group {} comes and goes", group.name),
        ))
    }

    /// Creates the consumer of a partition, unless it is there.
    async fn consume(&self, group: &GroupRecord, partition: u32) -> Result<()> {
        let name = subject::consumer(&group.name, partition);
        let start = match group.start {
            StartFrom::Beginning => "all",
            StartFrom::Now => "new",
        };
        let request = json!({
            "stream_name": self.stream,
            "action": "create",
            "config": {
                "durable_name": name,
                "name": name,
                "description": "nodestorage: a partition of the event bus",
                "deliver_policy": start,
                "ack_policy": "explicit",
                "ack_wait": u64::try_from(self.ack_wait.as_nanos()).unwrap_or(u64::MAX),
                // Who fails is counted by the owner, who puts the event into the dead letters: a bound
                // here would drop events.
                "max_deliver": -1,
                // What is in work is bounded by the members' queues.
                "max_ack_pending": -1,
                "filter_subject": self.subjects.partition(partition),
                "replay_policy": "instant",
            },
        });
        let created: Result<Done> = self
            .server
            .call(
                "creating a consumer",
                format!("CONSUMER.CREATE.{}.{name}", self.stream),
                &request,
            )
            .await;
        match created {
            Ok(_) => Ok(()),
            // With other settings, which is its operator's right.
            Err(error) if exists(&error) => Ok(()),
            Err(error) => Err(error.context(format!("group {}", group.name))),
        }
    }

    /// See [`Broker::remove_group`](crate::bus::broker::Broker::remove_group).
    pub(super) async fn remove_group(&self, group: &str) -> Result<()> {
        self.leases.forget(group);
        // The record last: as long as it is there, somebody can finish this.
        let removing = (0..self.partitions).map(|partition| async move {
            let name = subject::consumer(group, partition);
            let removed: Result<Done> = self
                .server
                .call(
                    "removing a consumer",
                    format!("CONSUMER.DELETE.{}.{name}", self.stream),
                    &json!({}),
                )
                .await;
            match removed {
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                removed => removed.map(drop),
            }
        });
        join_all(removing)
            .await
            .into_iter()
            .collect::<Result<()>>()?;
        let everything = self.subjects.group(group).everything();
        self.state.purge(&everything).await
    }

    /// Notes that a transient group is in use.
    pub(super) async fn see(&self, group: &str) -> Result<()> {
        if self.is_transient(group) {
            let seen = self.subjects.group(group).seen();
            self.state
                .put(seen, Terms::default(), HeaderMap::new(), Vec::new())
                .await?;
        }
        Ok(())
    }

    /// See [`Broker::reap`](crate::bus::broker::Broker::reap).
    pub(super) async fn reap(&self, silence: Duration) -> Result<()> {
        // The server's clock: what it says of a message that it has just stored.
        let clock = self.subjects.clock();
        self.state
            .put(
                clock.clone(),
                Terms::default(),
                HeaderMap::new(),
                Vec::new(),
            )
            .await?;
        let now = self.state.last(&[clock]).await?;
        let Some(now) = now.first().map(|entry| entry.stored_millis) else {
            return Ok(());
        };
        let group_of = |subject: &str| subject.rsplit('.').nth(1).map(str::to_owned);
        let sightings = self
            .state
            .list(&self.subjects.sightings(), usize::MAX)
            .await?;
        let seen: HashMap<_, _> = sightings
            .into_iter()
            .filter_map(|entry| Some((group_of(&entry.subject)?, entry.stored_millis)))
            .collect();
        let records = self
            .state
            .list(&self.subjects.records(), usize::MAX)
            .await?;
        let silence = i64::try_from(silence.as_millis()).unwrap_or(i64::MAX);
        for entry in records {
            let Ok(stored) = serde_json::from_slice::<Stored>(&entry.payload) else {
                continue;
            };
            let seen = group_of(&entry.subject).and_then(|group| seen.get(&group).copied());
            let last = entry.stored_millis.max(seen.unwrap_or_default());
            if stored.transient && now.saturating_sub(last) > silence {
                tracing::info!(
                    group = stored.name,
                    "a broadcast without members is removed"
                );
                self.remove_group(&stored.name).await?;
            }
        }
        Ok(())
    }

    pub(super) fn no_group(&self, group: &str) -> Error {
        Error::new(
            ErrorKind::NotFound,
            format!("nats: there is no group {group} on stream {}", self.stream),
        )
    }

    fn remember_transient(&self, group: &Arc<str>, transient: bool) {
        let mut groups = self.transient();
        if transient {
            groups.insert(Arc::clone(group));
        } else {
            groups.remove(group);
        }
    }

    fn is_transient(&self, group: &str) -> bool {
        self.transient().contains(group)
    }
}

fn exists(error: &Error) -> bool {
    matches!(
        error::code(error),
        Some(ErrorCode::CONSUMER_ALREADY_EXISTS | ErrorCode::CONSUMER_NAME_EXIST)
    )
}

fn damaged(group: &str, error: serde_json::Error) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        format!("nats: the record of group {group} is no record"),
    )
    .with_source(error)
}
