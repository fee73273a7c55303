//! The same workload within the test, for faults whose time matters.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nodestorage::{
    Error, ErrorKind, Metadata, RetryPolicy, Storage, UpdateContext, UpdateOptions, Version,
};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::chance::eventually_async;
use crate::check::COLLECTION;

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Counter {
    pub(crate) n: i64,
}

/// Patience with the server, and short pauses, so that it is seen how soon things go on.
pub(crate) fn patient() -> RetryPolicy {
    RetryPolicy::default()
        .with_attempts(1_000)
        .with_delays(Duration::from_millis(20), Duration::from_millis(500))
        .with_conflict_attempts(10_000)
        .with_deadline(Duration::from_secs(15))
}

pub(crate) async fn open(url: &str) -> Storage {
    let storage = Storage::builder().url(url).retry(patient()).open().await;
    storage.unwrap()
}

/// Adds 1 to a document's `n`, under a name by which the checker notices an update made twice.
pub(crate) async fn increment(storage: &Storage, id: &str, name: Uuid) -> Result<Version, Error> {
    let metadata = Metadata::new().with_correlation(name.simple().to_string());
    let options = UpdateOptions::new().with_metadata(metadata);
    let increment = |counter: Option<Counter>, _: &mut UpdateContext| {
        let mut counter = counter.unwrap_or_default();
        counter.n += 1;
        counter
    };
    let change = storage.update_with(COLLECTION, id, options, increment);
    Ok(change.await?.version())
}

/// Tasks that increment random documents until they are stopped.
pub(crate) struct Load {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

struct Shared {
    storage: Storage,
    documents: u64,
    stopped: AtomicBool,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    acknowledged: Vec<Acknowledged>,
    /// What failed, by kind.
    failures: BTreeMap<String, u64>,
}

struct Acknowledged {
    began: Instant,
    ended: Instant,
    id: String,
    version: Version,
}

impl Load {
    pub(crate) fn start(storage: Storage, tasks: usize, documents: u64) -> Self {
        let shared = Arc::new(Shared {
            storage,
            documents,
            stopped: AtomicBool::new(false),
            seen: Mutex::default(),
        });
        let tasks = (0..tasks).map(|_| {
            let shared = Arc::clone(&shared);
            async move { shared.task().await }
        });
        Self {
            tasks: tasks.collect(),
            shared,
        }
    }

    /// Waits until that many more updates, all begun after the call, are acknowledged.
    pub(crate) async fn goes_on(&self, updates: usize) {
        let since = Instant::now();
        eventually_async("the load goes on", Duration::from_secs(120), async || {
            self.finished(since, |_| true) >= updates
        })
        .await;
    }

    /// How long after `since` the first update that had begun after it was acknowledged.
    pub(crate) async fn first_success(&self, since: Instant) -> Duration {
        eventually_async("a first success", Duration::from_secs(120), async || {
            self.finished(since, |_| true) > 0
        })
        .await;
        let seen = self.shared.seen.lock().unwrap();
        let after = seen.acknowledged.iter().filter(|it| it.began >= since);
        after.map(|it| it.ended - since).min().unwrap()
    }

    fn finished(&self, since: Instant, also: impl Fn(&Acknowledged) -> bool) -> usize {
        assert!(!self.tasks.is_empty());
        let seen = self.shared.seen.lock().unwrap();
        // The newest stand last; the ones before `since` are many.
        let newest = seen.acknowledged.iter().rev();
        newest
            .take_while(|it| it.ended >= since)
            .filter(|it| it.began >= since && also(it))
            .count()
    }

    /// Ends the tasks, lets updates under way come to their end, and writes what was acknowledged.
    /// Returns what failed on the way.
    pub(crate) async fn stop(mut self, acks: &Path) -> String {
        self.shared.stopped.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        self.shared.storage.close().await;
        let seen = self.shared.seen.lock().unwrap();
        let mut lines = String::new();
        for Acknowledged { id, version, .. } in &seen.acknowledged {
            writeln!(lines, "ack {id} {version}").unwrap();
        }
        fs::write(acks, lines).unwrap();
        format!("{:?}", seen.failures)
    }
}

impl Shared {
    async fn task(&self) {
        while !self.stopped.load(Ordering::Relaxed) {
            let name = Uuid::new_v4();
            let id = format!("doc-{}", name.as_u64_pair().1 % self.documents);
            let began = Instant::now();
            // An update that wrote nothing is made again, under its old name.
            loop {
                match increment(&self.storage, &id, name).await {
                    Ok(version) => {
                        let acknowledged = Acknowledged {
                            began,
                            ended: Instant::now(),
                            id,
                            version,
                        };
                        self.seen.lock().unwrap().acknowledged.push(acknowledged);
                        break;
                    }
                    Err(error) => {
                        let kind = format!("{:?}", error.kind());
                        let kind = kind.split(' ').next().unwrap().to_owned();
                        *self.seen.lock().unwrap().failures.entry(kind).or_default() += 1;
                        if error.kind() == ErrorKind::CommitUnknown {
                            break;
                        }
                        assert!(error.is_retryable(), "{id}: {error:?}");
                        if self.stopped.load(Ordering::Relaxed) {
                            break;
                        }
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                }
            }
        }
    }
}
