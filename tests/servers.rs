//! The servers of the tests keep what the other tests take for granted.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "also outside of the test functions"
)]

mod support;

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ::mongodb::Client;
use ::mongodb::error::ErrorKind;
use ::mongodb::options::{Acknowledgment, WriteConcern};
use bson::{Document, doc};
use support::mongod::{Mongod, MongodOptions, fresh_database_name};

/// Writes two documents in one transaction and takes the second thoughts of the caller.
async fn write_in_transaction(
    client: &Client,
    database: &str,
    commit: bool,
) -> ::mongodb::error::Result<()> {
    let documents = client
        .database(database)
        .collection::<Document>("documents");
    let mut session = client.start_session().await?;
    session.start_transaction().await?;
    for id in ["a", "b"] {
        documents
            .insert_one(doc! { "_id": id })
            .session(&mut session)
            .await?;
    }
    if commit {
        session.commit_transaction().await
    } else {
        session.abort_transaction().await
    }
}

async fn count(client: &Client, database: &str) -> u64 {
    let documents = client
        .database(database)
        .collection::<Document>("documents");
    documents.count_documents(doc! {}).await.unwrap()
}

fn poll_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "not within 30 seconds: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[tokio::test]
async fn shared_server_runs_transactions() {
    let mongod = Mongod::shared();
    let client = mongod.client().await;

    let committed = mongod.fresh_database();
    write_in_transaction(&client, &committed, true)
        .await
        .unwrap();
    assert_eq!(count(&client, &committed).await, 2);

    let aborted = mongod.fresh_database();
    write_in_transaction(&client, &aborted, false)
        .await
        .unwrap();
    assert_eq!(count(&client, &aborted).await, 0);
}

#[tokio::test]
async fn shared_server_has_change_streams() {
    let mongod = Mongod::shared();
    let client = mongod.client().await;
    let database = mongod.fresh_database();
    let documents = client
        .database(&database)
        .collection::<Document>("documents");
    let mut changes = documents.watch().await.unwrap();
    documents.insert_one(doc! { "_id": "a" }).await.unwrap();
    let change = async {
        loop {
            if let Some(change) = changes.next_if_any().await.unwrap() {
                break change;
            }
        }
    };
    let change = tokio::time::timeout(Duration::from_secs(30), change)
        .await
        .unwrap();
    assert_eq!(change.full_document, Some(doc! { "_id": "a" }));
}

#[test]
fn database_names_differ_and_are_valid() {
    let names: std::collections::HashSet<_> = (0..1_000).map(|_| fresh_database_name()).collect();
    assert_eq!(names.len(), 1_000);
    // The limit of the server is 63 bytes.
    assert!(names.iter().all(|name| name.len() < 64));
}

#[tokio::test]
async fn private_server_has_fail_points() {
    let mongod = Mongod::private(&MongodOptions::default());
    let client = mongod.client().await;
    let fail_point = doc! {
        "configureFailPoint": "failCommand",
        "mode": { "times": 1 },
        "data": { "failCommands": ["commitTransaction"], "errorCode": 20 },
    };
    client
        .database("admin")
        .run_command(fail_point)
        .await
        .unwrap();
    let error = write_in_transaction(&client, &fresh_database_name(), true)
        .await
        .unwrap_err();
    assert!(
        matches!(&*error.kind, ErrorKind::Command(it) if it.code == 20),
        "{error}"
    );
}

#[tokio::test]
async fn standalone_server_is_no_replica_set_and_has_no_transactions() {
    let mongod = Mongod::standalone();
    let client = mongod.client().await;
    let hello = client
        .database("admin")
        .run_command(doc! { "hello": 1 })
        .await
        .unwrap();
    assert!(!hello.contains_key("setName"));
    let error = write_in_transaction(&client, &fresh_database_name(), true)
        .await
        .unwrap_err();
    // "Transaction numbers are only allowed on a replica set member or mongos"
    assert!(
        matches!(&*error.kind, ErrorKind::Command(it) if it.code == 20),
        "{error}"
    );
}

#[tokio::test]
async fn killed_server_keeps_confirmed_writes_and_comes_back_at_its_address() {
    let mongod = Mongod::private(&MongodOptions::default());
    let client = mongod.client().await;
    let majority = WriteConcern::builder()
        .w(Acknowledgment::Majority)
        .journal(true)
        .build();
    let documents = client.database("test").collection::<Document>("documents");
    documents
        .insert_one(doc! { "_id": "a" })
        .write_concern(majority)
        .await
        .unwrap();

    let before = mongod.pid();
    mongod.kill();
    assert_eq!(mongod.pid(), None);
    assert!(TcpStream::connect(address(mongod.url())).is_err());

    mongod.restart();
    assert_ne!(mongod.pid(), before);
    assert_eq!(
        documents.find_one(doc! {}).await.unwrap(),
        Some(doc! { "_id": "a" })
    );
    // The same client goes on; it has to notice that the server is primary again.
    write_in_transaction(&client, "test2", true).await.unwrap();
}

