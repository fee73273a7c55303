//! `nodestorage workload` with a number of updates to make, however often it is killed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::check::COLLECTION;

/// Updates that a writer has under way at a time.
const TASKS: u64 = 8;

/// One writer after the other, until all updates are made. Dropping it kills it; if this process is killed and cannot,
/// the writer ends by itself when it has made its updates or missed its store for two minutes.
pub(crate) struct Writer {
    child: Child,
    store: String,
    documents: u64,
    /// Which this one's files are called after.
    name: String,
    folder: PathBuf,
    files: Vec<PathBuf>,
    /// Updates to be made in all.
    updates: usize,
    /// Made before the newest file.
    before: usize,
}

impl Writer {
    pub(crate) fn start(
        store: &str,
        documents: u64,
        updates: usize,
        folder: &Path,
        name: &str,
    ) -> Self {
        let file = folder.join(format!("acks-{name}-0"));
        Self {
            child: spawn(store, documents, updates, &file),
            store: store.to_owned(),
            documents,
            name: name.to_owned(),
            folder: folder.to_owned(),
            files: vec![file],
            updates,
            before: 0,
        }
    }

    pub(crate) fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Updates whose outcome it has learnt.
    pub(crate) fn made(&self) -> usize {
        self.before + self.files.last().map_or(0, |file| lines(file))
    }

    /// Whether it has made all its updates.
    pub(crate) fn has_finished(&mut self) -> bool {
        let Some(status) = self.child.try_wait().unwrap() else {
            return false;
        };
        if !status.success() {
            let errors = self.files.last().map(|file| errors(file));
            let errors = errors.map(|file| fs::read_to_string(file).unwrap());
            panic!("a writer ended with {status}: {errors:?}");
        }
        true
    }

    /// Kills it and starts another one for what is left; whether there was something left.
    pub(crate) fn replace(&mut self) -> bool {
        if self.has_finished() {
            return false;
        }
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.before = self.made();
        let left = self.updates.saturating_sub(self.before);
        let file = format!("acks-{}-{}", self.name, self.files.len());
        let file = self.folder.join(file);
        // One that had made everything and was about to end still gets a successor, which ends at once.
        self.child = spawn(&self.store, self.documents, left, &file);
        self.files.push(file);
        true
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(store: &str, documents: u64, updates: usize, acks: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_nodestorage"))
        .args(["workload", "--url", store, "--collection", COLLECTION])
        .args(["--documents", &documents.to_string()])
        .args(["--tasks", &TASKS.to_string()])
        .args(["--updates", &updates.to_string()])
        .env_remove("NODESTORAGE_URL")
        .stdout(File::create(acks).unwrap())
        .stderr(File::create(errors(acks)).unwrap())
        .stdin(Stdio::null())
        .spawn()
        .unwrap()
}

fn errors(acks: &Path) -> PathBuf {
    acks.with_extension("errors")
}

fn lines(file: &Path) -> usize {
    let text = fs::read(file).unwrap();
    text.iter().filter(|byte| **byte == b'\n').count()
}
