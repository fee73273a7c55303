//! Views folded from a log that is there already.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use nodestorage::Storage;
use serde_json::json;

use super::{Bench, Outcome, folder};
use crate::contender::Checked as _;
use crate::embedded::Store;
use crate::machine::load_average;
use crate::mongo::{Cache, Database};
use crate::ours::{Choice, Ours};
use crate::processes::{Job, Side, run_all};
use crate::rebuilding::CACHE_BYTES;
use crate::report::{Figures, Round, rounded};
use crate::scenario::Plan;

/// The log: each document has a hundred versions, more or less.
const DOCUMENTS: usize = 10_000;
const ENTRIES: u64 = 1_000_000;
const QUICK_ENTRIES: u64 = 100_000;

/// Enough that filling the log takes a minute or two.
const TASKS: usize = 512;

const OURS: &str = "ours";

fn entries(plan: &Plan) -> u64 {
    if plan.quick { QUICK_ENTRIES } else { ENTRIES }
}

pub(super) async fn embedded(plan: &Plan) -> Result<Outcome> {
    let (_folder, path) = folder()?;
    let path = path("store");
    let store = Store::create(&path, DOCUMENTS).await?;
    let storage = store.storage().await?;
    let updates = fill(&storage, entries(plan)).await?;
    store.check(updates).await?;
    storage.close().await;
    store.close().await;
    drop((storage, store));
    let url = format!("embedded://{}", path.display());
    measure(plan, url).await
}

impl Bench {
    pub(super) async fn rebuild_mongodb(&self, plan: &Plan) -> Result<Outcome> {
        let server = self.server().await?;
        let (database, storage) = Database::ours(server, OURS, DOCUMENTS, Cache::Warm).await?;
        let updates = fill(&storage, entries(plan)).await?;
        storage.close().await;
        database.check(updates).await?;
        let measured = measure(plan, database.url.clone()).await;
        database.drop().await?;
        measured
    }
}

/// Updates until the log has so many entries; how many updates that took.
async fn fill(storage: &Storage, entries: u64) -> Result<u64> {
    let worker = Arc::new(Ours {
        storage: storage.clone(),
        choice: Choice::any_of(DOCUMENTS),
        store: (),
    });
    let updates = entries - DOCUMENTS as u64;
    let sample = crate::load::repeat(&worker, TASKS, updates, 1).await?;
    eprintln!("  {updates} updates in {:.0} s", sample.seconds);
    Ok(sample.acknowledged)
}

/// One round, however many were asked for: filling the log takes longer than folding it.
async fn measure(plan: &Plan, url: String) -> Result<Outcome> {
    let entries = entries(plan);
    let load = load_average();
    let job = Job {
        side: Side::Rebuild,
        url,
        database: OURS.to_owned(),
        tasks: 1,
        choice: Choice::any_of(DOCUMENTS),
        length: plan.length,
        seed: 1,
        updates: entries,
    };
    let done = run_all(vec![job]).await?;
    let done = done.into_iter().next().context("one child, one answer")?;
    let figures = Figures::of(&done.sample);
    let late = figures.with_peak_memory(done.peak_memory_bytes);
    let early = figures.with_peak_memory(done.early_peak_bytes);
    let ratio = done.peak_memory_bytes as f64 / done.early_peak_bytes as f64;
    let peak = |it: Figures| it.peak_memory_mib.unwrap_or_default();
    let round = Round {
        ratio: Some(rounded(ratio)),
        ours: late,
        groups: BTreeMap::new(),
        notes: vec![format!(
            "peak memory {} MiB after a third of {entries} entries, {} MiB at the end",
            peak(early),
            peak(late)
        )],
        load_average: load,
        ..Round::default()
    };
    eprintln!("  {round}");
    Ok(Outcome {
        rounds: vec![round],
        sides: json!({
            "documents": DOCUMENTS,
            "entries": entries,
            "events": "of the default mapper, one per entry; the projection reads the merge patch",
            "views": "one per document, in collections of the same store",
            "process": "its own, so that its peak memory is that of this scenario",
            "embedded_cache_bytes": CACHE_BYTES,
            "ours": "Storage::project with default options",
        }),
    })
}
