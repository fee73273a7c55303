//! The peer: emmett's command handler on its MongoDB event store, in a Node.js process of its own.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, bail, ensure};
use bson::doc;
use serde_json::{Value, json};

use crate::contender::Contender;
use crate::load::{Length, Sample};
use crate::mongo::{Database, connections, number};

/// The program and its packages, from the project's folder.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/emmett");
/// Where the store keeps the streams of a type.
const STREAMS: &str = "emt:account";

/// A running peer, which ends with this value.
struct Process {
    child: Child,
    answers: BufReader<ChildStdout>,
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended already is none the worse for it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        if line.is_empty() {
            let status = self.child.wait()?;
            bail!("the peer has ended with {status}");
        }
        Ok(line.trim_end().to_owned())
    }

    fn tell(&mut self, line: &str) -> Result<()> {
        let input = self.child.stdin.as_mut().context("its input is a pipe")?;
        writeln!(input, "{line}")?;
        Ok(())
    }
}

pub(crate) struct Emmett {
    process: Arc<Mutex<Process>>,
    accounts: usize,
    store: Database,
}

impl Emmett {
    /// Starts the peer and waits until it has opened all accounts.
    pub(crate) async fn start(store: Database, accounts: usize, tasks: usize) -> Result<Self> {
        let settings = json!({
            "url": store.url,
            "accounts": accounts,
            "tasks": tasks,
            "connections": connections(tasks),
        });
        let started = tokio::task::spawn_blocking(move || {
            let mut process = launch(&settings)?;
            let ready = process.line().context("the peer opens the accounts")?;
            ensure!(ready == "ready", "the peer did not become ready");
            Ok(process)
        });
        Ok(Self {
            process: Arc::new(Mutex::new(started.await??)),
            accounts,
            store,
        })
    }
}

fn launch(settings: &Value) -> Result<Process> {
    let node = std::env::var_os("NODESTORAGE_NODE")
        .context("no node: run scripts/bench, which installs one and names it")?;
    let mut child = Command::new(node)
        .arg(Path::new(FOLDER).join("commands.js"))
        .arg(settings.to_string())
        .env("NODE_ENV", "production")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("the peer's process")?;
    let output = child.stdout.take().context("its output is a pipe")?;
    Ok(Process {
        child,
        answers: BufReader::new(output),
    })
}

impl Contender for Emmett {
    async fn run(&self, length: Length, _: usize) -> Result<Sample> {
        let process = Arc::clone(&self.process);
        let round = json!({
            "warm_up_ms": length.warm_up.as_secs_f64() * 1e3,
            "measured_ms": length.measured.as_secs_f64() * 1e3,
        });
        tokio::task::spawn_blocking(move || {
            let mut process = process.lock().unwrap_or_else(PoisonError::into_inner);
            process.tell(&round.to_string())?;
            let answer = process.line()?;
            serde_json::from_str(&answer).context("the peer's answer")
        })
        .await?
    }

    async fn check(&self, acknowledged: u64) -> Result<()> {
        let deposited = i64::try_from(acknowledged)?;
        let sums = doc! { "$group": {
            "_id": null,
            "streams": { "$sum": 1 },
            "versions": { "$sum": { "$subtract": ["$metadata.streamPosition", 1] } },
            "events": { "$sum": { "$subtract": [{ "$size": "$messages" }, 1] } },
            "deposits": { "$sum": { "$sum": "$messages.data.amount" } },
        } };
        let found = self.store.total(STREAMS, vec![sums]).await?;
        for (what, expected) in [
            ("streams", i64::try_from(self.accounts)?),
            ("versions", deposited),
            ("events", deposited),
            ("deposits", deposited),
        ] {
            let found = number(&found, what);
            ensure!(
                found == expected,
                "{what} of the streams come to {found}, {expected} were acknowledged"
            );
        }
        Ok(())
    }
}

/// How the peer is set up, for the record; the versions stand with the others.
pub(crate) fn settings(tasks: usize) -> Value {
    json!({
        "call": "CommandHandler of @event-driven-io/emmett on getMongoDBEventStore of \
                 @event-driven-io/emmett-mongodb; one stream per account",
        "process": "Node.js, one, started before the first round",
        "emmett": package("@event-driven-io/emmett"),
        "mongodb driver": package("mongodb"),
        "tasks": tasks,
        "max_pool_size": connections(tasks),
        "write_concern": "majority",
        "retry": "the package's pauses after conflicts, up to 20 times",
    })
}

/// The version of a package that is asked for, which is an exact one.
pub(crate) fn package(name: &str) -> Option<String> {
    let package: Value = serde_json::from_str(include_str!("../../emmett/package.json")).ok()?;
    Some(package["dependencies"][name].as_str()?.to_owned())
}
