//! `nodestorage workload`: updates whose acknowledgements can be checked from outside.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nodestorage::{
    DocumentId, Error, ErrorKind, Metadata, RetryPolicy, Storage, UpdateOptions, Version,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::Failure;
use crate::acks::Line;
use crate::args::Workload;
use crate::output;

/// Between two calls for one update; the calls pause by themselves between their own attempts.
const PAUSE: Duration = Duration::from_millis(10);

#[derive(Debug, Default, Serialize, Deserialize)]
struct Counter {
    #[serde(default)]
    n: i64,
}

/// What the tasks share.
struct Run {
    storage: Storage,
    collection: String,
    documents: u64,
    patience: Duration,
    /// Updates that nobody has begun yet.
    left: AtomicU64,
    stopped: AtomicBool,
}

#[derive(Default)]
struct Done {
    /// Microseconds from the first call to the acknowledgement.
    times: Vec<u32>,
    unknown: u64,
    again: u64,
}

pub(crate) async fn run(arguments: Workload, json: bool) -> Result<ExitCode, Failure> {
    let mut builder = arguments.store.builder().retry(policy());
    if let Some(url) = &arguments.bus {
        builder = builder.bus_url(url);
    }
    let storage = builder.open().await?;
    let started = Instant::now();
    let result = update(&storage, &arguments).await;
    let seconds = started.elapsed().as_secs_f64();
    storage.close().await;
    summarize(result?, seconds, json);
    Ok(ExitCode::SUCCESS)
}

/// Short pauses and many of them, so that the workload goes on as soon as it can.
fn policy() -> RetryPolicy {
    RetryPolicy::default()
        .with_attempts(1_000)
        .with_delays(Duration::from_millis(20), Duration::from_millis(500))
        .with_conflict_attempts(10_000)
}

async fn update(storage: &Storage, arguments: &Workload) -> Result<Done, Failure> {
    let run = Arc::new(Run {
        storage: storage.clone(),
        collection: arguments.collection.clone(),
        documents: arguments.documents,
        patience: Duration::from_secs(arguments.patience),
        left: AtomicU64::new(arguments.updates.unwrap_or(u64::MAX)),
        stopped: AtomicBool::new(false),
    });
    let mut tasks = JoinSet::new();
    for _ in 0..arguments.tasks {
        let run = Arc::clone(&run);
        tasks.spawn(async move { run.task().await });
    }
    let seconds = arguments.seconds.map(Duration::from_secs);
    let end = async {
        match seconds {
            Some(seconds) => tokio::time::sleep(seconds).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(end);
    let mut done = Done::default();
    let mut failed = None;
    loop {
        let ended = tokio::select! {
            ended = tasks.join_next() => ended,
            () = &mut end, if !run.is_stopped() => { run.stop(); continue }
            _ = tokio::signal::ctrl_c(), if !run.is_stopped() => { run.stop(); continue }
        };
        let Some(ended) = ended else { break };
        match ended.unwrap_or_else(|e| Err(Failure::new(format!("a task ended unexpectedly: {e}"))))
        {
            Ok(one) => done.add(one),
            Err(failure) => {
                run.stop();
                failed.get_or_insert(failure);
            }
        }
    }
    match failed {
        None => Ok(done),
        Some(failure) => Err(failure.after(format_args!("{} updates before", done.times.len()))),
    }
}

impl Run {
    fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    fn begins_another(&self) -> bool {
        let take = |left: u64| left.checked_sub(1);
        !self.is_stopped()
            && self
                .left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
                .is_ok()
    }

    async fn task(&self) -> Result<Done, Failure> {
        let mut done = Done::default();
        while self.begins_another() {
            // Also the name of the update, by which a checker notices one that was made twice.
            let random = Uuid::new_v4();
            let id = format!("doc-{}", random.as_u64_pair().1 % self.documents);
            let began = Instant::now();
            loop {
                match self.increment(&id, random).await {
                    Ok(version) => {
                        output::line(&Line::Acknowledged { id: &id, version }.to_string())?;
                        let micros = began.elapsed().as_micros();
                        done.times.push(u32::try_from(micros).unwrap_or(u32::MAX));
                        break;
                    }
                    Err(error) if error.kind() == ErrorKind::CommitUnknown => {
                        output::line(&Line::Unknown { id: &id }.to_string())?;
                        done.unknown += 1;
                        break;
                    }
                    // It wrote nothing.
                    Err(error) if error.is_retryable() && began.elapsed() < self.patience => {
                        if self.is_stopped() {
                            break;
                        }
                        done.again += 1;
                        tokio::time::sleep(PAUSE).await;
                    }
                    Err(error) => return Err(Failure::from(error)),
                }
            }
        }
        Ok(done)
    }

    async fn increment(&self, id: &str, name: Uuid) -> Result<Version, Error> {
        let metadata = Metadata::new().with_correlation(name.simple().to_string());
        let options = UpdateOptions::new().with_metadata(metadata);
        let id = DocumentId::from(id);
        let increment = |counter: Option<Counter>, _: &mut _| {
            let mut counter = counter.unwrap_or_default();
            counter.n += 1;
            counter
        };
        let change = self
            .storage
            .update_with(&self.collection, id, options, increment)
            .await?;
        Ok(change.version())
    }
}

impl Done {
    fn add(&mut self, mut other: Self) {
        self.times.append(&mut other.times);
        self.unknown += other.unknown;
        self.again += other.again;
    }
}

fn summarize(done: Done, seconds: f64, json: bool) {
    let Done {
        mut times,
        unknown,
        again,
    } = done;
    times.sort_unstable();
    let percentile = |percent: usize| {
        let at = times.len() * percent / 100;
        let micros = times.get(at).or(times.last());
        f64::from(micros.copied().unwrap_or(0)) / 1_000.0
    };
    let (updates, p50, p99) = (times.len(), percentile(50), percentile(99));
    #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = updates as f64 / seconds;
    if json {
        let summary = json!({
            "updates": updates,
            "seconds": seconds,
            "updates_per_second": rate,
            "p50_ms": p50,
            "p99_ms": p99,
            "unknown": unknown,
            "tried_again": again,
        });
        eprintln!("{summary}");
    } else {
        eprintln!(
            "{updates} updates in {seconds:.1} s, {rate:.0} updates/s, p50 {p50:.1} ms, p99 {p99:.1} ms, \
             {unknown} unknown, {again} tried again"
        );
    }
}
