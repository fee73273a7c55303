//! The primary of a replica set of three nodes dies, stands still, or steps down.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, MutexGuard};
use tokio::task::block_in_place;

use crate::chance::{moment, rounds, with_database};
use crate::check::{Acks, check_thoroughly};
use crate::load::{Load, open};
use crate::support::mongod::replica_set::ReplicaSet;

/// The replica set that the tests of a process use one after the other.
pub(crate) async fn turn() -> (&'static ReplicaSet, MutexGuard<'static, ()>) {
    static SET: OnceLock<ReplicaSet> = OnceLock::new();
    static TURN: Mutex<()> = Mutex::const_new(());
    let turn = TURN.lock().await;
    let set = block_in_place(|| {
        let set = SET.get_or_init(ReplicaSet::start);
        // A test that failed may have left one paused or dead.
        for member in set.members() {
            member.resume();
        }
        set.await_healthy();
        set
    });
    (set, turn)
}

/// Lets something happen to the primary under load, again and again, and checks what is left. `fault`
/// returns the moment from which on nothing can succeed on the old primary.
async fn under_load(
    what: &str,
    database: &str,
    times: u64,
    fault: impl Fn(&ReplicaSet, usize) -> Instant,
) {
    let (set, _turn) = turn().await;
    let url = with_database(&set.url(), database, "");
    let load = Load::start(open(&url).await, 16, 32);
    for _ in 0..times {
        load.goes_on(100).await;
        tokio::time::sleep(moment(200)).await;
        let primary = block_in_place(|| set.await_primary(None));
        let since = block_in_place(|| fault(set, primary));
        let first = load.first_success(since).await;
        eprintln!("faults: {what}: first success {first:.1?} after the fault");
        block_in_place(|| recover(set, primary));
    }
    load.goes_on(100).await;
    let mut acks = Acks::new();
    let failures = load.stop(&acks.next_file()).await;
    eprintln!("faults: {what}: {failures}");
    block_in_place(|| check_thoroughly(what, &url, acks.files()));
}

/// Whatever was done to the member, it serves again.
fn recover(set: &ReplicaSet, member: usize) {
    if set.members()[member].pid().is_none() {
        set.restart(member);
    }
    set.members()[member].resume();
    set.await_healthy();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_primary_loses_nothing_that_was_acknowledged() {
    let what = "a_killed_primary_loses_nothing_that_was_acknowledged";
    under_load(what, "killed", rounds(3), |set, primary| {
        set.members()[primary].kill();
        Instant::now()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_primary_loses_nothing_that_was_acknowledged() {
    let what = "a_paused_primary_loses_nothing_that_was_acknowledged";
    under_load(what, "paused", rounds(2), |set, primary| {
        set.members()[primary].pause();
        Instant::now()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_steps_down_loses_nothing_that_was_acknowledged() {
    let what = "a_primary_that_steps_down_loses_nothing_that_was_acknowledged";
    under_load(what, "stepped", rounds(3), |set, primary| {
        set.step_down(primary);
        let down = Instant::now();
        set.await_primary(Some(primary));
        down
    })
    .await;
}

/// It stands still for less than an election takes, so that everything goes on where it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_stands_still_for_a_moment_loses_nothing() {
    let what = "a_primary_that_stands_still_for_a_moment_loses_nothing";
    under_load(what, "moments", rounds(3), |set, primary| {
        let member = &set.members()[primary];
        member.pause();
        let paused = Instant::now();
        std::thread::sleep(Duration::from_millis(300) + moment(400));
        member.resume();
        paused
    })
    .await;
}
