//! A member in another process is killed with -9 in the middle of its work.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use nodestorage::Event;
use nodestorage::bus::{EventBus, EventBusExt, Subscription};
use nodestorage::testing::bus::Recorder;

use crate::redis::{Redis, fresh_prefix};
use crate::world::{all_arrive_in_order, connect, events, publish, record};

/// Where the other process finds server and prefix: `URL PREFIX`.
const VARIABLE: &str = "NODESTORAGE_TEST_REDIS_MEMBER";

fn subscription() -> Subscription {
    Subscription::to_all().with_group("mortal").with_workers(4)
}

/// Not a test of its own: what the other process runs. It says on standard output what it handled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn member_of_its_own() {
    let Ok(place) = std::env::var(VARIABLE) else {
        return;
    };
    let (url, prefix) = place.split_once(' ').unwrap();
    let bus = connect(url, prefix).await;
    bus.subscribe(subscription(), |event: Event| async move {
        tokio::time::sleep(Duration::from_millis(2)).await;
        println!("handled {} {}", event.document(), event.version());
    })
    .await
    .unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_killed_in_its_work_hands_over_in_order() {
    let (url, prefix) = (Redis::shared().url(), fresh_prefix());
    let bus = connect(url, &prefix).await;
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "killed::member_of_its_own", "--nocapture"])
        .env(VARIABLE, format!("{url} {prefix}"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // From here on the group keeps what nobody handles, whether or not the child is there yet.
    let seen = Recorder::new();
    let first = record(&bus, subscription(), &seen).await;
    first.unsubscribe().await.unwrap();
    let all = events(20, 1..=50);
    publish(&bus, &all).await;
    let others = tokio::task::spawn_blocking(move || {
        let mut handled = Vec::new();
        for line in lines {
            let line = line.unwrap();
            // The test harness may have written to the same line before.
            if let Some((_, what)) = line.split_once("handled ") {
                handled.push(what.to_owned());
            }
            if handled.len() == 100 {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        handled
    })
    .await
    .unwrap();
    assert!(
        others.len() >= 100 && others.len() < all.len(),
        "{}",
        others.len()
    );
    record(&bus, subscription(), &seen).await;
    // What the dead one said comes first; the last line may be cut, and repetitions are fine.
    let last = all.last().unwrap().clone();
    nodestorage::testing::bus::eventually("the rest arrives", || async {
        seen.events()
            .iter()
            .filter(|it| it.version() == last.version())
            .count()
            >= 20
    })
    .await;
    let merged = Recorder::new();
    let by_name = |name: &String| {
        all.iter()
            .find(|it| format!("{} {}", it.document(), it.version()) == *name)
            .cloned()
    };
    for event in others.iter().filter_map(by_name).chain(seen.events()) {
        merged.record(event);
    }
    all_arrive_in_order(&merged, &all).await;
    bus.close().await.unwrap();
}
