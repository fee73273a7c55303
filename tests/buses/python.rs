//! `examples/consumers/consumer.py` on real brokers.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bson::{Document, doc};
use nodestorage::Storage;
use tokio::process::Command;

use crate::broker::{Broker, connect};
use crate::jetstream::JetStream;
use crate::ledger::{Sighting, compare};
use crate::redis_streams::RedisStreams;
use crate::run::read_log;

/// How long a run of the consumer may take, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A Python with the packages that the consumer needs.
fn python() -> PathBuf {
    if let Some(python) = std::env::var_os("NODESTORAGE_PYTHON").filter(|it| !it.is_empty()) {
        return python.into();
    }
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join(".servers/bin/python-clients");
    assert!(
        installed.exists(),
        "no Python with redis and nats-py for the tests: run scripts/install python-clients, or set \
         NODESTORAGE_PYTHON"
    );
    installed
}

/// Runs the consumer until it has handled so many events; what it printed.
async fn consume(broker: &dyn Broker, count: usize) -> Vec<Sighting> {
    let address = broker.address();
    let mut parts = address.split(' ').skip(1);
    let (url, prefix) = (parts.next().unwrap(), parts.next().unwrap());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/consumers/consumer.py");
    let run = Command::new(python())
        .arg(script)
        .args([url, "--prefix", prefix, "--count", &count.to_string()])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PATIENCE, run).await;
    let output = output.expect("it handles them in time").unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{errors}");
    let printed = String::from_utf8(output.stdout).unwrap();
    let line = |line: &str| {
        // The type comes first, for people.
        let (event_type, rest) = line.split_once(' ').unwrap();
        assert!(event_type.starts_with("Orders"), "{line}");
        Sighting::from_line(rest)
    };
    printed.lines().map(line).collect()
}

fn increment(document: Option<Document>) -> Document {
    let n = document.map_or(0, |document| document.get_i32("n").unwrap());
    doc! { "n": n + 1 }
}

/// Updates of documents with ids that need care on the way; every fifth is deleted in between.
async fn update(storage: &Storage, rounds: usize) {
    for round in 0..rounds {
        for n in 0..20 {
            let id = format!("주문 {n}/é.*>\u{1f600} \"quoted\"");
            let change = move |document: Option<Document>| {
                let stays = n % 5 != 0 || round % 3 != 2;
                Ok::<_, Infallible>(stays.then(|| increment(document)))
            };
            storage.update("orders", id, change).await.unwrap();
        }
    }
    storage.flush().await.unwrap();
}

async fn the_consumer_handles_what_the_log_has(broker: &dyn Broker) {
    let storage = Storage::builder()
        .url("embedded::memory:")
        .shared_bus(connect(&broker.address()).await)
        .open()
        .await
        .unwrap();
    update(&storage, 5).await;
    broker.repeat().await;
    update(&storage, 5).await;
    let first = read_log(&storage).await.len();
    let mut seen = consume(broker, first).await;
    // Started again, it goes on where it was.
    update(&storage, 3).await;
    let log = read_log(&storage).await;
    seen.extend(consume(broker, log.len() - first).await);
    let verdict = compare(&log, &seen);
    assert!(verdict.is_good(), "{verdict}");
    assert_eq!(verdict.duplicates, 0, "{verdict}");
    storage.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_in_python_handles_everything_from_redis_once() {
    the_consumer_handles_what_the_log_has(&RedisStreams::start()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_in_python_handles_everything_from_nats_once() {
    the_consumer_handles_what_the_log_has(&JetStream::start()).await;
}
