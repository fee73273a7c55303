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

mod support;

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
