//! The examples run and print what they promise.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

#[allow(dead_code, reason = "other binaries use the rest")]
#[path = "support/nats.rs"]
mod nats;
#[allow(dead_code, reason = "other binaries use the rest")]
#[path = "support/redis.rs"]
mod redis;
#[allow(dead_code, reason = "other binaries use the rest")]
#[path = "support/server_process.rs"]
mod server_process;
mod support;

use nats::Nats;
use redis::Redis;
use support::mongod::Mongod;

/// Cargo builds the examples with the tests, into the folder beside theirs.
fn example(name: &str) -> Command {
    let mut path: PathBuf = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.push("examples");
    path.push(name);
    assert!(
        path.exists(),
        "the example {name} is not built; run the tests without a --test filter first"
    );
    Command::new(path)
}

#[track_caller]
fn does_the_quick_start(mut command: Command) {
    let output = command.output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{errors}");
    let (events, changes): (Vec<_>, Vec<_>) =
        printed.lines().partition(|line| line.starts_with("event"));
    assert_eq!(
        events,
        [
            "event    UserCreated of users/user123 version 1",
            "event    UserUpdated of users/user123 version 2",
            "event    UserEmailChanged of users/user123 version 2",
            "event    UserDeleted of users/user123 version 3",
        ],
        "{printed}"
    );
    assert_eq!(
        changes,
        [
            "created  {\"email\":\"john@example.com\",\"name\":\"John Doe\"}",
            "updated  {\"email\":\"john.doe@example.com\"}",
            "deleted  null",
            "version 1 was User { name: \"John Doe\", email: \"john@example.com\" }",
        ],
        "{printed}"
    );
}

#[test]
fn quickstart_needs_no_server_and_no_second() {
    let started = Instant::now();
    does_the_quick_start(example("quickstart"));
    let taken = started.elapsed();
    assert!(taken < Duration::from_secs(1), "took {taken:?}");
}

#[test]
fn quickstart_takes_a_bus_by_url() {
    let mut command = example("quickstart");
    command.args(["--bus", "memory:"]);
    does_the_quick_start(command);
    let output = example("quickstart")
        .args(["--bus", "kafka://user:secret@host"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.contains("bus URL") && !error.contains("secret"),
        "{error}"
    );
}

#[test]
fn quickstart_runs_on_mongodb_by_url_alone() {
    let mongod = Mongod::shared();
    let database = mongod.fresh_database();
    let mut command = example("quickstart");
    command
        .arg("--url")
        .arg(mongod.url().replacen("/?", &format!("/{}?", &*database), 1));
    does_the_quick_start(command);
}

/// Runs an example that tells the same story wherever it runs, and compares all that it prints.
#[track_caller]
fn tells_its_story(mut command: Command, story: &str) {
    let output = command.output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{printed}\n{errors}");
    // Line by line first, which shows where they part.
    for (number, (printed, told)) in printed.lines().zip(story.lines()).enumerate() {
        assert_eq!(printed, told, "line {}", number + 1);
    }
    assert_eq!(printed, story);
}

/// The same on MongoDB, with a bus.
#[track_caller]
fn tells_its_story_on_servers(name: &str, bus: &str, story: &str) {
    let mongod = Mongod::shared();
    let database = mongod.fresh_database();
    let mut command = example(name);
    command
        .arg("--url")
        .arg(mongod.url().replacen("/?", &format!("/{}?", &*database), 1))
        .arg("--bus")
        .arg(bus);
    tells_its_story(command, story);
}

#[test]
fn beginners_see_what_the_tutorial_says() {
    tells_its_story(
        example("beginners"),
        "\
books/book-1 is at version 1
BookLent {\"to\":\"Kim\"}
not now: Kim has it
Kim has The Vegetarian
book-1 is back from Kim
at version 2 it was with Some(\"Kim\")
at version 3 it is with None
",
    );
}

const SIMPLE: &str = include_str!("../examples/simple/output.txt");
const BANK: &str = include_str!("../examples/bank/output.txt");
const CHAT: &str = include_str!("../examples/chat/output.txt");
const ORDERS: &str = include_str!("../examples/orders/output.txt");

#[test]
fn simple_tells_its_story() {
    tells_its_story(example("simple"), SIMPLE);
}

#[test]
fn simple_tells_its_story_on_mongodb_and_redis() {
    // A bus of its own, because the examples use the default prefix.
    let redis = Redis::private(&[]);
    tells_its_story_on_servers("simple", redis.url(), SIMPLE);
}

#[test]
fn bank_tells_its_story() {
    tells_its_story(example("bank"), BANK);
}

#[test]
fn bank_tells_its_story_on_mongodb_and_nats() {
    let nats = Nats::private("");
    tells_its_story_on_servers("bank", nats.url(), BANK);
}

#[test]
fn chat_tells_its_story() {
    tells_its_story(example("chat"), CHAT);
}

#[test]
fn chat_tells_its_story_on_mongodb_and_redis() {
    let redis = Redis::private(&[]);
    tells_its_story_on_servers("chat", redis.url(), CHAT);
}

#[test]
fn orders_tell_their_story() {
    tells_its_story(example("orders"), ORDERS);
}

#[test]
fn orders_tell_their_story_on_mongodb_and_nats() {
    let nats = Nats::private("");
    tells_its_story_on_servers("orders", nats.url(), ORDERS);
}
