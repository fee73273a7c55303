//! Two processes on one document.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::process::Command;

use nodestorage::testing::check_log;
use nodestorage::{DocumentKey, Storage};
use serde::{Deserialize, Serialize};
use support::mongod::Mongod;

const TASKS: u64 = 64;
const TIMES: u64 = 50;
const URL: &str = "NODESTORAGE_TEST_CHILD_URL";

#[derive(Default, Serialize, Deserialize)]
struct Counter {
    value: u64,
}

/// 64 tasks in each of two processes increment one document: no update is lost, none counts twice, and
/// the log has every version.
#[tokio::test(flavor = "multi_thread")]
async fn two_processes_increment_one_document() {
    let mongod = Mongod::shared();
    let database = mongod.fresh_database();
    let url = mongod.url().replacen("/?", &format!("/{}?", &*database), 1);
    let program = std::env::current_exe().unwrap();
    let children: Vec<_> = (0..2)
        .map(|_| {
            Command::new(&program)
                .args(["--exact", "increments", "--ignored"])
                .env(URL, &url)
                .spawn()
                .unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let storage = Storage::builder().url(&url).open().await.unwrap();
    let total = 2 * TASKS * TIMES;
    let stored = storage.load::<Counter>("counters", "c").await.unwrap();
    assert_eq!((stored.value, stored.version().get()), (total, total));
    let key = DocumentKey::new("counters", "c");
    let log = check_log(storage.backend().as_ref(), &key).await;
    assert_eq!(log.entries.len() as u64, total);
    storage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the work of two_processes_increment_one_document, which runs it in processes of its own"]
async fn increments() {
    let url = std::env::var(URL).expect("run by two_processes_increment_one_document");
    let storage = Storage::builder().url(url).open().await.unwrap();
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let counters = storage.collection::<Counter>("counters");
            tokio::spawn(async move {
                for _ in 0..TIMES {
                    let increment = |counter: Option<Counter>| {
                        let mut counter = counter.unwrap_or_default();
                        counter.value += 1;
                        counter
                    };
                    counters.update("c", increment).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    storage.close().await;
}
