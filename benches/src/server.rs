//! The MongoDB server that a run has for itself.

#[allow(dead_code, reason = "the tests use the rest")]
#[allow(clippy::expect_used, reason = "written for tests")]
#[path = "../../tests/support/mongod/process.rs"]
mod process;
#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../../tests/support/mongod/ready.rs"]
mod ready;

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};

use self::process::Process;

const START_DEADLINE: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Asked for by the fixture; a server of a benchmark has no options.
#[derive(Debug)]
struct MongodOptions;

/// A replica set of one node on the loopback address. A watchdog process ends it and removes its data when
/// the value is dropped or this process is gone, however it ended.
#[derive(Debug)]
pub(crate) struct Server {
    process: Process,
}

impl Server {
    pub(crate) async fn start() -> Result<Self> {
        let binary = std::env::var_os("NODESTORAGE_MONGOD")
            .map(PathBuf::from)
            .context("no mongod: run scripts/bench, which installs one and names it")?;
        let launched =
            tokio::task::spawn_blocking(move || Process::launch(&binary, &MongodOptions));
        let process = launched.await?.map_err(|reason| anyhow!(reason))?;
        let port = process.port;
        ready::initiate(port)
            .await
            .map_err(|reason| anyhow!(reason))?;
        let primary = ready::await_ready(port, true).await;
        primary.map_err(|reason| anyhow!(reason))?;
        Ok(Self { process })
    }

    /// The connection string of a database.
    pub(crate) fn url(&self, database: &str) -> String {
        let port = self.process.port;
        format!("mongodb://127.0.0.1:{port}/{database}?replicaSet=rs0")
    }
}

/// What the server is started with, beside its folder and address.
fn arguments(port: u16, _: &MongodOptions) -> Vec<String> {
    SETTINGS
        .iter()
        .map(|it| (*it).to_owned())
        .chain([format!("--port={port}")])
        .collect()
}

/// The server's settings, for the record as well.
pub(crate) const SETTINGS: &[&str] = &[
    "--replSet=rs0",
    // All data of a run fits, and the machine keeps its memory for the rest.
    "--wiredTigerCacheSizeGB=1",
    "--oplogSize=1024",
    "--setParameter=diagnosticDataCollectionEnabled=false",
    // A primary waits 15 seconds for its clients before it stops.
    "--setParameter=shutdownTimeoutMillisForSignaledShutdown=0",
];

/// A port that is free now and below those that client sockets take.
fn free_port() -> u16 {
    loop {
        let port = fastrand::u16(15_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
