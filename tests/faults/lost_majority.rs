//! A primary that has lost its majority, and whose writes are rolled back.

use std::sync::Arc;
use std::time::Duration;

use ::mongodb::options::{Acknowledgment, WriteConcern};
use bson::{Document, doc};
use nodestorage::{Metadata, UpdateContext, UpdateOptions};
use tokio::sync::{Notify, mpsc};
use tokio::task::block_in_place;
use uuid::Uuid;

use crate::chance::{eventually_async, with_database};
use crate::check::{Acks, COLLECTION, check_thoroughly};
use crate::failover::turn;
use crate::load::{Counter, Load, increment, open, patient};
use crate::support::mongod::replica_set::ReplicaSet;

/// A document of the load's collection that the load leaves alone.
const CONTESTED: &str = "contested";

/// What a write that only one member has looks like.
const PHANTOM: i64 = 1_000_000;

/// A foreign writer brings a document to version 2 on a primary whose secondaries do not follow any
/// more. An update begins there, so that whoever reads locally decides on that version. Then the
/// secondaries elect a new primary, where another update makes *another* version 2, which is
/// acknowledged; the first one's is rolled back. The update that began before must not compare and swap
/// "version 2".
#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_was_rolled_back_is_never_compared_and_swapped() {
    let what = "a_version_that_was_rolled_back_is_never_compared_and_swapped";
    let (set, _turn) = turn().await;
    let url = with_database(&set.url(), "rollback", "");
    let early = open(&url).await;
    increment(&early, CONTESTED, Uuid::new_v4()).await.unwrap();
    let load = Load::start(open(&url).await, 8, 16);
    load.goes_on(50).await;

    let old = block_in_place(|| set.await_primary(None));
    block_in_place(|| set.hold_replication(old, true));
    write_phantom(set.client().await).await;
    let local = || block_in_place(|| local_n(set, old));
    assert_eq!(local(), PHANTOM);

    // The update reads, and waits in its closure.
    let (read, mut reads) = mpsc::unbounded_channel();
    let go_on = Arc::new(Notify::new());
    let waiting = Arc::clone(&go_on);
    let storage = early.clone();
    let first = tokio::spawn(async move {
        let name = Uuid::new_v4().simple().to_string();
        let options = UpdateOptions::new()
            .with_metadata(Metadata::new().with_correlation(name))
            // It waits in its closure for an election and more.
            .with_retry(patient().with_deadline(Duration::from_secs(180)));
        let increments = |counter: Option<Counter>, context: UpdateContext| {
            let (waiting, read) = (Arc::clone(&waiting), read.clone());
            async move {
                let mut counter = counter.expect("it is there");
                read.send((counter.n, context.version().unwrap().get()))
                    .unwrap();
                if context.attempt() == 1 {
                    waiting.notified().await;
                }
                counter.n += 1;
                counter
            }
        };
        let changed = storage.update_async(COLLECTION, CONTESTED, options, increments);
        changed.await.map(|change| change.version())
    });
    let seen = tokio::time::timeout(Duration::from_secs(30), reads.recv()).await;
    let seen = seen
        .expect("a read without its majority returns what the majority has")
        .unwrap();
    assert_eq!(seen, (1, 1), "n and version that the closure saw");

    // The others go on without it, and without what only it has.
    block_in_place(|| {
        set.members()[old].pause();
        set.hold_replication(old, false);
        let new = set.await_primary(Some(old));
        set.await_majority(new);
    });
    let late = open(&url).await;
    let second = increment(&late, CONTESTED, Uuid::new_v4()).await.unwrap();
    assert_eq!(second, 2);
    block_in_place(|| set.members()[old].resume());
    go_on.notify_one();
    let third = first.await.unwrap().unwrap();
    assert_eq!(third, 3);

    block_in_place(|| set.await_healthy());
    eventually_async(
        "the old primary rolls back",
        Duration::from_secs(30),
        async || local() == 3,
    )
    .await;
    load.goes_on(50).await;
    let mut acks = Acks::new();
    let failures = load.stop(&acks.next_file()).await;
    eprintln!("faults: {what}: {failures}");
    let contested =
        format!("ack {CONTESTED} 1\nack {CONTESTED} {second}\nack {CONTESTED} {third}\n");
    std::fs::write(acks.next_file(), contested).unwrap();
    for storage in [early, late] {
        storage.close().await;
    }
    block_in_place(|| check_thoroughly(what, &url, acks.files()));
}

/// Compares and swaps version 1 for a version 2, without waiting for a majority.
async fn write_phantom(client: ::mongodb::Client) {
    let documents = client
        .database("rollback")
        .collection::<Document>(COLLECTION);
    let alone = WriteConcern::builder().w(Acknowledgment::Nodes(1)).build();
    let swapped = documents
        .update_one(
            doc! { "_id": CONTESTED, "version": 1_i64 },
            doc! { "$set": { "version": 2_i64, "n": PHANTOM } },
        )
        .write_concern(alone)
        .await
        .unwrap();
    assert_eq!(swapped.modified_count, 1);
}

/// What one member has, whether or not anybody else has it.
fn local_n(set: &ReplicaSet, member: usize) -> i64 {
    let find = doc! {
        "find": COLLECTION, "filter": { "_id": CONTESTED }, "readConcern": { "level": "local" },
    };
    let found = set.run(member, "rollback", find).unwrap();
    let batch = found
        .get_document("cursor")
        .unwrap()
        .get_array("firstBatch");
    let document = batch.unwrap()[0].as_document().unwrap();
    document.get_i64("n").unwrap()
}
