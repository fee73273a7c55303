//! Every command of an update fails in every way, at every position.

use std::time::Duration;

use ::mongodb::Client;
use ::mongodb::error::ErrorKind;
use bson::{Document, doc};

use crate::chance::{below, rounds, server, with_database};
use crate::check::{Acks, check_thoroughly};
use crate::load::{Load, open};

/// The name of the clients that the server misbehaves for.
const APP: &str = "fail";

/// Commands that fail together. An abort is only sent after something else has failed.
const COMMANDS: &[&[&str]] = &[
    &["find"],
    &["update"],
    &["insert"],
    &["commitTransaction"],
    &["insert", "abortTransaction"],
    &[
        "find",
        "update",
        "insert",
        "commitTransaction",
        "abortTransaction",
    ],
];

/// How they fail.
fn faults() -> Vec<Document> {
    vec![
        doc! { "closeConnection": true },
        // WriteConflict, NotWritablePrimary, ExceededTimeLimit, InterruptedAtShutdown.
        doc! { "errorCode": 112 },
        doc! { "errorCode": 10_107 },
        doc! { "errorCode": 262 },
        doc! { "errorCode": 11_600 },
        // The statement waits while others go ahead, and then the connection breaks.
        doc! { "blockConnection": true, "blockTimeMS": 50, "closeConnection": true },
    ]
}

/// The commit went through, and the answer says that this is not certain. Has no meaning elsewhere.
fn unconfirmed() -> Document {
    doc! { "writeConcernError": { "code": 64, "errmsg": "not confirmed" } }
}

/// The next ones; all after the next ones; each with some probability.
fn modes() -> [Document; 3] {
    let few = i32::try_from(1 + below(6)).unwrap();
    let skip = i32::try_from(below(40)).unwrap();
    [
        doc! { "times": few },
        doc! { "skip": skip },
        doc! { "activationProbability": 0.1 },
    ]
}

async fn configure(client: &Client, mode: impl Into<bson::Bson>, data: Document) -> i64 {
    let command = doc! { "configureFailPoint": "failCommand", "mode": mode, "data": data };
    let reply = client.database("admin").run_command(command).await.unwrap();
    match reply.get("count") {
        Some(bson::Bson::Int64(count)) => *count,
        Some(bson::Bson::Int32(count)) => (*count).into(),
        other => panic!("how often it was entered: {other:?}"),
    }
}

/// Whether the fail point was entered that often, in all, within the time.
async fn entered(client: &Client, times: i64, within: Duration) -> bool {
    let command = doc! {
        "waitForFailPoint": "failCommand",
        "timesEntered": times,
        "maxTimeMS": i64::try_from(within.as_millis()).unwrap(),
    };
    match client.database("admin").run_command(command).await {
        Ok(_) => true,
        // MaxTimeMSExpired
        Err(error) if matches!(&*error.kind, ErrorKind::Command(it) if it.code == 50) => false,
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_fail_at_any_position_lose_nothing() {
    let what = "commands_that_fail_at_any_position_lose_nothing";
    let mongod = server();
    let client = mongod.client().await;
    let options = format!("appName={APP}&heartbeatFrequencyMS=500");
    let url = with_database(mongod.url(), "fail", &options);
    // Two on the same few documents, so that there are conflicts as well.
    let loads = [
        Load::start(open(&url).await, 8, 16),
        Load::start(open(&url).await, 8, 16),
    ];
    let mut plan = Vec::new();
    for round in 0..rounds(2) {
        for (group, commands) in (0_u64..).zip(COMMANDS) {
            for (number, fault) in (0_u64..).zip(faults()) {
                // Each fault in one mode per round, and over the rounds in all of them.
                let mode = usize::try_from((round + group + number) % 3).unwrap();
                plan.push((*commands, fault, modes()[mode].clone()));
            }
        }
        for mode in modes() {
            plan.push((&["commitTransaction"], unconfirmed(), mode));
        }
    }
    for at in (1..plan.len()).rev() {
        plan.swap(at, usize::try_from(below(at as u64 + 1)).unwrap());
    }
    let mut fired = 0;
    for (commands, fault, mode) in plan {
        let mut data = fault;
        data.insert("failCommands", commands);
        data.insert("appName", APP);
        let before = configure(&client, mode.clone(), data.clone()).await;
        let wanted = i64::from(mode.get_i32("times").unwrap_or(4));
        let all = entered(&client, before + wanted, Duration::from_secs(20)).await;
        let after = configure(&client, "off", Document::new()).await;
        assert!(all && after > before, "{data} did not happen ({mode})");
        fired += after - before;
        for load in &loads {
            load.goes_on(4).await;
        }
    }
    let mut acks = Acks::new();
    for load in loads {
        load.goes_on(50).await;
        let failures = load.stop(&acks.next_file()).await;
        eprintln!("faults: {what}: {fired} commands failed; {failures}");
    }
    check_thoroughly(what, &url, acks.files());
}
