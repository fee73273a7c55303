//! What the cases share.

use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bson::{RawDocument, RawDocumentBuf};
use serde::{Deserialize, Serialize};

use super::{ForeignWriter, TestStore};
use crate::builder::StorageBuilder;
use crate::document::{DocumentKey, Version};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::backend::{
    Backend, Condition, DocumentWrite, LogEntry, LogRange, Unit, version_of,
};
use crate::storage::{CollectionSpec, Storage};

/// The document of most cases.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct User {
    pub(super) name: String,
    #[serde(default)]
    pub(super) email: String,
}

impl User {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            email: String::new(),
        }
    }
}

/// The document of cases that count.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Counter {
    pub(super) value: i64,
}

impl Counter {
    /// One more than before; the first value is 1.
    pub(super) fn incremented(before: Option<Self>) -> Self {
        Self {
            value: before.map_or(0, |counter| counter.value) + 1,
        }
    }
}

/// A storage with default options on the test store.
///
/// # Panics
/// When it does not open.
pub async fn open(store: &dyn TestStore) -> Storage {
    open_with(store, |builder| builder).await
}

/// A storage on the test store, configured further.
///
/// # Panics
/// When it does not open.
pub async fn open_with(
    store: &dyn TestStore,
    configure: impl FnOnce(StorageBuilder) -> StorageBuilder,
) -> Storage {
    let backend = store.backend().await.expect("the store opens");
    on_backend(backend, configure).await
}

/// A storage on a backend, configured further.
pub(super) async fn on_backend(
    backend: Arc<dyn Backend>,
    configure: impl FnOnce(StorageBuilder) -> StorageBuilder,
) -> Storage {
    configure(Storage::builder().shared_backend(backend))
        .open()
        .await
        .expect("the storage opens")
}

/// The stored document, byte for byte.
///
/// # Panics
/// When the backend fails.
pub async fn load_raw(storage: &Storage, key: &DocumentKey) -> Option<RawDocumentBuf> {
    let loaded = storage.backend().load(std::slice::from_ref(key)).await;
    let [loaded] =
        <[_; 1]>::try_from(loaded.expect("the document loads")).expect("one answer per key");
    loaded.document
}

/// The whole log of a document, oldest first.
pub(super) async fn log_of(storage: &Storage, key: &DocumentKey) -> Vec<LogEntry> {
    read_log(storage.backend().as_ref(), key).await
}

/// As [`log_of`], in pages that are no divisor of anything, so that reading on is exercised too.
pub(super) async fn read_log(backend: &dyn Backend, key: &DocumentKey) -> Vec<LogEntry> {
    const PAGE: usize = 97;
    let mut entries: Vec<LogEntry> = Vec::new();
    loop {
        let range = LogRange {
            key: key.clone(),
            from: entries
                .last()
                .map_or(Version::NONE, |last| last.version.next()),
            to: Version::MAX,
            until: None,
            newest_first: false,
            limit: PAGE,
        };
        let page = backend.read_log(&range).await.expect("the log reads");
        let is_last = page.len() < PAGE;
        entries.extend(page);
        if is_last {
            return entries;
        }
    }
}

/// The store's own foreign writer, or else one that commits documents without log entries through the
/// contract: the state that a foreign writer leaves behind is the same.
///
/// # Panics
/// When the store does not open.
pub async fn foreign(store: &dyn TestStore) -> Foreign<'_> {
    match store.foreign() {
        Some(writer) => Foreign::Own(writer),
        None => {
            let backend = store.backend().await.expect("the store opens");
            Foreign::Contract(contract_writer(backend))
        }
    }
}

/// A foreign writer of one kind or the other.
#[allow(missing_debug_implementations, reason = "writers are opaque")]
#[derive(Clone)]
pub enum Foreign<'a> {
    /// The test store's own.
    Own(&'a dyn ForeignWriter),
    /// One on the contract.
    Contract(ContractWriter),
}

impl Foreign<'_> {
    /// Writes a document as it is.
    ///
    /// # Panics
    /// When the store refuses.
    pub async fn put(&self, key: &DocumentKey, document: RawDocumentBuf) {
        self.writer()
            .put(key, document)
            .await
            .expect("the foreign write succeeds");
    }

    /// Deletes a document.
    ///
    /// # Panics
    /// When the store refuses.
    pub async fn delete(&self, key: &DocumentKey) {
        self.writer()
            .delete(key)
            .await
            .expect("the foreign deletion succeeds");
    }

    fn writer(&self) -> &dyn ForeignWriter {
        match self {
            Self::Own(writer) => *writer,
            Self::Contract(writer) => writer,
        }
    }
}

/// Writes documents without log entries through the backend contract.
#[derive(Debug, Clone)]
pub struct ContractWriter {
    backend: Arc<dyn Backend>,
}

/// A foreign writer on the contract, for stores that no other program can write to.
#[must_use]
pub fn contract_writer(backend: Arc<dyn Backend>) -> ContractWriter {
    ContractWriter { backend }
}

impl ContractWriter {
    async fn write(&self, key: &DocumentKey, document: Option<RawDocumentBuf>) -> Result<()> {
        let spec = CollectionSpec::new(key.collection());
        self.backend.open_collection(&spec).await?;
        let loaded = self.backend.load(std::slice::from_ref(key)).await?;
        let found = loaded.into_iter().next().and_then(|loaded| loaded.document);
        let condition = match found {
            None => Condition::Absent,
            Some(found) => match version_of(&found, "version")? {
                Some(version) => Condition::Version(version),
                None => Condition::Unversioned,
            },
        };
        let unit = Unit {
            writes: vec![DocumentWrite {
                key: key.clone(),
                condition,
                document,
            }],
            ..Unit::default()
        };
        let deadline = Instant::now() + Duration::from_secs(30);
        let committed = self.backend.commit(&[unit], deadline).await;
        committed
            .map(|_| ())
            .map_err(|failure| failure.into_error())
    }
}

#[async_trait]
impl ForeignWriter for ContractWriter {
    async fn put(&self, key: &DocumentKey, document: RawDocumentBuf) -> Result<()> {
        self.write(key, Some(document)).await
    }

    async fn delete(&self, key: &DocumentKey) -> Result<()> {
        self.write(key, None).await
    }

    async fn create_unique_index(&self, _: &str, _: &str) -> Result<()> {
        Err(nobody_else())
    }

    async fn require_field(&self, _: &str, _: &str) -> Result<()> {
        Err(nobody_else())
    }
}

fn nobody_else() -> Error {
    Error::new(
        ErrorKind::Unsupported,
        "no other program can write to this store",
    )
}

/// Polls a condition until it holds.
///
/// # Panics
/// When it does not hold within half a minute, naming it.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begin = Instant::now();
    while !holds().await {
        assert!(
            begin.elapsed() < Duration::from_secs(30),
            "not within half a minute: {what}"
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Prints past the test runner, which keeps what passing tests print.
pub(super) fn print_line(line: &str) {
    // A closed standard error is no reason to fail a case.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Documents compare by their bytes; this shows both where they differ.
#[track_caller]
pub(super) fn assert_same_bytes(found: &RawDocument, expected: &RawDocument) {
    assert!(
        found.as_bytes() == expected.as_bytes(),
        "stored bytes differ\n   found {found:?}\nexpected {expected:?}"
    );
}

/// The error's kind, for results whose value has no `Debug` form.
#[track_caller]
pub(super) fn kind_of<T>(result: Result<T>) -> ErrorKind {
    match result {
        Ok(_) => panic!("expected an error"),
        Err(error) => error.kind(),
    }
}
