//! Processes that end without warning. The children are this test binary, told by the environment what
//! to be.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use futures_util::StreamExt;

use super::*;
use crate::storage::backend::{TailFrom, TailItem};

const ROLE: &str = "NODESTORAGE_TEST_CHILD";
const STORE: &str = "NODESTORAGE_TEST_STORE";

fn child(role: &str, path: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "storage::embedded::tests::crashing::be_the_child",
            "--nocapture",
        ])
        .env(ROLE, role)
        .env(STORE, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Does nothing unless it was started by one of the tests below.
#[test]
fn be_the_child() {
    let (Ok(role), Ok(path)) = (std::env::var(ROLE), std::env::var(STORE)) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    match role.as_str() {
        "open" => match EmbeddedBackend::open(&path, EmbeddedOptions::default()) {
            Ok(_) => println!("opened"),
            Err(error) => println!("refused {:?}", error.kind()),
        },
        "write" => runtime.block_on(write_forever(Path::new(&path))),
        other => panic!("unknown role {other}"),
    }
}

/// Pairs of documents that are always written together, several writers at once; prints each version
/// once it is committed.
async fn write_forever(path: &Path) {
    let backend = Arc::new(opened_file(path).await);
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..6 {
        let backend = Arc::clone(&backend);
        tasks.spawn(async move {
            let (left, right) = (format!("left{writer}"), format!("right{writer}"));
            let mut next = version(&backend, &left).await.unwrap_or(0) as u64 + 1;
            loop {
                let units = [step(&left, next), step(&right, next)];
                commit(&backend, &units).await.unwrap();
                println!("done {writer} {next}");
                next += 1;
            }
        });
    }
    tasks.join_all().await;
}

#[tokio::test]
async fn a_second_process_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    let backend = opened_file(&path).await;
    let said = |child: Child| {
        let output = child.wait_with_output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(said(child("open", &path)).contains("refused InUse"));
    drop(backend);
    assert!(said(child("open", &path)).contains("opened"));
}

/// The writer is killed at any moment; what it had reported is there, documents and log agree, and the
/// pairs are whole.
#[tokio::test(flavor = "multi_thread")]
async fn killed_while_writing_the_store_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    let mut done = [0_u64; 6];
    for round in 0..8 {
        let mut child = child("write", &path);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut left = 20 + 37 * round;
        for line in lines.map_while(Result::ok) {
            let Some(words) = line.split_once("done ") else {
                continue;
            };
            // The rest of a line that the kill cut short is no report.
            let mut words = words.1.split(' ').map(str::parse::<u64>);
            if let (Some(Ok(writer)), Some(Ok(version))) = (words.next(), words.next())
                && left > 0
            {
                done[writer as usize] = version;
                left -= 1;
                if left == 0 {
                    child.kill().unwrap();
                }
            }
        }
        child.wait().unwrap();
        assert_eq!(left, 0, "the child ended by itself");
        check(&path, &done).await;
    }
}

async fn check(path: &Path, done: &[u64]) {
    let backend = EmbeddedBackend::open(path, EmbeddedOptions::default()).unwrap();
    let mut entries = 0;
    for (writer, done) in done.iter().enumerate() {
        let left = version(&backend, &format!("left{writer}")).await;
        assert_eq!(left, version(&backend, &format!("right{writer}")).await);
        let newest = left.unwrap_or(0) as u64;
        assert!(newest >= *done, "{newest} after {done} was reported");
        for side in ["left", "right"] {
            let id = format!("{side}{writer}");
            assert_eq!(log_of(&backend, &id).await, Vec::from_iter(1..=newest));
            entries += newest;
        }
    }
    let mut tail = backend.tail(TailFrom::Beginning);
    let mut followed = 0;
    while let Some(Ok(TailItem::Entry { .. })) = tail.next().await {
        followed += 1;
    }
    assert_eq!(followed, entries);
    drop(tail);
    backend.close().await;
    // What was recovered is clean.
    EmbeddedBackend::open(path, EmbeddedOptions::default()).unwrap();
}
