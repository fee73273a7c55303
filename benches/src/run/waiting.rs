//! Ten thousand callers at once, in a process of their own, whose memory is compared with that of a
//! thousand.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::mongo::our_settings;
use super::{Bench, DOCUMENTS, Outcome};
use crate::contender::Checked as _;
use crate::load::Length;
use crate::machine::load_average;
use crate::mongo::{Cache, Database};
use crate::ours::Choice;
use crate::processes::{Job, Side, run_all};
use crate::report::{Figures, Round};
use crate::scenario::Plan;

const CALLERS: [usize; 2] = [1_000, 10_000];

impl Bench {
    pub(super) async fn waiting(&self, plan: &Plan) -> Result<Outcome> {
        let name = "ours";
        let (database, storage) =
            Database::ours(self.server().await?, name, DOCUMENTS, Cache::Warm).await?;
        storage.close().await;
        // The callers begin all at once, and each of their calls counts.
        let length = Length {
            warm_up: Duration::ZERO,
            to_the_last: true,
            ..plan.length
        };
        let mut acknowledged = 0;
        let mut rounds = Vec::new();
        for number in 1..=plan.rounds {
            let mut round = Round {
                load_average: load_average(),
                groups: BTreeMap::new(),
                ..Round::default()
            };
            for callers in CALLERS {
                let job = Job {
                    side: Side::Ours,
                    url: database.url.clone(),
                    database: name.to_owned(),
                    tasks: callers,
                    choice: Choice::any_of(DOCUMENTS),
                    length,
                    seed: number as u64,
                    updates: 0,
                };
                let done = run_all(vec![job]).await?;
                let done = done.into_iter().next().context("one child, one answer")?;
                acknowledged += done.sample.acknowledged;
                database.check(acknowledged).await?;
                let figures = Figures::of(&done.sample).with_peak_memory(done.peak_memory_bytes);
                round.groups.insert(format!("{callers} callers"), figures);
                round.ours = figures;
            }
            eprintln!("  round {number} of {}: {round}", plan.rounds);
            rounds.push(round);
        }
        database.drop().await?;
        Ok(Outcome {
            rounds,
            sides: json!({
                "documents": DOCUMENTS,
                "processes": "one per number of callers, started anew for each round",
                "measured": "from the first call to the last answer, without a warm-up",
                "ours": our_settings(CALLERS[1]),
            }),
        })
    }
}
