//! Writers, relays, consumers and the broker are killed and started again until all updates are made.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use nodestorage::storage::backend::{TailFrom, TailItem};
use nodestorage::{ErrorKind, Storage};
use tokio::runtime::Handle;
use tokio::task::block_in_place;

use crate::broker::Broker;
use crate::chance::{below, eventually, moment, server, with_database};
use crate::check::check;
use crate::handled::Follower;
use crate::jetstream::JetStream;
use crate::ledger::{Sighting, compare};
use crate::process::{Place, Process, Role, relay_options};
use crate::redis_streams::RedisStreams;
use crate::writer::Writer;

const DOCUMENTS: u64 = 300;

/// How long anything may stand still: a broker's restart, a lease and the claims of a dead member are
/// seconds, a busy machine gets the rest.
const PATIENCE: Duration = Duration::from_secs(120);

fn updates() -> usize {
    let wanted = std::env::var("NODESTORAGE_BUSES_UPDATES").ok();
    wanted.filter(|it| !it.is_empty()).map_or(4_000, |it| {
        it.parse()
            .expect("NODESTORAGE_BUSES_UPDATES is a number of updates")
    })
}

/// Everything that runs.
struct Scene<'a> {
    broker: &'a dyn Broker,
    place: Place,
    writers: [Writer; 2],
    relays: [Process; 2],
    consumers: [Process; 3],
    handled: Follower,
}

/// One of so many.
fn any(count: usize) -> usize {
    usize::try_from(below(count as u64)).unwrap()
}

impl<'a> Scene<'a> {
    fn start(broker: &'a dyn Broker, store: &str, folder: &Path) -> Self {
        let place = Place {
            store: store.to_owned(),
            broker: broker.address(),
            handled: folder.join("handled"),
        };
        let writer = |name| Writer::start(store, DOCUMENTS, updates().div_ceil(2), folder, name);
        let process = |role| Process::start(role, &place);
        Self {
            broker,
            writers: [writer("a"), writer("b")],
            relays: [process(Role::Relay), process(Role::Relay)],
            consumers: [(); 3].map(|()| process(Role::Consumer)),
            handled: Follower::open(&place.handled),
            place,
        }
    }

    fn made(&self) -> usize {
        self.writers.iter().map(Writer::made).sum()
    }

    fn all_are_running(&mut self) {
        self.relays.iter_mut().for_each(Process::is_running);
        self.consumers.iter_mut().for_each(Process::is_running);
    }

    fn await_progress(&mut self, made: usize, handled: usize) {
        let what = format!("{made} updates are made and {handled} events handled");
        eventually(&what, PATIENCE, || {
            self.all_are_running();
            self.made() >= made && self.handled.distinct() >= handled
        });
    }

    /// Has something go wrong.
    fn strike(&mut self, round: usize) {
        match round % 7 {
            0 => self.kill_a_writer(),
            1 | 4 => self.kill_a_relay(),
            2 | 5 => self.kill_a_consumer(),
            6 => self.pause_something(),
            _ => {
                self.broker.kill();
                std::thread::sleep(moment(300));
                // Now and then somebody begins while there is no broker.
                match below(3) {
                    0 => self.kill_a_relay(),
                    1 => self.kill_a_consumer(),
                    _ => {}
                }
                std::thread::sleep(moment(300));
                self.broker.restart();
            }
        }
    }

    fn kill_a_writer(&mut self) {
        let first = any(self.writers.len());
        // If that one has made all its updates, the other one.
        if !self.writers[first].replace() {
            self.writers[1 - first].replace();
        }
    }

    fn kill_a_relay(&mut self) {
        // Whether or not it holds the lease.
        let victim = any(self.relays.len());
        self.relays[victim] = Process::start(Role::Relay, &self.place);
    }

    /// Longer or shorter than leases and claims last: what wakes up then finds that somebody else has its work.
    fn pause_something(&mut self) {
        let processes = self.relays.iter().chain(&self.consumers);
        let mut victims = processes.skip(any(self.relays.len() + self.consumers.len()));
        let victim = victims.next().expect("below their number");
        victim.signal("STOP");
        std::thread::sleep(moment(4_000));
        victim.signal("CONT");
    }

    fn kill_a_consumer(&mut self) {
        let victim = any(self.consumers.len());
        self.consumers[victim] = Process::start(Role::Consumer, &self.place);
    }
}

/// Every event of the log, by reading it from its beginning.
pub(crate) async fn read_log(storage: &Storage) -> Vec<Sighting> {
    let mut log = Vec::new();
    let mut tail = storage.backend().tail(TailFrom::Beginning);
    while let TailItem::Entry { entry, .. } = tail.next().await.expect("no end").unwrap() {
        log.extend(entry.to_events().unwrap().iter().map(|event| Sighting {
            document: event.document().to_string(),
            version: event.version().get(),
            index: event.index().into(),
            id: event.id().to_string(),
        }));
    }
    log
}

/// Waits until a relay has published everything.
async fn flush(store: &str) -> Storage {
    let storage = Storage::builder().url(store);
    let storage = storage.relay_options(relay_options()).open().await.unwrap();
    let flushed = async {
        // Between a dead relay and its successor nobody may be there.
        while let Err(error) = storage.flush().await {
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let flushed = tokio::time::timeout(PATIENCE, flushed).await;
    flushed.expect("everything is published in time");
    storage
}

fn nothing_is_lost(broker: &dyn Broker) {
    let mongod = server();
    let store = with_database(mongod.url(), "buses", "");
    let folder = tempfile::tempdir().unwrap();
    let updates = updates();
    let mut scene = Scene::start(broker, &store, folder.path());
    scene.await_progress(1, 1);
    let rounds = (updates / 400).clamp(12, 120);
    for round in 0..rounds {
        // Relays and consumers may be somewhat behind the writers, but not stand still.
        let due = updates * round / rounds;
        scene.await_progress(due, due / 2);
        std::thread::sleep(moment(300));
        scene.strike(round);
    }
    eventually("the writers finish", PATIENCE, || {
        scene.all_are_running();
        scene.writers.iter_mut().all(Writer::has_finished)
    });
    let runtime = Handle::current();
    let log = runtime.block_on(async {
        let storage = flush(&store).await;
        let log = read_log(&storage).await;
        storage.close().await;
        log
    });
    // If some never come, the comparison says how many.
    let deadline = Instant::now() + PATIENCE;
    while scene.handled.distinct() < log.len() && Instant::now() < deadline {
        scene.all_are_running();
        std::thread::sleep(Duration::from_millis(10));
    }
    let Scene {
        writers,
        relays,
        consumers,
        handled,
        ..
    } = scene;
    drop((relays, consumers));
    let name = broker.name();
    let published = compare(&log, &runtime.block_on(broker.read_back()));
    let handled = compare(&log, &handled.into_seen());
    // scripts/soak looks for these lines.
    eprintln!("buses: {name}: {published}");
    eprintln!("buses: {name}, handled by a group: {handled}");
    assert!(published.is_good(), "{published:?}");
    assert!(handled.is_good(), "{handled:?}");
    assert!(log.len() >= updates, "{} events", log.len());
    let files = writers.iter().flat_map(Writer::files).cloned();
    check(name, &store, &files.collect::<Vec<PathBuf>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_processes_and_a_killed_redis_lose_no_event() {
    let broker = RedisStreams::start();
    block_in_place(|| nothing_is_lost(&broker));
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_processes_and_a_killed_nats_lose_no_event() {
    let broker = JetStream::start();
    block_in_place(|| nothing_is_lost(&broker));
}
