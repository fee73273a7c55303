//! Members that die in processes of their own.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use nodestorage::Event;
use nodestorage::bus::{EventBus, EventBusExt, NatsBus, Subscription};

use crate::nats::{Nats, fresh_prefix};
use crate::world::{DEADLINE, Seen, check_order, events, options, publish};

const URL: &str = "NODESTORAGE_TEST_MEMBER_URL";
const PREFIX: &str = "NODESTORAGE_TEST_MEMBER_PREFIX";
/// `group` or `broadcast`.
const ROLE: &str = "NODESTORAGE_TEST_MEMBER_ROLE";

fn subscription() -> Subscription {
    Subscription::to_all().with_group("g").with_workers(4)
}

/// The other process: handles slowly, says what it has handled, and never ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the tests of this file, as a process of its own"]
async fn a_member_in_another_process() {
    let (Ok(url), Ok(prefix)) = (std::env::var(URL), std::env::var(PREFIX)) else {
        panic!("{URL} and {PREFIX} say whose member this is");
    };
    let bus = NatsBus::connect(&url, options(&prefix)).await.unwrap();
    let subscription = match std::env::var(ROLE).as_deref() {
        Ok("broadcast") => Subscription::to_all(),
        _ => subscription(),
    };
    let handled = bus.subscribe(subscription, |event: Event| async move {
        tokio::time::sleep(Duration::from_millis(1)).await;
        println!("handled {} {}", event.aggregate_id(), event.version());
    });
    handled.await.unwrap();
    println!("ready");
    std::future::pending::<()>().await;
}

/// The other process, killed at the latest with this value.
struct Member(Child, mpsc::Receiver<String>);

impl Member {
    fn start(url: &str, prefix: &str, role: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["members::a_member_in_another_process", "--exact"])
            .args(["--ignored", "--nocapture"])
            .env(URL, url)
            .env(PREFIX, prefix)
            .env(ROLE, role)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self(child, receiver)
    }

    fn next(&self) -> String {
        let line = self.1.recv_timeout(DEADLINE);
        line.expect("the other process says something")
    }

    /// Kills it with -9 and returns what it said until then.
    fn kill(mut self) -> Vec<String> {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
        self.1.try_iter().collect()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Another member, there or joining later, does the rest in order.
async fn a_killed_member_hands_over(joins_late: bool) {
    let (url, prefix) = (Nats::shared().url(), fresh_prefix());
    let bus = NatsBus::connect(url, options(&prefix)).await.unwrap();
    let member = Member::start(url, &prefix, "group");
    while !member.next().ends_with("ready") {}
    let seen = Seen::default();
    if !joins_late {
        seen.subscribe(&bus, subscription()).await;
    }
    let all = events(40, 1..=50);
    publish(&bus, &all[..1_000]).await;
    let mut lines = Vec::new();
    while lines.len() < 100 {
        lines.push(member.next());
    }
    lines.extend(member.kill());
    if joins_late {
        seen.subscribe(&bus, subscription()).await;
    }
    publish(&bus, &all[1_000..]).await;
    let theirs: Vec<Event> = lines
        .iter()
        .filter_map(|line| line.split("handled ").nth(1)?.split_once(' '))
        .filter_map(|(id, version)| {
            all.iter()
                .find(|event| {
                    event.aggregate_id().to_string() == id && event.version().to_string() == version
                })
                .cloned()
        })
        .collect();
    assert!(theirs.len() >= 100);
    let begin = std::time::Instant::now();
    loop {
        let together = [theirs.clone(), seen.events()].concat();
        let ids: std::collections::HashSet<_> = together.iter().map(Event::id).collect();
        if ids.len() == all.len() {
            // Also when both were at work: a document's partition went from one to the other once.
            let repeated = check_order(&together, &all);
            eprintln!(
                "{} handled by the killed one, {repeated} twice",
                theirs.len()
            );
            break;
        }
        assert!(begin.elapsed() < DEADLINE, "{} of {}", ids.len(), all.len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bus.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_member_hands_over_in_order_to_one_that_is_there() {
    a_killed_member_hands_over(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_member_hands_over_in_order_to_one_that_comes_later() {
    a_killed_member_hands_over(true).await;
}

/// What a broadcast left on the server goes after a while, whoever is still there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_broadcast_is_removed() {
    let (url, prefix) = (Nats::shared().url(), fresh_prefix());
    let patient = options(&prefix).with_broadcast_ttl(Duration::from_secs(3));
    let bus = NatsBus::connect(url, patient).await.unwrap();
    let member = Member::start(url, &prefix, "broadcast");
    while !member.next().ends_with("ready") {}
    publish(&bus, &events(8, 1..=2)).await;
    while !member.next().contains("handled") {}
    let client = async_nats::connect(url).await.unwrap();
    let context = async_nats::jetstream::new(client);
    let stream = context.get_stream(prefix.to_uppercase()).await.unwrap();
    let consumers = || async { stream.get_info().await.unwrap().state.consumer_count };
    assert_eq!(consumers().await, 8);
    member.kill();
    let begin = std::time::Instant::now();
    while consumers().await > 0 {
        assert!(begin.elapsed() < DEADLINE, "{} left", consumers().await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bus.close().await.unwrap();
}
