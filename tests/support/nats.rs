//! NATS servers for tests, with JetStream.
//!
//! [`Nats::shared`] is one per test process; every test has a subject prefix of its own
//! ([`fresh_prefix`]). [`Nats::private`] belongs to one test, which may kill and restart it.
//!
//! Where a server comes from, in this order: `NODESTORAGE_TEST_NATS_URL` (only for `shared`), the binary
//! `NODESTORAGE_NATS_SERVER`, `nats-server` on `PATH` or in `.servers/bin` (see `scripts/install`).
//!
//! All functions block, and return when the server can be used.

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::BuildHasher;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

const URL_VARIABLE: &str = "NODESTORAGE_TEST_NATS_URL";
const BINARY_VARIABLE: &str = "NODESTORAGE_NATS_SERVER";
const WATCHDOG: &str = include_str!("watchdog.sh");

/// A start takes a tenth of a second; a busy machine gets the rest.
const START_DEADLINE: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// A subject prefix that no other test has, in this run or another.
pub(crate) fn fresh_prefix() -> String {
    format!("test-{}", uuid::Uuid::now_v7().simple())
}

/// A running NATS server.
#[derive(Debug)]
pub(crate) struct Nats {
    url: String,
    port: u16,
    /// `None` for a server that is somebody else's.
    process: Option<Process>,
}

#[derive(Debug)]
struct Process {
    watchdog: Mutex<Watchdog>,
    folder: PathBuf,
}

#[derive(Debug)]
struct Watchdog {
    child: Child,
    /// `None` once the watchdog was told to finish.
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
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
        let binary = find_binary();
        // Another process may take the port between our look and the start of the server.
        for _ in 0..5 {
            let port = free_port();
            let process = Process::spawn(&binary, port, configuration);
            match process.start() {
                Ok(()) => {
                    return Self {
                        url: format!("nats://127.0.0.1:{port}"),
                        port,
                        process: Some(process),
                    };
                }
                Err(reason) if reason.contains("address already in use") => {}
                Err(reason) => panic!("no nats-server for the tests: {reason}"),
            }
        }
        panic!("no nats-server for the tests: every port it was given was taken");
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
        self.process()
            .start()
            .unwrap_or_else(|reason| panic!("nats-server did not come back: {reason}"));
    }

    fn process(&self) -> &Process {
        self.process
            .as_ref()
            .unwrap_or_else(|| panic!("{URL_VARIABLE} names a server that is not ours"))
    }
}

impl Process {
    fn spawn(binary: &Path, port: u16, configuration: &str) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("nodestorage-nats-")
            .tempdir()
            .expect("a folder for the server");
        let file = folder.path().join("nats.conf");
        let text = format!(
            "host: 127.0.0.1\nport: {port}\njetstream {{ store_dir: {:?} }}\n{configuration}\n",
            folder.path().join("store").display().to_string()
        );
        fs::write(&file, text).expect("its configuration");
        let mut child = Command::new("sh")
            .args(["-c", WATCHDOG, "watchdog"])
            .arg(folder.path())
            .arg(binary)
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // Ctrl-C and a kill of the test's process group must leave the watchdog to do its work.
            .process_group(0)
            .spawn()
            .expect("sh runs");
        let commands = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("its output is a pipe"));
        Self {
            watchdog: Mutex::new(Watchdog {
                child,
                commands,
                answers,
            }),
            // From here on the watchdog removes the folder: it is still there when we were killed.
            folder: folder.keep(),
        }
    }

    fn command(&self, verb: &str) {
        // A test that panicked while it held the lock has left nothing half-done here.
        let mut watchdog = self.watchdog.lock().unwrap_or_else(PoisonError::into_inner);
        let commands = watchdog.commands.as_mut().expect("open until the drop");
        writeln!(commands, "{verb}").expect("the watchdog reads its commands");
        let mut answer = String::new();
        watchdog
            .answers
            .read_line(&mut answer)
            .expect("the watchdog answers its commands");
    }

    /// Starts the server and waits until it listens.
    fn start(&self) -> Result<(), String> {
        let log = self.folder.join("log");
        let seen = fs::metadata(&log).map_or(0, |it| it.len());
        self.command("start");
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

impl Drop for Process {
    fn drop(&mut self) {
        let watchdog = self
            .watchdog
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        // The end of its input is what the watchdog waits for; when it has ended, all is gone.
        drop(watchdog.commands.take());
        let _ = watchdog.child.wait();
    }
}

fn find_binary() -> PathBuf {
    if let Some(binary) = std::env::var_os(BINARY_VARIABLE).filter(|it| !it.is_empty()) {
        return binary.into();
    }
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join(".servers/bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([installed])
        .map(|folder| folder.join("nats-server"))
        .find(|binary| binary.is_file())
        .unwrap_or_else(|| {
            panic!(
                "no nats-server for the tests: run scripts/install nats, or set {BINARY_VARIABLE}"
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
