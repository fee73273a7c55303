//! Sets each scenario up, runs its rounds, and takes everything down again.

mod aggregates;
mod buses;
mod commands;
mod embedded;
mod mongo;
mod rebuild;
mod waiting;

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use bson::doc;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use self::aggregates::{Read, aggregate_on_embedded};
use crate::broker::Kind;
use crate::contender::{Counted, alternate};
use crate::diff;
use crate::load::Length;
use crate::mongo::Cache;
use crate::report::Round;
use crate::scenario::{Plan, Scenario};
use crate::server::Server;

/// How many documents a store has.
pub(crate) const DOCUMENTS: usize = 20_000;

/// What a run has at hand.
pub(crate) struct Bench {
    length: Length,
    rounds: usize,
    quick: bool,
    /// Started for the first scenario that needs it.
    server: OnceCell<Server>,
}

/// What a scenario leads to.
pub(crate) struct Outcome {
    pub(crate) rounds: Vec<Round>,
    /// How each side was set up.
    pub(crate) sides: Value,
}

impl Bench {
    pub(crate) fn new(length: Length, rounds: usize, quick: bool) -> Self {
        Self {
            length,
            rounds,
            quick,
            server: OnceCell::new(),
        }
    }

    async fn server(&self) -> Result<&Server> {
        let server = self.server.get_or_try_init(Server::start).await;
        server.context("the MongoDB server does not start")
    }

    /// The server's version; `None` if no scenario needed one.
    pub(crate) async fn mongod(&self) -> Option<String> {
        let server = self.server.get()?;
        let client = mongodb::Client::with_uri_str(server.url("admin"))
            .await
            .ok()?;
        let admin = client.database("admin");
        let answer = admin.run_command(doc! { "buildInfo": 1 }).await.ok()?;
        answer.get_str("version").ok().map(String::from)
    }

    pub(crate) async fn run(&self, scenario: &Scenario) -> Result<Outcome> {
        let plan = Plan {
            length: self.length,
            rounds: self.rounds,
            measure: scenario.measure,
            quick: self.quick,
        };
        match scenario.name {
            "random_64" => self.against_loop(&plan, 64, Cache::Warm).await,
            "random_64_uncached" => self.against_loop(&plan, 64, Cache::Off).await,
            "random_256" => self.against_loop(&plan, 256, Cache::Warm).await,
            "random_1024" => self.against_loop(&plan, 1_024, Cache::Warm).await,
            "random_64_events" => self.against_event_loop(&plan, 64).await,
            "full_batches_1024" => self.against_full_batches(&plan, 1_024).await,
            "single_task" => self.against_loop(&plan, 1, Cache::Warm).await,
            "single_task_uncached" => self.against_loop(&plan, 1, Cache::Off).await,
            "hot_document_64" => self.hot_document(&plan, 64).await,
            "two_processes_1000" => self.two_processes(&plan).await,
            "embedded_64_batches" => embedded::against_batches(&plan).await,
            "embedded_64_sqlite" => embedded::against_sqlite(&plan).await,
            "diff_merge_patch" => diff_merge_patch(&plan).await,
            "hot_among_others" => self.hot_among_others(&plan).await,
            "waiting_10000" => self.waiting(&plan).await,
            "relay_keeps_up_redis" => self.relay_keeps_up(&plan, Kind::Redis).await,
            "relay_keeps_up_nats" => self.relay_keeps_up(&plan, Kind::Nats).await,
            "relay_drains_redis" => self.relay_drains(&plan, Kind::Redis).await,
            "relay_drains_nats" => self.relay_drains(&plan, Kind::Nats).await,
            "commit_to_handler_redis" => self.commit_to_handler(&plan, Kind::Redis).await,
            "commit_to_handler_nats" => self.commit_to_handler(&plan, Kind::Nats).await,
            "updates_with_relay_redis" => self.updates_with_relay(&plan, Kind::Redis).await,
            "updates_with_relay_nats" => self.updates_with_relay(&plan, Kind::Nats).await,
            "publish_path_redis" => buses::publish_path_redis(&plan).await,
            "publish_path_nats" => buses::publish_path_nats(&plan).await,
            "stalled_bus_memory" => self.stalled_bus(&plan).await,
            "projection_rebuild_embedded" => rebuild::embedded(&plan).await,
            "projection_rebuild_mongodb" => self.rebuild_mongodb(&plan).await,
            "dispatcher_send_64" => self.dispatcher_send(&plan, 64).await,
            "commands_emmett_64" => self.against_emmett(&plan, 64).await,
            "commands_emmett_16" => self.against_emmett(&plan, 16).await,
            "commands_emmett_1" => self.against_emmett(&plan, 1).await,
            "aggregate_load_10000" => self.aggregate_on_mongodb(&plan, Read::Newest).await,
            "aggregate_at_5000" => self.aggregate_on_mongodb(&plan, Read::Past).await,
            "aggregate_load_10000_embedded" => aggregate_on_embedded(&plan, Read::Newest).await,
            "aggregate_at_5000_embedded" => aggregate_on_embedded(&plan, Read::Past).await,
            other => bail!("{other} is listed and does not exist"),
        }
    }
}

async fn diff_merge_patch(plan: &Plan) -> Result<Outcome> {
    let theirs = Counted::theirs(diff::Theirs::new());
    let ours = Counted::ours(diff::Ours::new()?);
    Ok(Outcome {
        rounds: alternate(theirs, ours, plan).await?,
        sides: json!({
            "document_bytes": diff::document_bytes()?,
            "changed_fields": 3,
            "ours": "Diff::between of raw BSON, and its merge patch",
            "theirs": "json_patch::diff of serde_json::Value",
            "tasks": 1,
        }),
    })
}

/// A folder on disk for the files of a scenario, removed with the value.
fn folder() -> Result<(tempfile::TempDir, impl Fn(&str) -> PathBuf)> {
    let folder = tempfile::Builder::new()
        .prefix("nodestorage-bench-")
        .tempdir()?;
    let path = folder.path().to_owned();
    Ok((folder, move |name: &str| path.join(name)))
}
