//! NATS servers for tests, with JetStream.
//!
//! [`Nats::shared`] is one per test process; every test has a subject prefix of its own
//! ([`fresh_prefix`]). [`Nats::private`] belongs to one test, which may kill and restart it.
//!
//! Where a server comes from, in this order: `NODESTORAGE_TEST_NATS_URL` (only for `shared`), the binary
//! `NODESTORAGE_NATS_SERVER`, `nats-server` on `PATH` or in `.servers/bin` (see `scripts/install`).
//!
//! All functions block, and return when the server can be used.

use std::fs;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use super::server_process::{Process, find_binary, free_port};

#[allow(unused_imports, reason = "the benchmark names its own")]
pub(crate) use super::server_process::fresh_prefix;

const URL_VARIABLE: &str = "NODESTORAGE_TEST_NATS_URL";
const BINARY_VARIABLE: &str = "NODESTORAGE_NATS_SERVER";

/// A start takes a tenth of a second; a busy machine gets the rest.
const START_DEADLINE: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// A running NATS server.
#[derive(Debug)]
pub(crate) struct Nats {
    url: String,
    port: u16,
    /// `None` for a server that is somebody else's.
    process: Option<Process>,
}

impl Nats {
    /// The server that all tests of this process share.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Nats> = OnceLock::new();
        SHARED.get_or_init(|| match std::env::var(URL_VARIABLE) {
            Ok(url) if !url.is_empty() => Self {
                url,
                port: 0,
                process: None,
            },
            _ => Self::private(""),
        })
    }

    /// A server for one test, stopped when the value is dropped; with lines of its own for the
    /// configuration file.
    pub(crate) fn private(configuration: &str) -> Self {
        // Another process may take the port between our look and the start of the server.
        for _ in 0..5 {
            let server = Self::spawn(free_port(), configuration);
            match server.start() {
                Ok(()) => return server,
                Err(reason) if reason.contains("address already in use") => {}
                Err(reason) => panic!("no nats-server for the tests: {reason}"),
            }
        }
        panic!("no nats-server for the tests: every port it was given was taken");
    }

    /// The nodes of a cluster, each of which lets go of a leader that is gone after a few seconds.
    pub(crate) fn cluster<const NODES: usize>() -> [Self; NODES] {
        let (clients, routes) = (
            [(); NODES].map(|()| free_port()),
            [(); NODES].map(|()| free_port()),
        );
        let all: Vec<_> = routes
            .iter()
            .map(|port| format!("nats://127.0.0.1:{port}"))
            .collect();
        let all = all.join(", ");
        let nodes = std::array::from_fn(|node| {
            let (port, route) = (clients[node], routes[node]);
            let configuration = format!(
                "server_name: node{node}\n\
                 cluster {{ name: test, listen: \"127.0.0.1:{route}\", routes: [{all}] }}"
            );
            Self::spawn(port, &configuration)
        });
        for node in &nodes {
            let started = node.start();
            started.unwrap_or_else(|reason| panic!("no nats-server for the tests: {reason}"));
        }
        nodes
    }

    fn spawn(port: u16, configuration: &str) -> Self {
        let binary = find_binary("nats-server", BINARY_VARIABLE).unwrap_or_else(|| {
            panic!(
                "no nats-server for the tests: run scripts/install nats, or set {BINARY_VARIABLE}"
            )
        });
        let process = Process::spawn(&binary, |folder| {
            let file = folder.join("nats.conf");
            let text = format!(
                "host: 127.0.0.1\nport: {port}\njetstream {{ store_dir: {:?} }}\n{configuration}\n",
                folder.join("store").display().to_string()
            );
            fs::write(&file, text).expect("its configuration");
            vec!["-c".into(), file.into()]
        });
        Self {
            url: format!("nats://127.0.0.1:{port}"),
            port,
            process: Some(process.expect("sh runs")),
        }
    }

    /// The URL of the server, without credentials.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn port(&self) -> u16 {
        self.process();
        self.port
    }

    /// Kills the server as a power cut would end it, except that the disk keeps what it was given.
    pub(crate) fn kill(&self) {
        self.process().command("kill");
    }

    /// Stops the server in good order.
    pub(crate) fn stop(&self) {
        self.process().command("stop");
    }

    /// Starts the server again with the same data at the same address, after killing it if it runs.
    pub(crate) fn restart(&self) {
        self.start()
            .unwrap_or_else(|reason| panic!("nats-server did not come back: {reason}"));
    }

    fn process(&self) -> &Process {
        self.process
            .as_ref()
            .unwrap_or_else(|| panic!("{URL_VARIABLE} names a server that is not ours"))
    }

    /// Starts the server and waits until it listens.
    fn start(&self) -> Result<(), String> {
        let process = self.process();
        let log = process.log();
        let seen = fs::metadata(&log).map_or(0, |it| it.len());
        process.command("start");
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            let text = fs::read(&log).unwrap_or_default();
            let seen = usize::try_from(seen).expect("a short log");
            let text = String::from_utf8_lossy(text.get(seen..).unwrap_or_default()).into_owned();
            if text.contains("Server is ready") {
                return Ok(());
            }
            if text.contains("[FTL]") || text.starts_with("nats-server: ") {
                return Err(text.lines().last().unwrap_or_default().to_owned());
            }
            if Instant::now() > deadline {
                return Err("it did not start in time".to_owned());
            }
            thread::sleep(POLL_INTERVAL);
        }
    }
}