#[tokio::test]
async fn stopped_server_ends_in_good_order() {
    let mongod = Mongod::private(&MongodOptions {
        replica_set: false,
        ..MongodOptions::default()
    });
    mongod.stop();
    assert!(TcpStream::connect(address(mongod.url())).is_err());
    if let Some(folder) = mongod.folder() {
        // mongod empties its lock file as the last step of an orderly end.
        assert_eq!(
            std::fs::metadata(folder.join("mongod.lock")).unwrap().len(),
            0
        );
    }
    mongod.restart();
    let client = mongod.client().await;
    client
        .database("admin")
        .run_command(doc! { "ping": 1 })
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paused_server_answers_after_it_is_resumed() {
    let mongod = Mongod::private(&MongodOptions {
        replica_set: false,
        ..MongodOptions::default()
    });
    let client = mongod.client().await;
    let ping = || async {
        client
            .database("admin")
            .run_command(doc! { "ping": 1 })
            .await
    };
    ping().await.unwrap();
    mongod.pause();
    assert!(
        tokio::time::timeout(Duration::from_millis(300), ping())
            .await
            .is_err()
    );
    mongod.resume();
    ping().await.unwrap();
}

#[test]
fn dropped_server_leaves_nothing_behind() {
    let mongod = Mongod::private(&MongodOptions {
        replica_set: false,
        ..MongodOptions::default()
    });
    let address = address(mongod.url());
    let folder = mongod.folder().map(Path::to_owned);
    drop(mongod);
    assert!(TcpStream::connect(address).is_err());
    assert!(folder.is_none_or(|folder| !folder.exists()));
}

/// A static is never dropped, and a killed process runs no code of ours at all.
#[test]
fn server_ends_with_a_process_that_is_killed() {
    server_ends_with_the_process(
        "server_ends_with_a_process_that_is_killed",
        |test_process| {
            test_process.kill().unwrap();
        },
    );
}

#[test]
fn server_ends_with_a_process_whose_test_panics() {
    server_ends_with_the_process(
        "server_ends_with_a_process_whose_test_panics",
        |test_process| {
            // The end of its input is what it waits for before it panics.
            drop(test_process.stdin.take());
        },
    );
}

/// Runs the named test of this binary again, in a process of its own that starts a server and prints
/// where it is; ends that process and expects the server and its folder to go.
fn server_ends_with_the_process(test: &str, end: impl FnOnce(&mut std::process::Child)) {
    const ROLE: &str = "NODESTORAGE_TEST_HOLDS_A_SERVER";
    if std::env::var_os(ROLE).is_some() {
        // The panic below unwinds past both: neither the value nor the static may leave anything.
        let private = Mongod::private(&MongodOptions {
            replica_set: false,
            ..MongodOptions::default()
        });
        for mongod in [&private, Mongod::standalone()] {
            let folder = mongod.folder().unwrap_or(Path::new("-"));
            println!("\nholding {} {}", address(mongod.url()), folder.display());
        }
        std::io::stdin()
            .lock()
            .read_line(&mut String::new())
            .unwrap();
        panic!("as the other side of the test expects");
    }

    let mut test_process = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(ROLE, "yes")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let output = BufReader::new(test_process.stdout.take().unwrap());
    let held: Vec<(String, String)> = output
        .lines()
        .map_while(Result::ok)
        .filter_map(|line| {
            let (address, folder) = line.strip_prefix("holding ")?.split_once(' ')?;
            Some((address.to_owned(), folder.to_owned()))
        })
        .take(2)
        .collect();
    assert_eq!(held.len(), 2, "the other process starts two servers");
    for (address, folder) in &held {
        assert!(TcpStream::connect(address).is_ok());
        assert!(folder == "-" || Path::new(folder).exists());
    }

    end(&mut test_process);
    let status = test_process.wait().unwrap();
    assert!(!status.success());
    for (address, folder) in &held {
        poll_until("the server is gone", || {
            TcpStream::connect(address).is_err()
        });
        poll_until("its folder is gone", || !Path::new(folder).exists());
    }
}

/// `127.0.0.1:27017` of `mongodb://127.0.0.1:27017/?replicaSet=rs0`.
fn address(url: &str) -> String {
    url.trim_start_matches("mongodb://")
        .split('/')
        .next()
        .unwrap()
        .to_owned()
}
