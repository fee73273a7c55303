//! What the scenarios on MongoDB share: databases with documents in them, and their checks.

pub(crate) mod cas_loop;
pub(crate) mod event_loop;
pub(crate) mod full_batches;

use std::convert::Infallible;

use anyhow::{Context as _, Result, ensure};
use bson::{Document, doc};
use futures_util::{StreamExt as _, TryStreamExt as _};
use mongodb::options::{Acknowledgment, ClientOptions, WriteConcern};
use mongodb::{Client, Collection};
use nodestorage::{ChangeView, CommitOptions, MapError, NewEvent, Storage};

use crate::contender::Checked;
use crate::server::Server;
use crate::units;
use crate::user::{COLLECTION, StoredUser, User, id};

/// More connections than this cost a server more than they bring it.
const MAX_CONNECTIONS: usize = 100;

/// Makes the events of a change.
pub(crate) type Mapper = fn(&ChangeView<'_>) -> Result<Vec<NewEvent>, MapError>;

/// A database of a side.
#[derive(Debug, Clone)]
pub(crate) struct Database {
    pub(crate) url: String,
    client: Client,
    name: String,
    /// How many documents it began with.
    documents: usize,
    /// Where this side notes what happened, beside the document.
    log: Option<&'static str>,
    /// How many entries the log has per document at the beginning.
    logged_before: usize,
}

pub(crate) fn majority() -> WriteConcern {
    WriteConcern::builder().w(Acknowledgment::Majority).build()
}

/// As many connections as there are tasks, up to a hundred.
pub(crate) fn connections(tasks: usize) -> u32 {
    u32::try_from(tasks.clamp(10, MAX_CONNECTIONS)).unwrap_or(u32::MAX)
}

async fn client(url: &str, tasks: usize) -> Result<Client> {
    let mut options = ClientOptions::parse(url).await?;
    options.max_pool_size = Some(connections(tasks));
    options.write_concern = Some(majority());
    Ok(Client::with_options(options)?)
}

impl Database {
    /// A database for hand-written code, with documents and no log.
    pub(crate) async fn theirs(
        server: &Server,
        name: &str,
        documents: usize,
        tasks: usize,
        log: Option<&'static str>,
    ) -> Result<Self> {
        let database = Self::connect(&server.url(name), name, tasks, documents, log, 0).await?;
        // A scenario that failed may have left it.
        database.drop().await?;
        let users: Vec<StoredUser> = (0..documents).map(StoredUser::new).collect();
        database.users().insert_many(users).await?;
        if let Some(log) = log {
            // A transaction on its way to create a collection would hold up all others.
            let named = database.client.database(name);
            named.create_collection(log).await?;
        }
        Ok(database)
    }

    /// A database of nodestorage, with documents and their log.
    pub(crate) async fn ours(
        server: &Server,
        name: &str,
        documents: usize,
        cache: Cache,
    ) -> Result<(Self, Storage)> {
        let mapper = None;
        Self::ours_mapped(server, name, documents, cache, mapper).await
    }

    /// The same with an event mapper in place of the default one.
    pub(crate) async fn ours_mapped(
        server: &Server,
        name: &str,
        documents: usize,
        cache: Cache,
        mapper: Option<Mapper>,
    ) -> Result<(Self, Storage)> {
        let url = server.url(name);
        let log = Some("nodestorage.log");
        let database = Self::connect(&url, name, 1, documents, log, 1).await?;
        database.drop().await?;
        let commits = match cache {
            Cache::Warm => CommitOptions::default(),
            Cache::Off => CommitOptions::default().without_cache(),
        };
        let mut builder = Storage::builder().url(&url).commits(commits);
        if let Some(mapper) = mapper {
            builder = builder.mapper(COLLECTION, mapper);
        }
        let storage = builder.open().await?;
        units::seed(storage.backend().as_ref(), documents).await?;
        if cache == Cache::Warm {
            see_all(&storage, documents).await?;
        }
        Ok((database, storage))
    }

    /// A database with nothing in it.
    pub(crate) async fn empty(server: &Server, name: &str, tasks: usize) -> Result<Self> {
        let database = Self::existing(&server.url(name), name, tasks).await?;
        database.drop().await?;
        Ok(database)
    }

    /// A database that another process has filled.
    pub(crate) async fn existing(url: &str, name: &str, tasks: usize) -> Result<Self> {
        Self::connect(url, name, tasks, 0, None, 0).await
    }

    async fn connect(
        url: &str,
        name: &str,
        tasks: usize,
        documents: usize,
        log: Option<&'static str>,
        logged_before: usize,
    ) -> Result<Self> {
        Ok(Self {
            url: url.to_owned(),
            client: client(url, tasks).await?,
            name: name.to_owned(),
            documents,
            log,
            logged_before,
        })
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn users(&self) -> Collection<StoredUser> {
        self.client.database(&self.name).collection(COLLECTION)
    }

    pub(crate) fn raw(&self) -> mongodb::Database {
        self.client.database(&self.name)
    }

    pub(crate) async fn drop(&self) -> Result<()> {
        self.raw().drop().await.context("drop of the database")
    }

    /// The one document that a pipeline ends with.
    pub(crate) async fn total(
        &self,
        collection: &str,
        pipeline: Vec<Document>,
    ) -> Result<Document> {
        let collection = self.raw().collection::<Document>(collection);
        let mut found = collection.aggregate(pipeline).allow_disk_use(true).await?;
        Ok(found.try_next().await?.unwrap_or_default())
    }
}

/// A number of a document, of whatever type the server gave it.
pub(crate) fn number(document: &Document, field: &str) -> i64 {
    let value = document.get(field);
    value
        .and_then(|it| it.as_i64().or_else(|| it.as_i32().map(i64::from)))
        .unwrap_or_default()
}

impl Checked for Database {
    async fn check(&self, acknowledged: u64) -> Result<()> {
        let expected = i64::try_from(acknowledged)?;
        let sums = doc! { "$group": {
            "_id": null,
            "counters": { "$sum": "$counter" },
            "versions": { "$sum": { "$subtract": ["$version", 1] } },
            "documents": { "$sum": 1 },
        } };
        let users = self.total(COLLECTION, vec![sums]).await?;
        for (what, expected) in [
            ("counters", expected),
            ("versions", expected),
            ("documents", i64::try_from(self.documents)?),
        ] {
            let found = number(&users, what);
            ensure!(
                found == expected,
                "{what} of the documents come to {found}, {expected} were acknowledged"
            );
        }
        let Some(log) = self.log else { return Ok(()) };
        let entries = self.total(log, vec![doc! { "$count": "entries" }]).await?;
        let found = number(&entries, "entries");
        let expected = expected + i64::try_from(self.documents * self.logged_before)?;
        ensure!(
            found == expected,
            "the log has {found} entries, {expected} were acknowledged"
        );
        Ok(())
    }
}

/// What our side has in memory when a scenario begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cache {
    /// Every document has been seen once, as in a process that has run for a while.
    Warm,
    /// Nothing, ever: each update reads its document.
    Off,
}

/// Runs an update over every document that changes nothing.
async fn see_all(storage: &Storage, documents: usize) -> Result<()> {
    let seeing = (0..documents).map(|index| async move {
        let seen = storage.update(COLLECTION, id(index), |user: Option<User>| {
            Ok::<_, Infallible>(user)
        });
        seen.await.map(|_| ())
    });
    futures_util::stream::iter(seeing)
        .buffer_unordered(512)
        .try_collect::<()>()
        .await
        .context("seeing all documents once")
}
