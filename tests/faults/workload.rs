//! `nodestorage workload` as a process to kill.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::chance::eventually;
use crate::check::COLLECTION;

/// A running workload. Dropping it kills it.
pub(crate) struct Workload {
    child: Child,
    acks: PathBuf,
    errors: PathBuf,
}

impl Workload {
    /// Starts one whose lines go to the file `acks`. It ends by itself after `at_most`, in case this
    /// process is killed and cannot end it.
    pub(crate) fn start(
        url: &str,
        documents: u64,
        tasks: u64,
        at_most: Duration,
        acks: &Path,
    ) -> Self {
        let errors = acks.with_extension("errors");
        let child = Command::new(env!("CARGO_BIN_EXE_nodestorage"))
            .args(["workload", "--url", url, "--collection", COLLECTION])
            .args(["--documents", &documents.to_string()])
            .args(["--tasks", &tasks.to_string()])
            .args(["--seconds", &at_most.as_secs().to_string()])
            .stdout(File::create(acks).unwrap())
            .stderr(File::create(&errors).unwrap())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            child,
            acks: acks.to_owned(),
            errors,
        }
    }

    /// Kills it as a power cut would.
    pub(crate) fn kill(mut self) {
        let ended = self.child.try_wait().unwrap();
        let errors = fs::read_to_string(&self.errors).unwrap();
        assert!(ended.is_none(), "it had ended before: {errors}");
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn is_running(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            let errors = fs::read_to_string(&self.errors).unwrap();
            panic!("the workload ended with {status}: {errors}");
        }
    }

    /// Bytes that it has printed.
    pub(crate) fn printed(&self) -> u64 {
        fs::metadata(&self.acks).unwrap().len()
    }

    /// Waits for the first acknowledgement behind `from` bytes of what it prints.
    #[track_caller]
    pub(crate) fn await_acknowledgement(&mut self, from: u64) {
        eventually("an acknowledged update", Duration::from_secs(60), || {
            self.is_running();
            self.printed() > from
        });
    }

    /// Waits until it has had an acknowledgement for each of so many documents, behind `from` bytes of
    /// what it prints.
    #[track_caller]
    pub(crate) fn await_each_document(&mut self, documents: u64, from: u64, within: Duration) {
        let from = usize::try_from(from).unwrap();
        eventually("every document was written", within, || {
            self.is_running();
            let text = fs::read(&self.acks).unwrap();
            let text = String::from_utf8_lossy(&text[from..]);
            let lines = text
                .split_inclusive('\n')
                .filter(|line| line.ends_with('\n'));
            let ids: BTreeSet<_> = lines
                .filter_map(|line| line.strip_prefix("ack ")?.split(' ').next())
                .collect();
            ids.len() as u64 == documents
        });
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
