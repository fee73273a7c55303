//! Two sides on one database, round by round.

use std::future::Future;
use std::sync::Arc;

use anyhow::{Context as _, Result};

use crate::load::{Length, Sample, Worker, closed_loop};
use crate::machine::load_average;
use crate::report::Round;
use crate::scenario::Plan;

/// One side of a comparison.
pub(crate) trait Contender {
    /// Runs for one round.
    fn run(&self, length: Length, round: usize) -> impl Future<Output = Result<Sample>>;

    /// Fails unless the store holds exactly the updates that were acknowledged so far.
    fn check(&self, acknowledged: u64) -> impl Future<Output = Result<()>>;
}

/// What knows how to compare a store with what was acknowledged.
pub(crate) trait Checked {
    fn check(&self, acknowledged: u64) -> impl Future<Output = Result<()>>;
}

/// A worker in tasks of this process.
pub(crate) struct Tasks<W> {
    worker: Arc<W>,
    tasks: usize,
}

impl<W: Worker + Checked> Tasks<W> {
    pub(crate) fn new(worker: W, tasks: usize) -> Self {
        Self {
            worker: Arc::new(worker),
            tasks,
        }
    }
}

impl<W: Worker + Checked> Contender for Tasks<W> {
    async fn run(&self, length: Length, round: usize) -> Result<Sample> {
        closed_loop(&self.worker, self.tasks, length, round as u64).await
    }

    async fn check(&self, acknowledged: u64) -> Result<()> {
        self.worker.check(acknowledged).await
    }
}

/// A contender with the count of what it was acknowledged.
pub(crate) struct Counted<C> {
    name: &'static str,
    contender: C,
    acknowledged: u64,
}

impl<C: Contender> Counted<C> {
    pub(crate) fn theirs(contender: C) -> Self {
        Self {
            name: "the competitor",
            contender,
            acknowledged: 0,
        }
    }

    pub(crate) fn ours(contender: C) -> Self {
        Self {
            name: "nodestorage",
            contender,
            acknowledged: 0,
        }
    }

    /// With updates that were acknowledged before.
    pub(crate) fn having(mut self, acknowledged: u64) -> Self {
        self.acknowledged = acknowledged;
        self
    }

    /// Runs a round and checks what it left in the store.
    pub(crate) async fn round(&mut self, length: Length, round: usize) -> Result<Sample> {
        let sample = self.contender.run(length, round).await;
        let sample = sample.with_context(|| format!("{}, round {round}", self.name))?;
        anyhow::ensure!(
            sample.measured > 0,
            "{}, round {round}: not one operation ended in the measured time",
            self.name
        );
        self.acknowledged += sample.acknowledged;
        let checked = self.contender.check(self.acknowledged).await;
        checked.with_context(|| format!("{} after round {round}", self.name))?;
        Ok(sample)
    }
}

/// Runs both sides in turn, the competitor first.
pub(crate) async fn alternate<T: Contender, O: Contender>(
    mut theirs: Counted<T>,
    mut ours: Counted<O>,
    plan: &Plan,
) -> Result<Vec<Round>> {
    let mut done = Vec::with_capacity(plan.rounds);
    for round in 1..=plan.rounds {
        let load = load_average();
        let their_sample = theirs.round(plan.length, round).await?;
        let our_sample = ours.round(plan.length, round).await?;
        let round = Round::compare(plan.measure, &their_sample, &our_sample, load);
        eprintln!("  round {} of {}: {round}", done.len() + 1, plan.rounds);
        done.push(round);
    }
    Ok(done)
}

/// How many workers do most: `contender` with each of these numbers runs once, and the best one is
/// returned with what each did per second and with the updates acknowledged to all of them.
pub(crate) async fn best_of<C: Contender>(
    candidates: &[usize],
    length: Length,
    contender: impl Fn(usize) -> C,
) -> Result<Best> {
    let mut best = Best::default();
    let mut most = 0.0;
    for workers in candidates {
        let sample = contender(*workers).run(length, 0).await?;
        best.acknowledged += sample.acknowledged;
        let per_second = sample.per_second();
        best.tried.push(format!("{workers}: {per_second:.0}/s"));
        if per_second > most {
            (best.workers, most) = (*workers, per_second);
        }
    }
    eprintln!(
        "  workers tried: {}; best {}",
        best.tried.join(", "),
        best.workers
    );
    Ok(best)
}

/// The result of [`best_of`].
#[derive(Debug, Default)]
pub(crate) struct Best {
    pub(crate) workers: usize,
    pub(crate) tried: Vec<String>,
    pub(crate) acknowledged: u64,
}
