//! The stores that the conformance suite runs on.

mod mongo;

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use nodestorage::Result;
use nodestorage::storage::backend::Backend;
use nodestorage::storage::embedded::{EmbeddedBackend, EmbeddedOptions};
use nodestorage::testing::TestStore;
use tempfile::TempDir;

pub(crate) use mongo::MongoStore;

/// A page cache for stores of a few megabytes: the tests of a run open a hundred of them.
fn options() -> EmbeddedOptions {
    EmbeddedOptions::default().with_cache_bytes(8 << 20)
}

/// An embedded store in a file of its own.
pub(crate) struct FileStore {
    folder: TempDir,
    opened: Mutex<Option<Arc<EmbeddedBackend>>>,
}

impl FileStore {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder for the store"),
            opened: Mutex::default(),
        }
    }

    fn open(&self) -> Result<Arc<EmbeddedBackend>> {
        let path = self.folder.path().join("store");
        EmbeddedBackend::open(path, options()).map(Arc::new)
    }
}

#[async_trait]
impl TestStore for FileStore {
    async fn backend(&self) -> Result<Arc<dyn Backend>> {
        let mut opened = self.opened.lock().expect("no test panics here");
        let backend = match &*opened {
            Some(backend) => Arc::clone(backend),
            None => opened.insert(self.open()?).clone(),
        };
        Ok(backend)
    }

    async fn reopen(&self) -> Result<Arc<dyn Backend>> {
        let before = self.opened.lock().expect("no test panics here").take();
        if let Some(before) = before {
            before.close().await;
        }
        self.backend().await
    }
}

/// An embedded store in memory.
pub(crate) struct MemoryStore(Mutex<Option<Arc<EmbeddedBackend>>>);

impl MemoryStore {
    pub(crate) fn new() -> Self {
        Self(Mutex::default())
    }
}

#[async_trait]
impl TestStore for MemoryStore {
    async fn backend(&self) -> Result<Arc<dyn Backend>> {
        let mut opened = self.0.lock().expect("no test panics here");
        let backend = match &*opened {
            Some(backend) => Arc::clone(backend),
            None => {
                let backend = EmbeddedBackend::in_memory_with(options())?;
                opened.insert(Arc::new(backend)).clone()
            }
        };
        Ok(backend)
    }

    async fn reopen(&self) -> Result<Arc<dyn Backend>> {
        self.backend().await
    }
}
