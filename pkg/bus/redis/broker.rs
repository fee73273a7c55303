use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use redis::Client;

use super::append::{Lengths, append};
use super::connection::Connection;
use super::keys;
use super::options::RedisBusOptions;
use super::reader::StreamReader;
use super::scripts::Scripts;
use crate::bus::StartFrom;
use crate::bus::broker::{
    Acknowledgement, AppendFailure, Broker, Burial, Claim, GroupRecord, Letter, Outgoing, Pulse,
    Reader,
};
use crate::error::{Error, ErrorKind, Result};
use crate::event::EventId;

/// Redis Streams as a durable broker: a stream per partition, in it a consumer group per group, and
/// claims, heartbeats and dead letters beside them.
#[derive(Debug)]
pub(super) struct Streams {
    pub(super) connection: Connection,
    pub(super) scripts: Scripts,
    pub(super) options: RedisBusOptions,
    pub(super) base: String,
    pub(super) lengths: Lengths,
    events_keys: Vec<String>,
}

/// How many ids one script takes: its arguments lie on Lua's stack.
pub(super) const MOST_IDS: usize = 1_000;

impl Streams {
    pub(super) async fn open(client: Client, options: RedisBusOptions) -> Result<Self> {
        let base = keys::base(&options.prefix);
        let streams = Self {
            connection: Connection::new(client, options.timeout),
            scripts: Scripts::new(),
            lengths: Lengths::new(options.partitions),
            events_keys: (0..options.partitions)
                .map(|partition| keys::events(&base, partition))
                .collect(),
            base,
            options,
        };
        let mut script = streams.scripts.open_bus.prepare_invoke();
        script.key(&streams.base).arg(streams.options.partitions);
        let recorded: Vec<u32> = streams.connection.script("open", &script).await?;
        if recorded != [streams.options.partitions, 1] {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                format!(
                    "redis bus {} exists with {} partitions in format {}, asked for were {} in format 1",
                    streams.options.prefix,
                    recorded.first().copied().unwrap_or_default(),
                    recorded.get(1).copied().unwrap_or_default(),
                    streams.options.partitions
                ),
            ));
        }
        Ok(streams)
    }

    pub(super) fn events_key(&self, partition: u32) -> &str {
        usize::try_from(partition)
            .ok()
            .and_then(|at| self.events_keys.get(at))
            .map_or("", String::as_str)
    }

    /// How many attempts at an event have begun, with one more if it begins now; `None` without the claim.
    async fn attempts(
        &self,
        group: &str,
        delivery: Acknowledgement,
        begins: bool,
    ) -> Result<Option<u32>> {
        let Acknowledgement { claim, position } = delivery;
        let mut script = self.scripts.attempt.prepare_invoke();
        script
            .key(&self.base)
            .arg(group)
            .arg(claim.partition)
            .arg(claim.fence)
            .arg(position.source)
            .arg(keys::id(position))
            .arg(u8::from(begins));
        let begun: i64 = self.connection.script("note an attempt", &script).await?;
        Ok(u32::try_from(begun).ok())
    }

    async fn forget(&self, group: &str, member: &str, held: &[Claim]) -> Result<()> {
        let mut script = self.scripts.release.prepare_invoke();
        script.key(&self.base).arg(group).arg(member);
        for claim in held {
            script.arg(claim.partition).arg(claim.fence);
        }
        self.connection.script("release claims", &script).await
    }
}

/// The trait's side of [`Streams`], which readers share.
#[derive(Debug)]
pub(super) struct StreamsBroker(pub(super) Arc<Streams>);

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn pairs(numbers: &[u64]) -> Vec<Claim> {
    numbers
        .chunks_exact(2)
        .filter_map(|pair| {
            Some(Claim {
                partition: u32::try_from(pair[0]).ok()?,
                fence: pair[1],
            })
        })
        .collect()
}

