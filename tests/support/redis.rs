//! Redis servers for tests.
//!
//! [`Redis::shared`] is one server per test process, where every test has a key prefix of its own
//! ([`fresh_prefix`]). [`Redis::private`] belongs to one test, which may kill and restart it.
//!
//! Where a server comes from, in this order: `NODESTORAGE_TEST_REDIS_URL` (only for `shared`), the
//! binary `NODESTORAGE_REDIS_SERVER`, `redis-server` on `PATH` or in `.servers/bin` (see
//! `scripts/install`). A missing server fails the test.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

const URL_VARIABLE: &str = "NODESTORAGE_TEST_REDIS_URL";
const BINARY_VARIABLE: &str = "NODESTORAGE_REDIS_SERVER";
const WATCHDOG: &str = include_str!("watchdog.sh");

/// A start takes a tenth of a second; a busy machine gets the rest.
const START_DEADLINE: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// A key prefix that no other test has, in this run or another.
pub(crate) fn fresh_prefix() -> String {
    format!("test-{}", uuid::Uuid::now_v7().simple())
}

/// A running Redis server.
#[derive(Debug)]
pub(crate) struct Redis {
    process: Option<Process>,
    url: String,
}

/// A server process with the watchdog that owns it and ends it with the test process.
#[derive(Debug)]
struct Process {
    watchdog: Mutex<Watchdog>,
    port: u16,
}

#[derive(Debug)]
struct Watchdog {
    child: Child,
    /// `None` once the watchdog was told to finish.
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Redis {
    /// The server that all tests of this process share. It stores nothing on disk.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Result<Redis, String>> = OnceLock::new();
        let shared = SHARED.get_or_init(|| match std::env::var(URL_VARIABLE) {
            Ok(url) if !url.is_empty() => Ok(Self { process: None, url }),
            _ => Self::start(&["--save", "", "--appendonly", "no"]),
        });
        shared.as_ref().unwrap_or_else(|reason| panic!("{reason}"))
    }

    /// A server for one test with an append-only file that is synchronised with every write, stopped
    /// when the value is dropped.
    pub(crate) fn private(more: &[&str]) -> Self {
        let mut arguments = vec![
            "--save",
            "",
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
        ];
        arguments.extend(more);
        Self::start(&arguments).unwrap_or_else(|reason| panic!("{reason}"))
    }

    fn start(arguments: &[&str]) -> Result<Self, String> {
        let binary = find_binary()?;
        // Another process may take the port between our look and the start of the server.
        for _ in 0..5 {
            let process = Process::spawn(&binary, free_port(), arguments)
                .map_err(|e| format!("no redis-server for the tests: {}: {e}", binary.display()))?;
            if process.command_start() {
                let url = format!("redis://127.0.0.1:{}/", process.port);
                return Ok(Self {
                    process: Some(process),
                    url,
                });
            }
        }
        Err("no redis-server for the tests: it does not start".into())
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The port on the loopback address.
    pub(crate) fn port(&self) -> u16 {
        self.process().port
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
        assert!(
            self.process().command_start(),
            "redis-server does not start again"
        );
    }
}

impl Process {
    fn spawn(binary: &Path, port: u16, arguments: &[&str]) -> std::io::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("nodestorage-redis-")
            .tempdir()?;
        let mut child = Command::new("sh")
            .args(["-c", WATCHDOG, "watchdog"])
            .arg(folder.path())
            .arg(binary)
            .arg("--dir")
            .arg(folder.path())
            .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // Ctrl-C and a kill of the test's process group must leave the watchdog to do its work.
            .process_group(0)
            .spawn()?;
        let commands = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("its output is a pipe"));
        // From here on the watchdog removes the folder.
        let _ = folder.keep();
        Ok(Self {
            watchdog: Mutex::new(Watchdog {
                child,
                commands,
                answers,
            }),
            port,
        })
    }

    fn command(&self, verb: &str) {
        let mut watchdog = self.watchdog.lock().unwrap_or_else(PoisonError::into_inner);
        let commands = watchdog.commands.as_mut().expect("open until the drop");
        writeln!(commands, "{verb}").expect("the watchdog reads its commands");
        let mut answer = String::new();
        let read = watchdog.answers.read_line(&mut answer);
        read.expect("the watchdog answers its commands");
    }

    /// Starts the server; whether it answers in time.
    fn command_start(&self) -> bool {
        self.command("start");
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

impl Drop for Process {
    fn drop(&mut self) {
        let mut watchdog = self.watchdog.lock().unwrap_or_else(PoisonError::into_inner);
        // The end of its input is what the watchdog waits for; when it has ended, all is gone.
        drop(watchdog.commands.take());
        let _ = watchdog.child.wait();
    }
}

fn find_binary() -> Result<PathBuf, String> {
    if let Some(binary) = std::env::var_os(BINARY_VARIABLE).filter(|it| !it.is_empty()) {
        return Ok(binary.into());
    }
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join(".servers/bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([installed])
        .map(|folder| folder.join("redis-server"))
        .find(|binary| binary.is_file())
        .ok_or_else(|| {
            format!(
                "no redis-server for the tests: run scripts/install redis, or set {URL_VARIABLE} \
                 or {BINARY_VARIABLE}"
            )
        })
}

/// A port that is free now and that no client socket takes meanwhile: they come from 32768 upwards.
fn free_port() -> u16 {
    loop {
        let port =
            15_000 + u16::try_from(RandomState::new().hash_one(()) % 17_000).expect("below 17,000");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
