//! From an update to the handler of its event.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fastrand::Rng;
use nodestorage::Event;
use nodestorage::bus::{EventBusExt as _, Subscription};
use nodestorage::{Storage, UpdateError};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::super::{Bench, DOCUMENTS, Outcome};
use super::{OURS, start_relay};
use crate::broker::gauge::Gauge;
use crate::broker::{Broker, Kind};
use crate::contender::Checked as _;
use crate::load::{Sample, micros};
use crate::machine::load_average;
use crate::mongo::{Cache, Database};
use crate::report::{Figures, Round};
use crate::scenario::Plan;
use crate::user::{COLLECTION, User, id};

/// One update per millisecond, whether the last one was answered or not.
const EVERY: Duration = Duration::from_millis(1);
const WORKERS: usize = 8;
const PATIENCE: Duration = Duration::from_secs(60);

/// When each update was due, answered and handled: nanoseconds since the beginning, zero before.
struct Times {
    begin: Instant,
    due: Vec<AtomicU64>,
    answered: Vec<AtomicU64>,
    handled: Vec<AtomicU64>,
    count: AtomicU64,
}

impl Times {
    fn new(updates: usize) -> Self {
        let empty = || (0..updates).map(|_| AtomicU64::new(0)).collect();
        Self {
            begin: Instant::now(),
            due: empty(),
            answered: empty(),
            handled: empty(),
            count: AtomicU64::new(0),
        }
    }

    fn note(&self, column: &[AtomicU64], number: usize, at: Instant) -> bool {
        let now = u64::try_from((at - self.begin).as_nanos()).unwrap_or(u64::MAX);
        let cell = column.get(number);
        // The first time counts: a bus may deliver again.
        cell.is_some_and(|it| {
            it.compare_exchange(0, now.max(1), Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        })
    }

    /// The time between two columns, of the updates from a number on.
    fn sample(&self, from: &[AtomicU64], skip: usize, seconds: f64) -> Sample {
        let pairs = from.iter().zip(&self.handled).skip(skip);
        let mut latencies: Vec<f32> = pairs
            .map(|(from, handled)| {
                let (from, to) = (
                    from.load(Ordering::Relaxed),
                    handled.load(Ordering::Relaxed),
                );
                // A handler may be faster than the answer.
                micros(Duration::from_nanos(to.saturating_sub(from)))
            })
            .collect();
        latencies.sort_unstable_by(f32::total_cmp);
        Sample {
            acknowledged: self.due.len() as u64,
            measured: latencies.len() as u64,
            seconds,
            latencies_us: latencies,
        }
    }
}

impl Bench {
    pub(in super::super) async fn commit_to_handler(
        &self,
        plan: &Plan,
        kind: Kind,
    ) -> Result<Outcome> {
        let server = self.server().await?;
        let (database, storage) = Database::ours(server, OURS, DOCUMENTS, Cache::Warm).await?;
        let broker = Broker::start(kind).await?;
        let bus = broker.bus(OURS).await?;
        let gauge = Gauge::around(Arc::clone(&bus));
        let relay = start_relay(&storage, &gauge)?;
        gauge.reaches(DOCUMENTS as u64, PATIENCE).await?;
        let mut acknowledged = 0;
        let mut rounds = Vec::new();
        for number in 1..=plan.rounds {
            let load = load_average();
            let all = (plan.length.warm_up + plan.length.measured).as_millis();
            let times = Arc::new(Times::new(usize::try_from(all)?));
            let handling = Arc::clone(&times);
            let subscription = Subscription::to("UsersUpdated")
                .with_group("handlers")
                .with_workers(WORKERS);
            let handle = bus.subscribe(subscription, move |event: Event| {
                if let Some(number) = number_of(&event, number)
                    && handling.note(&handling.handled, number, Instant::now())
                {
                    handling.count.fetch_add(1, Ordering::Relaxed);
                }
                std::future::ready(())
            });
            let handle = handle.await?;
            run(&storage, &times, number).await?;
            acknowledged += times.due.len() as u64;
            handle.unsubscribe().await?;
            database.check(acknowledged).await?;
            let skip = usize::try_from(plan.length.warm_up.as_millis())?;
            let seconds = plan.length.measured.as_secs_f64();
            // The commit is over when the update is answered; what comes before is the commit's own time.
            let ours = Figures::of(&times.sample(&times.answered, skip, seconds));
            let call = Figures::of(&times.sample(&times.due, skip, seconds));
            let round = Round {
                ours,
                groups: BTreeMap::from([
                    ("from the call".to_owned(), call),
                    ("from the answer".to_owned(), ours),
                ]),
                load_average: load,
                ..Round::default()
            };
            eprintln!("  round {number} of {}: {round}", plan.rounds);
            rounds.push(round);
        }
        relay.shutdown().await;
        bus.close().await?;
        storage.close().await;
        database.drop().await?;
        Ok(Outcome {
            rounds,
            sides: json!({
                "broker": broker.settings(),
                "documents": DOCUMENTS,
                "updates_per_second": 1_000,
                "subscription": format!("a group with one member of {WORKERS} workers, in this process"),
                "measured": "from the moment an update is due, so its commit is part of it, to the \
                             handler's first line",
            }),
        })
    }
}

/// The number of an update of a round, both of which it wrote as the status.
fn number_of(event: &Event, round: usize) -> Option<usize> {
    let status = event.data().get("merge_patch")?.get("status")?.as_str()?;
    let (of, number) = status.split_once('/')?;
    (of.parse() == Ok(round)).then(|| number.parse().ok())?
}

/// Makes all updates, and waits until all were handled.
async fn run(storage: &Storage, times: &Arc<Times>, round: usize) -> Result<()> {
    // Members of the group find each other and their partitions first.
    sleep(Duration::from_secs(1)).await;
    let mut rng = Rng::with_seed(round as u64);
    let mut running = JoinSet::new();
    let mut due = Instant::now();
    for number in 0..times.due.len() {
        sleep_until(due).await;
        // Not now: what begins late has waited since then.
        times.note(&times.due, number, due);
        let (storage, times) = (storage.clone(), Arc::clone(times));
        let id = id(rng.usize(0..DOCUMENTS));
        running.spawn(async move {
            let updating = storage.update(COLLECTION, &id, |user: Option<User>| {
                let mut user = user.ok_or(Missing)?;
                user.counter += 1;
                user.status = format!("{round}/{number}");
                Ok::<_, Missing>(user)
            });
            updating.await?;
            times.note(&times.answered, number, Instant::now());
            Ok::<_, UpdateError<Missing>>(())
        });
        due += EVERY;
    }
    while let Some(done) = running.join_next().await {
        done?.context("an update")?;
    }
    let deadline = Instant::now() + PATIENCE;
    let all = times.due.len() as u64;
    while times.count.load(Ordering::Relaxed) < all {
        let handled = times.count.load(Ordering::Relaxed);
        ensure!(
            Instant::now() < deadline,
            "{handled} of {all} events were handled"
        );
        sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

#[derive(Debug, thiserror::Error)]
#[error("the document is not there")]
struct Missing;
