//! MongoDB: a database of its own for every case, and the driver as the other program.

use std::sync::{Arc, Mutex};

use ::mongodb::options::{Acknowledgment, WriteConcern};
use ::mongodb::{Client, Collection};
use async_trait::async_trait;
use bson::{RawDocumentBuf, rawdoc};
use nodestorage::storage::backend::Backend;
use nodestorage::storage::mongodb::{MongoBackend, MongoOptions};
use nodestorage::testing::{ForeignWriter, TestStore};
use nodestorage::{DocumentKey, Error, ErrorKind, Result};
use tokio::sync::OnceCell;

use crate::support::mongod::{FreshDatabase, Mongod};

/// A database on the server of the tests.
pub(crate) struct MongoStore {
    database: FreshDatabase<'static>,
    opened: Mutex<Vec<Arc<MongoBackend>>>,
    client: OnceCell<Client>,
}

impl MongoStore {
    pub(crate) fn new() -> Self {
        Self {
            database: Mongod::shared().fresh_database(),
            opened: Mutex::default(),
            client: OnceCell::new(),
        }
    }

    async fn database(&self) -> ::mongodb::Database {
        let client = self.client.get_or_init(|| Mongod::shared().client()).await;
        client.database(&self.database)
    }

    async fn collection(&self, name: &str) -> Collection<RawDocumentBuf> {
        let majority = WriteConcern::builder().w(Acknowledgment::Majority).build();
        let options = ::mongodb::options::CollectionOptions::builder()
            .write_concern(majority)
            .build();
        self.database().await.collection_with_options(name, options)
    }
}

/// The URL with the database in its path.
pub(crate) fn with_database(url: &str, database: &str) -> String {
    let hosts = url.find("://").map_or(0, |scheme| scheme + 3);
    let end = url[hosts..]
        .find(['/', '?'])
        .map_or(url.len(), |at| hosts + at);
    let options = url[end..].find('?').map_or("", |at| &url[end + at..]);
    format!("{}/{database}{options}", &url[..end])
}

fn failed(error: ::mongodb::error::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "the foreign writer").with_source(error)
}

#[async_trait]
impl TestStore for MongoStore {
    async fn backend(&self) -> Result<Arc<dyn Backend>> {
        let url = with_database(Mongod::shared().url(), &self.database);
        let backend = Arc::new(MongoBackend::connect(&url, MongoOptions::default()).await?);
        let mut opened = self.opened.lock().expect("no test panics here");
        opened.push(Arc::clone(&backend));
        Ok(backend)
    }

    async fn reopen(&self) -> Result<Arc<dyn Backend>> {
        let opened = std::mem::take(&mut *self.opened.lock().expect("no test panics here"));
        for backend in opened {
            backend.close().await;
        }
        self.backend().await
    }

    fn foreign(&self) -> Option<&dyn ForeignWriter> {
        Some(self)
    }
}

#[async_trait]
impl ForeignWriter for MongoStore {
    async fn put(&self, key: &DocumentKey, document: RawDocumentBuf) -> Result<()> {
        let collection = self.collection(key.collection()).await;
        let replaced = collection.replace_one(bson::doc! { "_id": key.id().clone() }, document);
        replaced.upsert(true).await.map(|_| ()).map_err(failed)
    }

    async fn delete(&self, key: &DocumentKey) -> Result<()> {
        let collection = self.collection(key.collection()).await;
        let deleted = collection.delete_one(bson::doc! { "_id": key.id().clone() });
        deleted.await.map(|_| ()).map_err(failed)
    }

    async fn create_unique_index(&self, collection: &str, path: &str) -> Result<()> {
        let mut keys = RawDocumentBuf::new();
        keys.append(bson::raw::CString::try_from(path).expect("no NUL"), 1);
        let command = rawdoc! {
            "createIndexes": collection,
            "indexes": [{ "key": keys, "name": "foreign", "unique": true }],
            "writeConcern": { "w": "majority" },
        };
        let created = self.database().await.run_raw_command(command).await;
        created.map(|_| ()).map_err(failed)
    }

    async fn require_field(&self, collection: &str, field: &str) -> Result<()> {
        let mut validator = RawDocumentBuf::new();
        let field = bson::raw::CString::try_from(field).expect("no NUL");
        validator.append(field, rawdoc! { "$exists": true });
        let command = rawdoc! {
            "collMod": collection,
            "validator": validator,
            "writeConcern": { "w": "majority" },
        };
        let modified = self.database().await.run_raw_command(command).await;
        modified.map(|_| ()).map_err(failed)
    }
}
