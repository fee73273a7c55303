//! The comparisons on MongoDB.

use anyhow::Result;
use serde_json::{Value, json};

use super::{Bench, DOCUMENTS, Outcome};
use crate::contender::{Contender, Counted, Tasks, alternate, best_of};
use crate::machine::load_average;
use crate::mongo::cas_loop::{BACKOFF, CasLoop};
use crate::mongo::event_loop::{EVENTS, EventLoop};
use crate::mongo::full_batches::{BATCH, FullBatches};
use crate::mongo::{Cache, Database, connections};
use crate::ours::{Choice, Ours};
use crate::processes::{Job, Processes, Side};
use crate::report::Round;
use crate::scenario::Plan;

/// How many workers the full batches are tried with.
const WORKERS: [usize; 3] = [1, 2, 4];
/// The documents that two processes share.
const SHARED: usize = 1_000;
const PROCESSES: usize = 2;

const OURS: &str = "ours";
const THEIRS: &str = "theirs";

/// What is said of our side everywhere.
pub(super) fn our_settings(tasks: usize) -> Value {
    json!({
        "call": "Storage::update of a serde struct, default event mapper, default options",
        "tasks": tasks,
    })
}

fn loop_settings(what: &str, tasks: usize) -> Value {
    json!({
        "call": what,
        "tasks": tasks,
        "max_pool_size": connections(tasks),
        "read_concern": "the driver's default, local",
        "write_concern": "majority",
        "backoff": BACKOFF,
    })
}

const LOOP: &str = "typed find_one by _id, update_one of {_id, version} with $set";

impl Bench {
    pub(super) async fn against_loop(
        &self,
        plan: &Plan,
        tasks: usize,
        cache: Cache,
    ) -> Result<Outcome> {
        let theirs = self.theirs(tasks, None).await?;
        let choice = Choice::any_of(DOCUMENTS);
        let side = Tasks::new(CasLoop::new(theirs.clone(), choice), tasks);
        self.compare(
            plan,
            tasks,
            choice,
            cache,
            theirs,
            Counted::theirs(side),
            loop_settings(LOOP, tasks),
        )
        .await
    }

    pub(super) async fn hot_document(&self, plan: &Plan, tasks: usize) -> Result<Outcome> {
        let theirs = self.theirs(tasks, None).await?;
        let choice = Choice::first();
        let side = Tasks::new(CasLoop::new(theirs.clone(), choice), tasks);
        self.compare(
            plan,
            tasks,
            choice,
            Cache::Warm,
            theirs,
            Counted::theirs(side),
            loop_settings(LOOP, tasks),
        )
        .await
    }

    pub(super) async fn against_event_loop(&self, plan: &Plan, tasks: usize) -> Result<Outcome> {
        let theirs = self.theirs(tasks, Some(EVENTS)).await?;
        let choice = Choice::any_of(DOCUMENTS);
        let side = Tasks::new(EventLoop::new(theirs.clone(), choice), tasks);
        let mut settings = loop_settings(
            "in a transaction: typed find_one by _id, update_one of {_id, version} with $set, \
             insert_one of an event",
            tasks,
        );
        settings["read_concern"] = "snapshot".into();
        let side = Counted::theirs(side);
        self.compare(plan, tasks, choice, Cache::Warm, theirs, side, settings)
            .await
    }

    pub(super) async fn against_full_batches(&self, plan: &Plan, tasks: usize) -> Result<Outcome> {
        let theirs = self.theirs(WORKERS.len(), None).await?;
        let with = |workers| {
            Tasks::new(
                FullBatches::new(theirs.clone(), DOCUMENTS, workers),
                workers,
            )
        };
        let best = best_of(&WORKERS, plan.length, with).await?;
        let side = Counted::theirs(with(best.workers)).having(best.acknowledged);
        let mut settings = loop_settings(
            "typed find of 128 documents by $in, then one update command with 128 statements \
             {q: {_id, version}, u: {$set}}, unordered",
            best.workers,
        );
        settings["backoff"] = "none, because no statement misses".into();
        settings["batch"] = BATCH.into();
        settings["workers_tried"] = best.tried.clone().into();
        settings["workers"] = best.workers.into();
        settings["documents"] =
            "each worker takes documents of its own, so no statement misses".into();
        let choice = Choice::any_of(DOCUMENTS);
        self.compare(
            plan,
            tasks,
            choice,
            Cache::Warm,
            theirs.clone(),
            side,
            settings,
        )
        .await
    }

