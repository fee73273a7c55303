//! Two writers on the same documents, one of which is killed.

use std::time::{Duration, Instant};

use crate::chance::{moment, rounds, server, with_database};
use crate::check::{Acks, check_thoroughly};
use crate::support::mongod::Mongod;
use crate::workload::Workload;

/// Few, so that the killed writer is in the middle of a transaction on some of them.
const DOCUMENTS: u64 = 8;
const TASKS: u64 = 4;

/// Kills one of two writers again and again. The other one must write every document within the time.
fn survive(what: &str, mongod: &Mongod, within: Duration) {
    let url = with_database(mongod.url(), "two", "");
    let mut acks = Acks::new();
    let longest_round = within + Duration::from_secs(60);
    let at_most = longest_round * u32::try_from(rounds(6)).unwrap();
    let mut survivor = Workload::start(&url, DOCUMENTS, TASKS, at_most, &acks.next_file());
    survivor.await_each_document(DOCUMENTS, 0, Duration::from_secs(60));
    let mut longest = Duration::ZERO;
    for _ in 0..rounds(6) {
        let mut victim = Workload::start(&url, DOCUMENTS, TASKS, longest_round, &acks.next_file());
        victim.await_acknowledgement(0);
        std::thread::sleep(moment(300));
        victim.kill();
        let killed = Instant::now();
        survivor.await_each_document(DOCUMENTS, survivor.printed(), within);
        longest = longest.max(killed.elapsed());
    }
    survivor.kill();
    eprintln!("faults: {what}: every document was written again within {longest:.1?}");
    check_thoroughly(what, &url, acks.files());
}

/// A killed writer leaves a transaction open, which locks its documents until somebody ends it. The server
/// does after a minute; the survivor is to do it sooner.
#[test]
fn a_survivor_writes_a_killed_writers_documents_within_five_seconds() {
    survive(
        "a_survivor_writes_a_killed_writers_documents_within_five_seconds",
        &server(),
        Duration::from_secs(5),
    );
}
