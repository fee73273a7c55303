//! What is stored against what was acknowledged.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The collection of all workloads.
pub(crate) const COLLECTION: &str = "w";

/// Runs the command line.
pub(crate) fn nodestorage(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nodestorage"))
        .args(arguments)
        .env_remove("NODESTORAGE_URL")
        .output()
        .unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Compares log and documents with the lines in `acks`.
///
/// # Panics
/// When anything is lost, missing or there twice.
pub(crate) fn check(what: &str, url: &str, acks: &[PathBuf]) {
    let mut arguments = vec!["check", "--url", url, "--collection", COLLECTION, "--acks"];
    arguments.extend(acks.iter().map(|path| path.to_str().unwrap()));
    let output = nodestorage(&arguments);
    let summary = text(&output.stdout);
    // scripts/soak looks for this line.
    eprintln!("faults: {what}: {}", summary.trim_end());
    assert!(output.status.success(), "{what}: {}", text(&output.stderr));
    assert!(
        summary.ends_with("acknowledged, 0 lost, 0 gaps, 0 duplicates\n"),
        "{summary}"
    );
}

/// As [`check`], and replays every document from its log.
pub(crate) fn check_thoroughly(what: &str, url: &str, acks: &[PathBuf]) {
    check(what, url, acks);
    let output = nodestorage(&["doctor", "--url", url, "--collection", COLLECTION]);
    let report = text(&output.stdout);
    assert!(output.status.success(), "{what}: {report}");
}

/// A folder for the lines of workloads.
pub(crate) struct Acks {
    folder: tempfile::TempDir,
    files: Vec<PathBuf>,
}

impl Acks {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            files: Vec::new(),
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// One more file.
    pub(crate) fn next_file(&mut self) -> PathBuf {
        let path = self.folder().join(format!("acks-{}", self.files.len()));
        self.files.push(path.clone());
        path
    }

    pub(crate) fn files(&self) -> &[PathBuf] {
        &self.files
    }
}
