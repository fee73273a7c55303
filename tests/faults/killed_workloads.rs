//! kill -9 of the writer, wherever it happens to be.

use std::path::Path;
use std::time::Duration;

use crate::chance::{below, moment, rounds, server, with_database};
use crate::check::{Acks, check, check_thoroughly};
use crate::workload::Workload;

const DOCUMENTS: u64 = 200;
const TASKS: u64 = 8;

/// A round takes less than a second, unless the machine is very busy.
const LONGEST: Duration = Duration::from_secs(120);

/// How many kills one check is for; the log gets longer all the time.
const ROUNDS_PER_CHECK: u64 = 10;

/// Kills workloads one after the other on one growing database.
fn kill_rounds(what: &str, url: &str) {
    let mut acks = Acks::new();
    for round in 1..=rounds(50) {
        let mut workload = Workload::start(url, DOCUMENTS, TASKS, LONGEST, &acks.next_file());
        // Now and then while it opens the store.
        if below(5) == 0 {
            std::thread::sleep(moment(150));
        } else {
            workload.await_acknowledgement(0);
            std::thread::sleep(moment(400));
        }
        workload.kill();
        if round % ROUNDS_PER_CHECK == 0 {
            check(what, url, acks.files());
        }
    }
    check_thoroughly(what, url, acks.files());
}

#[test]
fn a_writer_killed_at_any_moment_loses_nothing_in_mongodb() {
    let mongod = server();
    let url = with_database(mongod.url(), "killed", "");
    kill_rounds(
        "a_writer_killed_at_any_moment_loses_nothing_in_mongodb",
        &url,
    );
}

#[test]
fn a_writer_killed_at_any_moment_loses_nothing_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path: &Path = folder.path();
    let url = format!("embedded:{}", path.join("store.redb").display());
    kill_rounds(
        "a_writer_killed_at_any_moment_loses_nothing_in_a_file",
        &url,
    );
}
