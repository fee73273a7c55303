//! kill -9 of writers, relays and the primary, under load; every event is published all the same.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nodestorage::Storage;
use nodestorage::bus::EventBus;
use nodestorage::relay::RelayOptions;
use tokio::task::block_in_place;
use uuid::Uuid;

use crate::chance::{below, eventually, moment, rounds, with_database};
use crate::check::{Acks, check_thoroughly};
use crate::failover::turn;
use crate::file_bus::{FileBus, compare};
use crate::load::{increment, patient};
use crate::workload::Workload;

const DOCUMENTS: u64 = 40;
const LONGEST: Duration = Duration::from_secs(600);
const CHILD_URL: &str = "NODESTORAGE_TEST_CHILD_URL";
const CHILD_FILE: &str = "NODESTORAGE_TEST_CHILD_FILE";
const CHILD_WRITES: &str = "NODESTORAGE_TEST_CHILD_WRITES";

fn options() -> RelayOptions {
    RelayOptions::new().with_lease_ttl(Duration::from_secs(1))
}

async fn open(url: &str, file: &Path) -> Storage {
    let bus: Arc<dyn EventBus> = Arc::new(FileBus::open(file));
    Storage::builder()
        .url(url)
        .retry(patient())
        .shared_bus(bus)
        .relay_options(options())
        .open()
        .await
        .unwrap()
}

/// A process with a relay, which writes as well if it is told to. Dropping it kills it.
struct Relay(Child);

impl Relay {
    fn start(url: &str, file: &Path, writes: bool) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "killed_relays::publishes_until_it_is_killed"])
            .arg("--ignored")
            .env(CHILD_URL, url)
            .env(CHILD_FILE, file)
            .env(CHILD_WRITES, if writes { "yes" } else { "" })
            .stdout(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }

    fn is_running(&mut self) {
        let ended = self.0.try_wait().unwrap();
        assert!(ended.is_none(), "a relay ended with {ended:?}");
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a process of the tests here, which kill it"]
async fn publishes_until_it_is_killed() {
    let url = std::env::var(CHILD_URL).expect("run by the tests of killed_relays");
    let file = PathBuf::from(std::env::var(CHILD_FILE).unwrap());
    let storage = open(&url, &file).await;
    let writes = !std::env::var(CHILD_WRITES).unwrap().is_empty();
    let parent = std::os::unix::process::parent_id();
    let work = (0..if writes { 8 } else { 0 }).map(|_| {
        let storage = storage.clone();
        tokio::spawn(async move {
            loop {
                let name = Uuid::new_v4();
                let id = format!("doc-{}", below(DOCUMENTS));
                increment(&storage, &id, name).await.unwrap();
            }
        })
    });
    let _work: Vec<_> = work.collect();
    // Until it is killed, or nobody is left to do it.
    while std::os::unix::process::parent_id() == parent {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn size(file: &Path) -> u64 {
    std::fs::metadata(file).map_or(0, |file| file.len())
}

fn await_publishing(file: &Path, relays: &mut [Relay]) {
    let before = size(file);
    eventually("events are published", Duration::from_secs(120), || {
        relays.iter_mut().for_each(Relay::is_running);
        size(file) > before
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_writers_relays_and_primaries_lose_no_event() {
    let what = "killed_writers_relays_and_primaries_lose_no_event";
    let (set, _turn) = turn().await;
    let url = with_database(&set.url(), "relays", "");
    let mut acks = Acks::new();
    let file = acks.folder().join("events");
    block_in_place(|| {
        let start = || Relay::start(&url, &file, false);
        let mut relays = [start(), start()];
        let mut writer = Workload::start(&url, DOCUMENTS, 8, LONGEST, &acks.next_file());
        for round in 0..rounds(9) {
            await_publishing(&file, &mut relays);
            std::thread::sleep(moment(500));
            match round % 3 {
                0 => {
                    // Whichever of them holds the lease.
                    let victim = usize::try_from(below(2)).unwrap();
                    relays[victim] = start();
                }
                1 => {
                    writer.kill();
                    writer = Workload::start(&url, DOCUMENTS, 8, LONGEST, &acks.next_file());
                }
                _ => {
                    let primary = set.await_primary(None);
                    set.members()[primary].kill();
                    await_publishing(&file, &mut relays);
                    set.restart(primary);
                    set.await_healthy();
                }
            }
            writer.await_acknowledgement(writer.printed());
        }
        writer.kill();
        let [victim, survivor] = relays;
        drop(victim);
        // It has published everything once it has published what comes last.
        let storage = tokio::runtime::Handle::current().block_on(async {
            let storage = Storage::builder().url(&url).retry(patient());
            let storage = storage.relay_options(options()).open().await.unwrap();
            increment(&storage, "doc-0", Uuid::new_v4()).await.unwrap();
            let flushed = tokio::time::timeout(Duration::from_secs(120), storage.flush());
            flushed.await.expect("in time").unwrap();
            storage
        });
        drop(survivor);
        tokio::runtime::Handle::current().block_on(async {
            compare(what, &storage, DOCUMENTS, &file).await;
            storage.close().await;
        });
        check_thoroughly(what, &url, acks.files());
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_with_its_relay_loses_no_event_of_a_file() {
    let what = "a_killed_process_with_its_relay_loses_no_event_of_a_file";
    let folder = tempfile::tempdir().unwrap();
    let url = format!("embedded:{}", folder.path().join("store.redb").display());
    let file = folder.path().join("events");
    block_in_place(|| {
        for _ in 0..rounds(15) {
            let mut relays = [Relay::start(&url, &file, true)];
            await_publishing(&file, &mut relays);
            std::thread::sleep(moment(400));
        }
    });
    let storage = open(&url, &file).await;
    let delivered = increment(&storage, "doc-0", Uuid::new_v4()).await;
    delivered.unwrap();
    storage.flush().await.unwrap();
    compare(what, &storage, DOCUMENTS, &file).await;
    storage.close().await;
}
