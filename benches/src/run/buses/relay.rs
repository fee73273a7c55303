//! The relay under load, after an outage, and what it costs those who update.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use nodestorage::Storage;
use nodestorage::bus::EventBus as _;
use nodestorage::relay::RelayHandle;
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::super::mongo::our_settings;
use super::super::{Bench, DOCUMENTS, Outcome};
use super::{OURS, THEIRS, start_relay};
use crate::broker::gauge::Gauge;
use crate::broker::{Broker, Kind};
use crate::contender::{Checked as _, Contender, Counted, Tasks, alternate};
use crate::load::{Length, Sample, repeat};
use crate::machine::load_average;
use crate::mongo::{Cache, Database};
use crate::ours::{Choice, Ours};
use crate::report::{Figures, Round, rounded};
use crate::scenario::Plan;

const TASKS: usize = 64;
/// Of those who let the log grow: what is measured comes after them.
const FILLING_TASKS: usize = 512;
/// The log of an outage: a minute of 1,667 updates per second.
const ENTRIES: u64 = 100_000;
const QUICK_ENTRIES: u64 = 10_000;
/// Far beyond what anything here takes; a relay that stands still fails the scenario.
const PATIENCE: Duration = Duration::from_secs(120);

/// A database with documents, and a broker.
struct Setup {
    database: Database,
    storage: Storage,
    broker: Broker,
    gauge: Gauge,
}

impl Setup {
    /// With the documents' creation published.
    async fn new(bench: &Bench, kind: Kind) -> Result<Self> {
        let server = bench.server().await?;
        let (database, storage) = Database::ours(server, OURS, DOCUMENTS, Cache::Warm).await?;
        let broker = Broker::start(kind).await?;
        let gauge = Gauge::around(broker.bus(OURS).await?);
        let relay = start_relay(&storage, &gauge)?;
        gauge.reaches(DOCUMENTS as u64, PATIENCE).await?;
        relay.shutdown().await;
        Ok(Self {
            database,
            storage,
            broker,
            gauge,
        })
    }

    fn worker(&self) -> Ours<Database> {
        Ours {
            storage: self.storage.clone(),
            choice: Choice::any_of(DOCUMENTS),
            store: self.database.clone(),
        }
    }

    /// Compares the broker with what was acknowledged, and ends all but the database server.
    async fn end(self, acknowledged: u64) -> Result<()> {
        let stored = self.broker.stored(OURS).await?;
        let expected = DOCUMENTS as u64 + acknowledged;
        ensure!(
            stored >= expected,
            "the broker has {stored} events, {expected} were committed"
        );
        self.gauge.close().await?;
        self.storage.close().await;
        self.database.drop().await
    }
}

impl Bench {
    pub(in super::super) async fn relay_keeps_up(
        &self,
        plan: &Plan,
        kind: Kind,
    ) -> Result<Outcome> {
        let setup = Setup::new(self, kind).await?;
        let relay = start_relay(&setup.storage, &setup.gauge)?;
        let side = Tasks::new(setup.worker(), TASKS);
        let mut acknowledged = 0;
        let mut rounds = Vec::new();
        for number in 1..=plan.rounds {
            let load = load_average();
            let watching = watch(&relay, &setup.gauge, plan.length);
            let (sample, seen) = tokio::join!(side.run(plan.length, number), watching);
            let (sample, (per_second, backlog)) = (sample?, seen?);
            acknowledged += sample.acknowledged;
            let all = DOCUMENTS as u64 + acknowledged;
            setup.gauge.reaches(all, PATIENCE).await?;
            side.check(acknowledged).await?;
            let round = Round {
                ratio: Some(rounded(per_second / sample.per_second())),
                theirs: Some(Figures::of(&sample)),
                ours: Figures {
                    per_second: rounded(per_second),
                    ..Figures::default()
                },
                notes: vec![format!("backlog at the end of each second {backlog:?}")],
                load_average: load,
                ..Round::default()
            };
            eprintln!("  round {number} of {}: {round}", plan.rounds);
            rounds.push(round);
        }
        relay.shutdown().await;
        let broker = setup.broker.settings();
        setup.end(acknowledged).await?;
        Ok(Outcome {
            rounds,
            sides: json!({
                "broker": broker,
                "documents": DOCUMENTS,
                "theirs": "the updates acknowledged in the measured time",
                "ours": "the events confirmed by the broker in the same time; no subscribers",
                "updates": our_settings(TASKS),
            }),
        })
    }