#[async_trait]
impl Broker for StreamsBroker {
    fn label(&self) -> &'static str {
        "redis bus"
    }

    fn partitions(&self) -> u32 {
        self.0.options.partitions
    }

    fn max_event_bytes(&self) -> Option<usize> {
        Some(self.0.options.max_event_bytes)
    }

    async fn append(&self, events: &[Outgoing]) -> Result<(), AppendFailure> {
        append(&self.0, events).await
    }

    async fn open_group(&self, group: &GroupRecord) -> Result<GroupRecord> {
        let start = match group.start {
            StartFrom::Now => "$",
            StartFrom::Beginning => "0",
        };
        let mut script = self.0.scripts.open_group.prepare_invoke();
        script
            .key(&self.0.base)
            .arg(&*group.name)
            .arg(&group.asks)
            .arg(start)
            .arg(u8::from(group.transient))
            .arg(self.0.options.partitions);
        let (asks, start, transient): (String, String, String) =
            self.0.connection.script("open a group", &script).await?;
        Ok(GroupRecord {
            name: Arc::clone(&group.name),
            asks,
            start: if start == "0" {
                StartFrom::Beginning
            } else {
                StartFrom::Now
            },
            transient: transient == "1",
        })
    }

    async fn remove_group(&self, group: &str) -> Result<()> {
        let mut script = self.0.scripts.remove_group.prepare_invoke();
        script
            .key(&self.0.base)
            .arg(group)
            .arg(self.0.options.partitions);
        self.0.connection.script("remove a group", &script).await
    }

    async fn reap(&self, silence: Duration) -> Result<()> {
        let mut script = self.0.scripts.reap.prepare_invoke();
        script
            .key(&self.0.base)
            .arg(millis(silence))
            .arg(self.0.options.partitions);
        self.0
            .connection
            .script("remove dead broadcasts", &script)
            .await
    }

    async fn pulse(
        &self,
        group: &str,
        member: &str,
        held: &[Claim],
        ttl: Duration,
    ) -> Result<Pulse> {
        let mut script = self.0.scripts.pulse.prepare_invoke();
        script
            .key(&self.0.base)
            .arg(group)
            .arg(member)
            .arg(millis(ttl));
        for claim in held {
            script.arg(claim.partition).arg(claim.fence);
        }
        let (mut members, held): (Vec<String>, Vec<u64>) =
            self.0.connection.script("renew claims", &script).await?;
        members.sort_unstable();
        Ok(Pulse {
            members,
            held: pairs(&held),
        })
    }

    async fn acquire(
        &self,
        group: &str,
        member: &str,
        at_most: usize,
        ttl: Duration,
    ) -> Result<Vec<Claim>> {
        let mut script = self.0.scripts.acquire.prepare_invoke();
        script
            .key(&self.0.base)
            .arg(group)
            .arg(member)
            .arg(millis(ttl))
            .arg(at_most)
            .arg(self.0.options.partitions);
        let claims: Vec<u64> = self.0.connection.script("acquire claims", &script).await?;
        Ok(pairs(&claims))
    }

    async fn release(&self, group: &str, _member: &str, held: &[Claim]) -> Result<()> {
        self.0.forget(group, "", held).await
    }

    async fn resign(&self, group: &str, member: &str, held: &[Claim]) -> Result<()> {
        self.0.forget(group, member, held).await
    }

    fn reader(&self, group: &str, member: &str) -> Box<dyn Reader> {
        Box::new(StreamReader::new(Arc::clone(&self.0), group, member))
    }

    async fn acknowledge(
        &self,
        group: &str,
        _member: &str,
        done: &[Acknowledgement],
    ) -> Result<()> {
        let mut places: HashMap<(Claim, u8), Vec<String>> = HashMap::new();
        for done in done {
            let place = places
                .entry((done.claim, done.position.source))
                .or_default();
            place.push(keys::id(done.position));
        }
        for ((claim, source), ids) in places {
            for ids in ids.chunks(MOST_IDS) {
                let mut script = self.0.scripts.acknowledge.prepare_invoke();
                script
                    .key(&self.0.base)
                    .arg(group)
                    .arg(claim.partition)
                    .arg(claim.fence)
                    .arg(source);
                for id in ids {
                    script.arg(id);
                }
                let _current: i64 = self.0.connection.script("acknowledge", &script).await?;
            }
        }
        Ok(())
    }

    async fn begun(
        &self,
        group: &str,
        _member: &str,
        delivery: Acknowledgement,
    ) -> Result<Option<u32>> {
        self.0.attempts(group, delivery, false).await
    }

    async fn begin(
        &self,
        group: &str,
        _member: &str,
        delivery: Acknowledgement,
    ) -> Result<Option<u32>> {
        self.0.attempts(group, delivery, true).await
    }

    async fn bury(
        &self,
        group: &str,
        _member: &str,
        done: Acknowledgement,
        letter: &Letter,
        at_most: usize,
    ) -> Result<Burial> {
        self.0.bury(group, done, letter, at_most).await
    }

    async fn letters(&self, group: &str, at_most: usize) -> Result<Vec<Letter>> {
        self.0.letters(group, at_most).await
    }

    async fn redrive(&self, group: &str, letters: &[EventId]) -> Result<usize> {
        self.0.take_letters(group, letters, true).await
    }

    async fn discard(&self, group: &str, letters: &[EventId]) -> Result<usize> {
        self.0.take_letters(group, letters, false).await
    }

    async fn close(&self) {
        self.0.connection.disconnect();
    }
}
