//! kill -9 of processes that fold the log into views, while writers go on; afterwards the views are a fold of the log.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures_util::StreamExt;
use nodestorage::error::BoxError;
use nodestorage::projection::{Projection, ProjectionHandle, ProjectionOptions};
use nodestorage::storage::backend::{TailFrom, TailItem};
use nodestorage::{DocumentId, Event, Query, Storage};
use serde::{Deserialize, Serialize};
use tokio::task::block_in_place;
use uuid::Uuid;

use crate::chance::{below, eventually, moment, rounds, server, with_database};
use crate::load::{increment, open};

const DOCUMENTS: u64 = 40;
const CHILD_URL: &str = "NODESTORAGE_TEST_CHILD_URL";
const CHILD_WRITES: &str = "NODESTORAGE_TEST_CHILD_WRITES";
const WITHIN: Duration = Duration::from_secs(120);

/// What the events of a document, or of all, come to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Fold {
    events: u64,
    /// Depends on the order within a document, and on nothing that is folded twice or not at all.
    digest: BTreeMap<String, u64>,
}

impl Fold {
    fn add(&mut self, id: &DocumentId, version: u64) {
        self.events += 1;
        let digest = self.digest.entry(id.to_string()).or_default();
        *digest = digest.wrapping_mul(31).wrapping_add(version) % (1 << 40);
    }
}

/// A view of each document, and one of all of them.
struct Folding;

impl Projection for Folding {
    type View = Fold;

    fn name(&self) -> &str {
        "folding"
    }

    fn keys(&self, event: &Event) -> Vec<DocumentId> {
        vec![event.aggregate_id().clone(), "all".into()]
    }

    fn apply(
        &self,
        _: &DocumentId,
        view: Option<Fold>,
        event: &Event,
    ) -> Result<Option<Fold>, BoxError> {
        let mut view = view.unwrap_or_default();
        view.add(event.aggregate_id(), event.version().get());
        Ok(Some(view))
    }
}

fn project(storage: &Storage) -> ProjectionHandle<Folding> {
    let options = ProjectionOptions::new().with_lease_ttl(Duration::from_secs(1));
    storage.project(Folding, options).unwrap()
}

/// A process that folds, and writes as well if it is told to. Dropping it kills it.
struct Folder(Child);

impl Folder {
    fn start(url: &str, writes: bool) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "killed_projections::folds_until_it_is_killed"])
            .arg("--ignored")
            .env(CHILD_URL, url)
            .env(CHILD_WRITES, if writes { "yes" } else { "" })
            .stdout(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }

    fn is_running(&mut self) {
        let ended = self.0.try_wait().unwrap();
        assert!(ended.is_none(), "a process ended with {ended:?}");
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a process of the tests here, which kill it"]
async fn folds_until_it_is_killed() {
    let url = std::env::var(CHILD_URL).expect("run by the tests of killed_projections");
    let storage = open(&url).await;
    let folding = project(&storage);
    let writes = !std::env::var(CHILD_WRITES).unwrap().is_empty();
    let _work = writes.then(|| write(&storage));
    let parent = std::os::unix::process::parent_id();
    let mut round = 0;
    // Until it is killed, or nobody is left to do it.
    while std::os::unix::process::parent_id() == parent {
        tokio::time::sleep(Duration::from_millis(100)).await;
        round += 1;
        if round % 7 == 0 {
            // Not for itself: only so that a rebuild is among what is killed.
            let folding = folding.clone();
            tokio::spawn(async move {
                let _ = folding.rebuild().await;
            });
        }
    }
}

/// Tasks that increment random documents.
fn write(storage: &Storage) -> tokio::task::JoinSet<()> {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let storage = storage.clone();
        tasks.spawn(async move {
            loop {
                let id = format!("doc-{}", below(DOCUMENTS));
                increment(&storage, &id, Uuid::new_v4()).await.unwrap();
            }
        });
    }
    tasks
}

/// What the log comes to.
async fn fold(storage: &Storage) -> BTreeMap<DocumentId, Fold> {
    let mut views: BTreeMap<DocumentId, Fold> = BTreeMap::new();
    let mut tail = storage.backend().tail(TailFrom::Beginning);
    while let Some(item) = tail.next().await {
        let TailItem::Entry { entry, .. } = item.unwrap() else {
            break;
        };
        for _ in &entry.events {
            let id = entry.key.id();
            for key in [id.clone(), "all".into()] {
                let view = views.entry(key).or_default();
                view.add(id, entry.version.get());
            }
        }
    }
    views
}

/// Lets the projection catch up, and compares.
async fn compare(url: &str) {
    let storage = open(url).await;
    let folding = project(&storage);
    folding.caught_up(WITHIN).await.unwrap();
    let expected = fold(&storage).await;
    assert!(expected[&DocumentId::from("all")].events > 0);
    let all = Query::new().allow_scan();
    let views = folding.views().query(&all).await.unwrap();
    let found: BTreeMap<_, _> = views
        .into_iter()
        .map(|view| (view.id().clone(), view.into_inner()))
        .collect();
    assert_eq!(found.len(), expected.len());
    for (id, view) in &expected {
        assert_eq!(found[id].events, view.events, "events of {id}");
        assert!(found[id] == *view, "order of {id}");
    }
    assert!(folding.dead_letters(None, 1).await.unwrap().is_empty());
    folding.shutdown().await;
    storage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_projections_fold_every_event_once_in_mongodb() {
    let mongod = block_in_place(server);
    let url = with_database(mongod.url(), "folding", "");
    let storage = open(&url).await;
    let writing = write(&storage);
    block_in_place(|| {
        let start = || Folder::start(&url, false);
        let mut folders = [start(), start()];
        for _ in 0..rounds(12) {
            std::thread::sleep(moment(1_500));
            folders.iter_mut().for_each(Folder::is_running);
            // Whichever of them holds the lease.
            let victim = usize::try_from(below(2)).unwrap();
            folders[victim] = start();
        }
    });
    drop(writing);
    storage.close().await;
    compare(&url).await;
}

#[test]
fn killed_projections_fold_every_event_once_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("store.redb");
    let url = format!("embedded:{}", file.display());
    for _ in 0..rounds(12) {
        let mut process = Folder::start(&url, true);
        eventually("the store is there", WITHIN, || {
            process.is_running();
            file.exists()
        });
        std::thread::sleep(Duration::from_millis(150) + moment(800));
        drop(process);
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(compare(&url));
}
