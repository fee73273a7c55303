//! A backend in a database of its own, and short words for units.

use std::time::{Duration, Instant};

use ::mongodb::{Client, Database};
use bson::raw::cstr;
use bson::{DateTime, RawDocument, RawDocumentBuf, doc, rawdoc};
use nodestorage::document::{DocumentKey, Version};
use nodestorage::event::Metadata;
use nodestorage::storage::backend::{
    Backend, CommitFailure, CommitReceipt, Condition, DocumentWrite, EntryKind, Loaded, LogEntry,
    Position, Unit,
};
use nodestorage::storage::mongodb::{MongoBackend, MongoOptions};
use nodestorage::{CollectionSpec, DocumentId};
use uuid::Uuid;

use crate::support::mongod::{FreshDatabase, Mongod};

pub(crate) struct World {
    pub(crate) name: FreshDatabase<'static>,
    pub(crate) client: Client,
    pub(crate) backend: MongoBackend,
}

/// A backend with the collection `users` open.
pub(crate) async fn world() -> World {
    let mongod = Mongod::shared();
    let name = mongod.fresh_database();
    let client = mongod.client().await;
    let backend = MongoBackend::from_client(client.clone(), &name)
        .await
        .unwrap();
    backend
        .open_collection(&CollectionSpec::new("users"))
        .await
        .unwrap();
    World {
        name,
        client,
        backend,
    }
}

/// The URL of the shared server with a database and further options.
pub(crate) fn url(database: &str, options: &str) -> String {
    let url = Mongod::shared().url();
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let host = base.trim_end_matches('/');
    let options: Vec<_> = [query, options]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect();
    format!("{host}/{database}?{}", options.join("&"))
}

impl World {
    pub(crate) fn database(&self) -> Database {
        self.client.database(&self.name)
    }

    /// A second process, as far as the server can tell; `options` go into its URL.
    pub(crate) async fn another(&self, options: &str) -> MongoBackend {
        let url = url(&self.name, options);
        let backend = MongoBackend::connect(&url, MongoOptions::default())
            .await
            .unwrap();
        backend
            .open_collection(&CollectionSpec::new("users"))
            .await
            .unwrap();
        backend
    }

    pub(crate) async fn commit(&self, unit: Unit) -> Result<CommitReceipt, CommitFailure> {
        self.backend.commit(&[unit], soon()).await
    }

    pub(crate) async fn load(&self, id: impl Into<DocumentId>) -> Loaded {
        self.backend.load(&[user(id)]).await.unwrap().pop().unwrap()
    }

    /// The stored bytes, read by the plain driver.
    pub(crate) async fn stored(&self, id: impl Into<DocumentId>) -> Option<RawDocumentBuf> {
        let users = self.database().collection::<RawDocumentBuf>("users");
        let id = bson::Bson::from(id.into());
        users.find_one(doc! { "_id": id }).await.unwrap()
    }

    pub(crate) async fn log_entries(&self) -> u64 {
        let log = self
            .database()
            .collection::<RawDocumentBuf>("nodestorage.log");
        log.count_documents(doc! {}).await.unwrap()
    }
}

pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

pub(crate) fn user(id: impl Into<DocumentId>) -> DocumentKey {
    DocumentKey::new("users", id)
}

pub(crate) fn entry(key: &DocumentKey, version: u64, kind: EntryKind) -> LogEntry {
    LogEntry {
        key: key.clone(),
        version: Version::new(version),
        position: Position::START,
        at: DateTime::from_millis(1_700_000_000_000),
        commit: Uuid::now_v7(),
        kind,
        patch: None,
        after: None,
        events: Vec::new(),
        aggregate_type: "User".into(),
        version_field: "version".into(),
        metadata: Metadata::default(),
    }
}

/// `{ _id, n, version }`
pub(crate) fn content(key: &DocumentKey, n: i32, version: i64) -> RawDocumentBuf {
    let mut document = RawDocumentBuf::new();
    document.append(cstr!("_id"), key.id().to_raw());
    document.append(cstr!("n"), n);
    document.append(cstr!("version"), version);
    document
}

/// Writes a document and its log entry.
pub(crate) fn put(key: &DocumentKey, condition: Condition, version: u64, n: i32) -> Unit {
    let document = content(key, n, version as i64);
    put_document(key, condition, version, &document)
}

pub(crate) fn put_document(
    key: &DocumentKey,
    condition: Condition,
    version: u64,
    document: &RawDocument,
) -> Unit {
    let kind = match condition {
        Condition::Absent => EntryKind::Created,
        _ => EntryKind::Updated,
    };
    Unit {
        writes: vec![DocumentWrite {
            key: key.clone(),
            condition,
            document: Some(document.to_owned()),
        }],
        entries: vec![entry(key, version, kind)],
        ..Unit::default()
    }
}

