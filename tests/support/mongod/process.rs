//! A server as a process of this machine.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use super::{MongodOptions, POLL_INTERVAL, START_DEADLINE, arguments, free_port};

const WATCHDOG: &str = include_str!("../watchdog.sh");

/// A server process with the watchdog that owns it.
#[derive(Debug)]
pub(super) struct Process {
    watchdog: Mutex<Watchdog>,
    pub(super) folder: PathBuf,
    pub(super) port: u16,
}

#[derive(Debug)]
struct Watchdog {
    child: Child,
    /// `None` once the watchdog was told to finish.
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    server: Option<u32>,
}

pub(super) struct StartFailure {
    pub(super) reason: String,
    port_taken: bool,
}

impl Process {
    pub(super) fn launch(binary: &Path, options: &MongodOptions) -> Result<Self, String> {
        // Another process may take the port between our look and the start of the server.
        for _ in 0..5 {
            let process = Self::spawn(binary, free_port(), options).map_err(|error| {
                format!(
                    "no mongod for the tests: cannot run {}: {error}",
                    binary.display()
                )
            })?;
            match process.start() {
                Ok(()) => return Ok(process),
                Err(failure) if failure.port_taken => {}
                Err(failure) => return Err(format!("no mongod for the tests: {}", failure.reason)),
            }
        }
        Err("no mongod for the tests: every port it was given was taken by another process".into())
    }

    fn spawn(binary: &Path, port: u16, options: &MongodOptions) -> std::io::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("nodestorage-mongod-")
            .tempdir()?;
        let mut child = Command::new("sh")
            .args(["-c", WATCHDOG, "watchdog"])
            .arg(folder.path())
            .arg(binary)
            .arg("--dbpath")
            .arg(folder.path())
            .args(["--bind_ip=127.0.0.1", "--nounixsocket"])
            .args(arguments(port, options))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // Ctrl-C and a kill of the test's process group must leave the watchdog to do its work.
            .process_group(0)
            .spawn()?;
        let commands = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("its output is a pipe"));
        // From here on the watchdog removes the folder: it is still there when we were killed.
        let folder = folder.keep();
        Ok(Self {
            watchdog: Mutex::new(Watchdog {
                child,
                commands,
                answers,
                server: None,
            }),
            folder,
            port,
        })
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.lock().server
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Watchdog> {
        // A test that panicked while it held the lock has left nothing half-done here.
        self.watchdog
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(super) fn command(&self, verb: &str) -> Option<u32> {
        let mut watchdog = self.lock();
        let mut answer = String::new();
        let commands = watchdog.commands.as_mut().expect("open until the drop");
        writeln!(commands, "{verb}").expect("the watchdog reads its commands");
        watchdog
            .answers
            .read_line(&mut answer)
            .expect("the watchdog answers its commands");
        watchdog.server = answer.trim().parse().ok();
        watchdog.server
    }

    /// Stops the server's threads and waits until the last of them stands still: the signal is sent
    /// to the process and reaches them one after the other, and one of them may be answering.
    pub(super) fn pause(&self) {
        let Some(pid) = self.command("pause") else {
            return;
        };
        let deadline = Instant::now() + START_DEADLINE;
        // Systems without this folder have no simple way to ask.
        while let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) {
            // "23 (name of the thread) T …"
            let runs = |stat: String| {
                !stat
                    .rsplit(')')
                    .next()
                    .unwrap_or_default()
                    .starts_with(" T")
            };
            let mut stats = threads
                .flatten()
                .flat_map(|it| fs::read_to_string(it.path().join("stat")));
            if !stats.any(runs) {
                return;
            }
            assert!(Instant::now() < deadline, "mongod does not stand still");
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Starts the server and waits until it listens.
    pub(super) fn start(&self) -> Result<(), StartFailure> {
        let log = self.folder.join("log");
        let seen = fs::metadata(&log).map_or(0, |it| it.len());
        self.command("start");
        let deadline = Instant::now() + START_DEADLINE;
        // The log tells what a connection cannot: that it is this server which has the port.
        loop {
            let text = fs::read(&log).unwrap_or_default();
            let text = String::from_utf8_lossy(
                text.get(usize::try_from(seen).expect("a short log")..)
                    .unwrap_or_default(),
            );
            // Numbers of log messages stay the same between releases: "Waiting for connections",
            // "Shutting down".
            if text.contains("\"id\":23016,") {
                return Ok(());
            }
            let exited = text.contains("\"id\":23138,");
            if exited || Instant::now() > deadline {
                let last = text
                    .lines()
                    .rev()
                    .find(|line| line.contains("\"s\":\"E\"") || line.contains("\"s\":\"F\""));
                return Err(StartFailure {
                    reason: format!(
                        "mongod {}: {}",
                        if exited {
                            "ended at once"
                        } else {
                            "did not start in time"
                        },
                        last.or_else(|| text.lines().next_back())
                            .unwrap_or("its log is empty")
                    ),
                    port_taken: text.contains("Address already in use"),
                });
            }
            thread::sleep(POLL_INTERVAL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let mut watchdog = self.lock();
        // The end of its input is what the watchdog waits for; when it has ended, all is gone.
        drop(watchdog.commands.take());
        let _ = watchdog.child.wait();
    }
}
