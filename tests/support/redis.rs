//! Redis servers for tests.
//!
//! [`Redis::shared`] is one server per test process, where every test has a key prefix of its own
//! ([`fresh_prefix`]). [`Redis::private`] belongs to one test, which may kill and restart it.
//!
//! Where a server comes from, in this order: `NODESTORAGE_TEST_REDIS_URL` (only for `shared`), the
//! binary `NODESTORAGE_REDIS_SERVER`, `redis-server` on `PATH` or in `.servers/bin` (see
//! `scripts/install`). A missing server fails the test.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use super::server_process::{Process, find_binary, free_port};

#[allow(unused_imports, reason = "the benchmark names its own")]
pub(crate) use super::server_process::fresh_prefix;

const URL_VARIABLE: &str = "NODESTORAGE_TEST_REDIS_URL";
const BINARY_VARIABLE: &str = "NODESTORAGE_REDIS_SERVER";

/// A start takes a tenth of a second; a busy machine gets the rest.
const START_DEADLINE: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// A running Redis server.
#[derive(Debug)]
pub(crate) struct Redis {
    url: String,
    port: u16,
    tls_port: u16,
    /// `None` for a server that is somebody else's.
    process: Option<Process>,
}

impl Redis {
    /// The server that all tests of this process share. It stores nothing on disk.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Result<Redis, String>> = OnceLock::new();
        let shared = SHARED.get_or_init(|| match std::env::var(URL_VARIABLE) {
            Ok(url) if !url.is_empty() => Ok(Self {
                url,
                port: 0,
                tls_port: 0,
                process: None,
            }),
            _ => Self::start(&["--save", "", "--appendonly", "no"], false),
        });
        shared.as_ref().unwrap_or_else(|reason| panic!("{reason}"))
    }

    /// A server for one test with an append-only file that is synchronised with every write, stopped
    /// when the value is dropped.
    pub(crate) fn private(more: &[&str]) -> Self {
        Self::start_private(more, false)
    }

    /// The same, which listens for TLS on another port as well; `more` says with which certificate.
    pub(crate) fn private_with_tls(more: &[&str]) -> Self {
        Self::start_private(more, true)
    }

    fn start_private(more: &[&str], tls: bool) -> Self {
        let durable = [
            "--save",
            "",
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
        ];
        let arguments: Vec<&str> = durable.iter().chain(more).copied().collect();
        Self::start(&arguments, tls).unwrap_or_else(|reason| panic!("{reason}"))
    }

    fn start(more: &[&str], tls: bool) -> Result<Self, String> {
        let binary = find_binary("redis-server", BINARY_VARIABLE).ok_or_else(|| {
            format!(
                "no redis-server for the tests: run scripts/install redis, or set {URL_VARIABLE} \
                 or {BINARY_VARIABLE}"
            )
        })?;
        // Another process may take the port between our look and the start of the server.
        for _ in 0..5 {
            let (port, tls_port) = (free_port(), if tls { free_port() } else { 0 });
            let process = Process::spawn(&binary, |folder| {
                let mut arguments: Vec<OsString> = vec!["--dir".into(), folder.into()];
                let ports = [port.to_string(), tls_port.to_string()];
                arguments.extend(["--bind", "127.0.0.1", "--port", &ports[0]].map(OsString::from));
                if tls {
                    arguments.extend(["--tls-port", &ports[1]].map(OsString::from));
                }
                arguments.extend(more.iter().map(OsString::from));
                arguments
            });
            let process = process
                .map_err(|e| format!("no redis-server for the tests: {}: {e}", binary.display()))?;
            let server = Self {
                url: format!("redis://127.0.0.1:{port}/"),
                port,
                tls_port,
                process: Some(process),
            };
            if server.command_start() {
                return Ok(server);
            }
        }
        Err("no redis-server for the tests: it does not start".into())
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The port on the loopback address.
    pub(crate) fn port(&self) -> u16 {
        self.process();
        self.port
    }

    /// The one for TLS.
    pub(crate) fn tls_port(&self) -> u16 {
        self.process();
        self.tls_port
    }

    fn process(&self) -> &Process {
        self.process
            .as_ref()
            .unwrap_or_else(|| panic!("{URL_VARIABLE} names a server that is not ours"))
    }

    /// Kills the server as a power cut would end it, except that the disk keeps what it was given.
    pub(crate) fn kill(&self) {
        self.process().command("kill");
    }

    /// Freezes the server: connections stay open, nothing answers.
    pub(crate) fn pause(&self) {
        self.process().command("pause");
    }

    /// Lets a paused server continue.
    pub(crate) fn resume(&self) {
        self.process().command("resume");
    }

    /// Starts the server again with the same data at the same address, after killing it if it runs.
    pub(crate) fn restart(&self) {
        assert!(self.command_start(), "redis-server does not start again");
    }

    /// Starts the server; whether it answers in time.
    fn command_start(&self) -> bool {
        self.process().command("start");
        let deadline = Instant::now() + START_DEADLINE;
        while Instant::now() < deadline {
            if self.answers().unwrap_or(false) {
                return true;
            }
            thread::sleep(POLL_INTERVAL);
        }
        false
    }

    fn answers(&self) -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"PING\r\n")?;
        let mut answer = [0; 7];
        stream.read_exact(&mut answer)?;
        // "-LOADING …" while it reads its files.
        // With a password it refuses, but it is there.
        Ok(&answer == b"+PONG\r\n" || answer.starts_with(b"-NOAUTH"))
    }
}