pub(crate) fn create(key: &DocumentKey, n: i32) -> Unit {
    put(key, Condition::Absent, 1, n)
}

pub(crate) fn update(key: &DocumentKey, from: u64, n: i32) -> Unit {
    put(key, Condition::Version(Version::new(from)), from + 1, n)
}

pub(crate) fn delete(key: &DocumentKey, from: u64) -> Unit {
    Unit {
        writes: vec![DocumentWrite {
            key: key.clone(),
            condition: Condition::Version(Version::new(from)),
            document: None,
        }],
        entries: vec![entry(key, from + 1, EntryKind::Deleted)],
        ..Unit::default()
    }
}

/// The server has one fail point for commands, so its users take turns.
pub(crate) async fn turn() -> tokio::sync::MutexGuard<'static, ()> {
    static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    TURN.lock().await
}

/// Lets the server misbehave for clients of one name, a number of times. Needs a [`turn`].
pub(crate) async fn fail(client: &Client, app: &str, times: i32, data: bson::Document) {
    let mut data = data;
    data.insert("appName", app);
    let command =
        doc! { "configureFailPoint": "failCommand", "mode": { "times": times }, "data": data };
    client.database("admin").run_command(command).await.unwrap();
}

pub(crate) fn odd_documents() -> Vec<(&'static str, RawDocumentBuf)> {
    use bson::oid::ObjectId;
    use bson::{Bson, Decimal128, Timestamp};
    let empty = Timestamp {
        time: 0,
        increment: 0,
    };
    let mut deep = rawdoc! { "leaf": 1 };
    for _ in 0..100 {
        deep = rawdoc! { "d": deep };
    }
    vec![
        (
            "empty timestamp",
            rawdoc! { "_id": 1, "version": 1_i64, "t": empty, "b": 1 },
        ),
        (
            "empty timestamp below",
            rawdoc! { "_id": 1, "version": 1_i64, "n": { "t": empty, "a": [empty] } },
        ),
        (
            "dollar",
            rawdoc! { "_id": 1, "$x": 1, "version": 1_i64, "n": { "$x": { "$y": 1 } } },
        ),
        (
            "dollar and empty timestamp",
            rawdoc! { "_id": 1, "$x": 1, "t": empty, "version": 1_i64 },
        ),
        (
            "dot",
            rawdoc! { "_id": 1, "a.b": 1, "version": 1_i64, "n": { "a.b": 1 } },
        ),
        (
            "dot and empty timestamp",
            rawdoc! { "_id": 1, "a.b": 1, "": empty, "version": 1_i64 },
        ),
        (
            "empty key",
            rawdoc! { "_id": 1, "": 1, "version": 1_i64, "n": { "": { "": 1 } } },
        ),
        (
            "reference",
            rawdoc! { "_id": 1, "n": { "$ref": "a", "$id": 1 }, "version": 1_i64 },
        ),
        (
            "order",
            rawdoc! { "_id": 1, "z": 1, "a": 2, "version": 1_i64, "b": { "y": 1, "x": 2 } },
        ),
        (
            "integers",
            rawdoc! { "_id": 1_i64, "a": 1_i32, "b": 1_i64, "c": 1.0, "version": 1_i32 },
        ),
        (
            "doubles",
            rawdoc! { "_id": 1.0, "nan": f64::NAN, "zero": -0.0, "inf": f64::INFINITY, "version": 1.0 },
        ),
        (
            "types",
            rawdoc! {
                "_id": 1, "version": 1_i64,
                "dec": "1.50".parse::<Decimal128>().unwrap(),
                "date": DateTime::from_millis(-1), "oid": ObjectId::new(),
                "bin": bson::Binary { subtype: bson::spec::BinarySubtype::UserDefined(0x80), bytes: vec![0, 1] },
                "ts": Timestamp { time: 4_000_000_000, increment: 1 },
                "re": bson::Regex { pattern: cstr!("^a").into(), options: cstr!("i").into() },
                "null": Bson::Null.try_into().unwrap_or(bson::RawBson::Null),
                "min": bson::RawBson::MinKey, "max": bson::RawBson::MaxKey,
                "js": bson::RawBson::JavaScriptCode("f()".into()), "undefined": bson::RawBson::Undefined,
                "symbol": bson::RawBson::Symbol("s".into()),
                "doc": {}, "arr": [], "text": "nul \0 and 사용자", "yes": true,
            },
        ),
        ("deep", rawdoc! { "_id": 1, "version": 1_i64, "deep": deep }),
        (
            "arrays",
            rawdoc! { "_id": 1, "version": 1_i64, "a": [[], [[1, { "b": [] }]], {}] },
        ),
    ]
}
