//! The only server dies and comes back.

use std::time::Instant;

use crate::chance::{moment, rounds, with_database};
use crate::check::{Acks, check_thoroughly};
use crate::load::{Load, open};
use crate::support::mongod::{Mongod, MongodOptions};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_and_restarted_under_load_has_all_that_was_acknowledged() {
    let what = "a_server_killed_and_restarted_under_load_has_all_that_was_acknowledged";
    let mongod = Mongod::private(&MongodOptions::default());
    let url = with_database(mongod.url(), "restarts", "heartbeatFrequencyMS=500");
    let load = Load::start(open(&url).await, 16, 32);
    for _ in 0..rounds(4) {
        load.goes_on(100).await;
        tokio::time::sleep(moment(200)).await;
        mongod.kill();
        tokio::task::block_in_place(|| mongod.restart());
        let back = Instant::now();
        let first = load.first_success(back).await;
        eprintln!("faults: {what}: first success {first:.1?} after the server was back");
    }
    load.goes_on(100).await;
    let mut acks = Acks::new();
    let failures = load.stop(&acks.next_file()).await;
    eprintln!("faults: {what}: {failures}");
    check_thoroughly(what, &url, acks.files());
}