    pub(super) async fn two_processes(&self, plan: &Plan) -> Result<Outcome> {
        let tasks = 32;
        let server = self.server().await?;
        let theirs = Database::theirs(server, THEIRS, SHARED, tasks, None).await?;
        let (ours, storage) = Database::ours(server, OURS, SHARED, Cache::Off).await?;
        // The storage was only needed to fill the database; the processes have their own.
        storage.close().await;
        let job = |side, database: &Database| Job {
            side,
            url: database.url.clone(),
            database: database.name().to_owned(),
            tasks,
            choice: Choice::any_of(SHARED),
            length: plan.length,
            seed: 0,
            updates: 0,
        };
        let side = |side, database: &Database| Processes {
            job: job(side, database),
            processes: PROCESSES,
            store: database.clone(),
        };
        let rounds = alternate(
            Counted::theirs(side(Side::Theirs, &theirs)),
            Counted::ours(side(Side::Ours, &ours)),
            plan,
        );
        let rounds = rounds.await?;
        theirs.drop().await?;
        ours.drop().await?;
        Ok(Outcome {
            rounds,
            sides: json!({
                "documents": SHARED,
                "processes": PROCESSES,
                "processes_are": "started anew for each round and begin together",
                "ours": our_settings(tasks),
                "theirs": loop_settings(LOOP, tasks),
            }),
        })
    }

    pub(super) async fn hot_among_others(&self, plan: &Plan) -> Result<Outcome> {
        let (callers, others) = (64, 1_000);
        let (database, storage) =
            Database::ours(self.server().await?, OURS, DOCUMENTS, Cache::Warm).await?;
        let side = |choice, tasks| {
            let (storage, store) = (storage.clone(), database.clone());
            Tasks::new(
                Ours {
                    storage,
                    choice,
                    store,
                },
                tasks,
            )
        };
        let hot = side(Choice::first(), callers);
        let rest = side(Choice::others(DOCUMENTS), others);
        let mut acknowledged = 0;
        let mut rounds = Vec::new();
        for number in 1..=plan.rounds {
            let load = load_average();
            let both = tokio::join!(hot.run(plan.length, number), rest.run(plan.length, number));
            let (hot_sample, rest_sample) = (both.0?, both.1?);
            acknowledged += hot_sample.acknowledged + rest_sample.acknowledged;
            hot.check(acknowledged).await?;
            let groups = [("hot", hot_sample), ("others", rest_sample)];
            let round = Round::of_groups(groups, load);
            eprintln!("  round {number} of {}: {round}", plan.rounds);
            rounds.push(round);
        }
        storage.close().await;
        database.drop().await?;
        Ok(Outcome {
            rounds,
            sides: json!({
                "documents": DOCUMENTS,
                "ours": our_settings(callers + others),
                "hot": format!("{callers} tasks on one document"),
                "others": format!("{others} tasks on random ones of the others"),
            }),
        })
    }

    async fn theirs(&self, tasks: usize, log: Option<&'static str>) -> Result<Database> {
        Database::theirs(self.server().await?, THEIRS, DOCUMENTS, tasks, log).await
    }

    /// Runs a competitor beside us on one server, each on a database of its own.
    #[allow(clippy::too_many_arguments)]
    async fn compare<T: Contender>(
        &self,
        plan: &Plan,
        tasks: usize,
        choice: Choice,
        cache: Cache,
        database: Database,
        theirs: Counted<T>,
        their_settings: Value,
    ) -> Result<Outcome> {
        let (store, storage) = Database::ours(self.server().await?, OURS, DOCUMENTS, cache).await?;
        let ours = Ours {
            storage: storage.clone(),
            choice,
            store: store.clone(),
        };
        let rounds = alternate(theirs, Counted::ours(Tasks::new(ours, tasks)), plan).await?;
        storage.close().await;
        store.drop().await?;
        database.drop().await?;
        Ok(Outcome {
            rounds,
            sides: json!({
                "documents": DOCUMENTS,
                "our_cache": format!("{cache:?}").to_lowercase(),
                "ours": our_settings(tasks),
                "theirs": their_settings,
            }),
        })
    }
}
