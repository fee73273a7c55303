//! What servers for tests have in common: a process with a folder of its own, ended with the test process.
//!
//! For whoever includes `redis.rs` or `nats.rs`, beside them.

use std::collections::hash_map::RandomState;
use std::ffi::OsString;
use std::hash::BuildHasher;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

const WATCHDOG: &str = include_str!("watchdog.sh");

/// A key or subject prefix that no other test has, in this run or another.
pub(crate) fn fresh_prefix() -> String {
    format!("test-{}", uuid::Uuid::now_v7().simple())
}

/// A server process with the watchdog that owns it and ends it with the test process.
#[derive(Debug)]
pub(crate) struct Process {
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

impl Process {
    /// Starts the watchdog, and no server yet. The arguments are those of the server, which has the folder
    /// that they are made from to itself.
    pub(crate) fn spawn(
        binary: &Path,
        arguments: impl FnOnce(&Path) -> Vec<OsString>,
    ) -> std::io::Result<Self> {
        let name = binary.file_name().unwrap_or_default().to_string_lossy();
        let folder = tempfile::Builder::new()
            .prefix(&format!("nodestorage-{name}-"))
            .tempdir()?;
        let mut child = Command::new("sh")
            .args(["-c", WATCHDOG, "watchdog"])
            .arg(folder.path())
            .arg(binary)
            .args(arguments(folder.path()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // Ctrl-C and a kill of the test's process group must leave the watchdog to do its work.
            .process_group(0)
            .spawn()?;
        let commands = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("its output is a pipe"));
        Ok(Self {
            watchdog: Mutex::new(Watchdog {
                child,
                commands,
                answers,
            }),
            // From here on the watchdog removes the folder: it is still there when we were killed.
            folder: folder.keep(),
        })
    }

    /// What the server has written so far.
    pub(crate) fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// `start`, `stop`, `kill`, `pause` or `resume`.
    pub(crate) fn command(&self, verb: &str) {
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
}

impl Drop for Process {
    fn drop(&mut self) {
        let watchdog = self.watchdog.get_mut();
        let watchdog = watchdog.unwrap_or_else(PoisonError::into_inner);
        // The end of its input is what the watchdog waits for; when it has ended, all is gone.
        drop(watchdog.commands.take());
        let _ = watchdog.child.wait();
    }
}

/// The binary that the environment names, or one on `PATH` or in `.servers/bin`.
pub(crate) fn find_binary(name: &str, variable: &str) -> Option<PathBuf> {
    if let Some(binary) = std::env::var_os(variable).filter(|it| !it.is_empty()) {
        return Some(binary.into());
    }
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join(".servers/bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([installed])
        .map(|folder| folder.join(name))
        .find(|binary| binary.is_file())
}

/// A port that is free now and that no client socket takes meanwhile: they come from 32768 upwards.
pub(crate) fn free_port() -> u16 {
    loop {
        let port =
            15_000 + u16::try_from(RandomState::new().hash_one(()) % 17_000).expect("below 17,000");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
