//! Many updates under a relay whose bus never answers, in a process of their own.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::super::mongo::our_settings;
use super::super::{Bench, DOCUMENTS, Outcome};
use super::OURS;
use crate::contender::Checked as _;
use crate::machine::load_average;
use crate::mongo::{Cache, Database};
use crate::ours::Choice;
use crate::processes::{Job, Side, run_all};
use crate::report::{Figures, Round, rounded};
use crate::scenario::Plan;

/// Enough that the updates take a minute rather than many.
const TASKS: usize = 512;
const UPDATES: u64 = 1_000_000;
const QUICK_UPDATES: u64 = 50_000;

impl Bench {
    /// One round, however many were asked for: memory is not a matter of luck.
    pub(in super::super) async fn stalled_bus(&self, plan: &Plan) -> Result<Outcome> {
        let server = self.server().await?;
        let (database, storage) = Database::ours(server, OURS, DOCUMENTS, Cache::Warm).await?;
        storage.close().await;
        let updates = if plan.quick { QUICK_UPDATES } else { UPDATES };
        let load = load_average();
        let job = Job {
            side: Side::Stalled,
            url: database.url.clone(),
            database: OURS.to_owned(),
            tasks: TASKS,
            choice: Choice::any_of(DOCUMENTS),
            length: plan.length,
            seed: 1,
            updates,
        };
        let done = run_all(vec![job]).await?;
        let done = done.into_iter().next().context("one child, one answer")?;
        database.check(done.sample.acknowledged).await?;
        database.drop().await?;
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
                "peak memory {} MiB after a tenth of {updates} updates, {} MiB at the end",
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
                "updates": updates,
                "process": "its own, so that its peak memory is that of this scenario",
                "bus": "takes a batch and never answers",
                "ours": our_settings(TASKS),
            }),
        })
    }
}
