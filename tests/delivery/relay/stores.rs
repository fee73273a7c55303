use std::sync::{Arc, Mutex};

use nodestorage::storage::backend::Backend;
use nodestorage::storage::embedded::EmbeddedBackend;
use nodestorage::storage::mongodb::{MongoBackend, MongoOptions};

use crate::support::mongod::{FreshDatabase, Mongod};

/// Which kind of store a test runs on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Embedded,
    MongoDb,
}

/// Gives a test its stores.
pub(super) struct Stores {
    kind: Kind,
    databases: Mutex<Vec<FreshDatabase<'static>>>,
}

impl Stores {
    pub(super) fn embedded() -> Self {
        Self::of(Kind::Embedded)
    }

    pub(super) fn mongodb() -> Self {
        Self::of(Kind::MongoDb)
    }

    fn of(kind: Kind) -> Self {
        Self {
            kind,
            databases: Mutex::default(),
        }
    }

    /// A new, empty store.
    pub(super) async fn open(&self) -> Arc<dyn Backend> {
        self.open_twice().await.0
    }

    /// A new store as two processes see it: on MongoDB by a connection each.
    pub(super) async fn open_twice(&self) -> (Arc<dyn Backend>, Arc<dyn Backend>) {
        if self.kind == Kind::Embedded {
            let store: Arc<dyn Backend> = Arc::new(EmbeddedBackend::in_memory().unwrap());
            return (Arc::clone(&store), store);
        }
        let mongod = Mongod::shared();
        let database = mongod.fresh_database();
        let url = mongod.url().replacen("/?", &format!("/{}?", &*database), 1);
        self.databases.lock().unwrap().push(database);
        let connect = || MongoBackend::connect(&url, MongoOptions::default());
        let (one, other) = tokio::join!(connect(), connect());
        (Arc::new(one.unwrap()), Arc::new(other.unwrap()))
    }
}