    pub(in super::super) async fn relay_drains(&self, plan: &Plan, kind: Kind) -> Result<Outcome> {
        let setup = Setup::new(self, kind).await?;
        let worker = Arc::new(setup.worker());
        let entries = if plan.quick { QUICK_ENTRIES } else { ENTRIES };
        let mut acknowledged = 0;
        let mut rounds = Vec::new();
        for number in 1..=plan.rounds {
            let filled = repeat(&worker, FILLING_TASKS, entries, number as u64).await?;
            acknowledged += filled.acknowledged;
            let load = load_average();
            let begin = Instant::now();
            let relay = start_relay(&setup.storage, &setup.gauge)?;
            let all = DOCUMENTS as u64 + acknowledged;
            setup.gauge.reaches(all, PATIENCE).await?;
            let per_second = filled.acknowledged as f64 / begin.elapsed().as_secs_f64();
            relay.shutdown().await;
            setup.database.check(acknowledged).await?;
            let round = Round {
                ours: Figures {
                    per_second: rounded(per_second),
                    ..Figures::default()
                },
                load_average: load,
                ..Round::default()
            };
            eprintln!("  round {number} of {}: {round}", plan.rounds);
            rounds.push(round);
        }
        let broker = setup.broker.settings();
        setup.end(acknowledged).await?;
        Ok(Outcome {
            rounds,
            sides: json!({
                "broker": broker,
                "entries": entries,
                "measured": "from the start of the relay to the last confirmation; nobody updates meanwhile",
            }),
        })
    }

    pub(in super::super) async fn updates_with_relay(
        &self,
        plan: &Plan,
        kind: Kind,
    ) -> Result<Outcome> {
        let setup = Setup::new(self, kind).await?;
        let server = self.server().await?;
        let (database, storage) = Database::ours(server, THEIRS, DOCUMENTS, Cache::Warm).await?;
        let without = Ours {
            storage: storage.clone(),
            choice: Choice::any_of(DOCUMENTS),
            store: database.clone(),
        };
        let acknowledged = AtomicU64::new(0);
        let with = WithRelay {
            setup: &setup,
            tasks: Tasks::new(setup.worker(), TASKS),
            acknowledged: &acknowledged,
        };
        let theirs = Counted::theirs(Tasks::new(without, TASKS));
        let rounds = alternate(theirs, Counted::ours(with), plan).await?;
        let broker = setup.broker.settings();
        setup.end(acknowledged.into_inner()).await?;
        storage.close().await;
        database.drop().await?;
        Ok(Outcome {
            rounds,
            sides: json!({
                "broker": broker,
                "documents": DOCUMENTS,
                "ours": "with a relay in this process, which runs for the rounds of this side; no subscribers",
                "theirs": "the same without relay and bus",
                "updates": our_settings(TASKS),
            }),
        })
    }
}

/// Updates while a relay runs; what it did not publish in the round it publishes before the next.
struct WithRelay<'a> {
    setup: &'a Setup,
    tasks: Tasks<Ours<Database>>,
    acknowledged: &'a AtomicU64,
}

impl Contender for WithRelay<'_> {
    async fn run(&self, length: Length, round: usize) -> Result<Sample> {
        let relay = start_relay(&self.setup.storage, &self.setup.gauge)?;
        let sample = self.tasks.run(length, round).await?;
        let before = self
            .acknowledged
            .fetch_add(sample.acknowledged, Ordering::Relaxed);
        let all = DOCUMENTS as u64 + before + sample.acknowledged;
        self.setup.gauge.reaches(all, PATIENCE).await?;
        relay.shutdown().await;
        Ok(sample)
    }

    async fn check(&self, acknowledged: u64) -> Result<()> {
        self.tasks.check(acknowledged).await
    }
}

/// Events per second that were confirmed in the measured time, and the backlog at the end of each second.
async fn watch(relay: &RelayHandle, gauge: &Gauge, length: Length) -> Result<(f64, Vec<u64>)> {
    let begin = Instant::now() + length.warm_up;
    sleep_until(begin).await;
    let (first, started) = (gauge.confirmed(), Instant::now());
    let end = begin + length.measured;
    let mut backlog = Vec::new();
    let mut next = begin;
    while next < end {
        next = (next + Duration::from_secs(1)).min(end);
        sleep_until(next).await;
        if next == end {
            break;
        }
        backlog.push(relay.lag().await?.entries);
    }
    let (last, ended) = (gauge.confirmed(), Instant::now());
    backlog.push(relay.lag().await?.entries);
    let per_second = (last - first) as f64 / (ended - started).as_secs_f64();
    Ok((per_second, backlog))
}
