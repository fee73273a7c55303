//! The closed loop: so many tasks, each beginning its next operation when the last one is done.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use fastrand::Rng;
use serde::{Deserialize, Serialize};

/// How long a side runs in one round.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Length {
    /// Runs before anything is measured, so that connections, caches and batches have settled.
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
    /// Measures on until the last answer: for loads under which a single call may take longer than the
    /// measured time, where only the fast ones would count otherwise.
    pub(crate) to_the_last: bool,
}

/// What one side did in one round.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// Everything that was acknowledged, also during the warm-up and after the end: what must be in the
    /// database afterwards.
    pub(crate) acknowledged: u64,
    /// What was acknowledged in the measured time.
    pub(crate) measured: u64,
    pub(crate) seconds: f64,
    /// Microseconds per operation, sorted; of the operations that ended in the measured time.
    pub(crate) latencies_us: Vec<f32>,
}

impl Sample {
    pub(crate) fn per_second(&self) -> f64 {
        self.measured as f64 / self.seconds
    }

    /// The latency below which this part of the operations stayed.
    pub(crate) fn percentile_us(&self, part: f64) -> f64 {
        let last = self.latencies_us.len().saturating_sub(1);
        let at = (part * last as f64).round() as usize;
        self.latencies_us.get(at).copied().map_or(0.0, f64::from)
    }

    /// Adds what ran beside this in the same time.
    pub(crate) fn merge(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.measured += other.measured;
        self.seconds = self.seconds.max(other.seconds);
        self.latencies_us.extend(other.latencies_us);
        self.latencies_us.sort_unstable_by(f32::total_cmp);
    }
}

pub(crate) fn micros(time: Duration) -> f32 {
    time.as_secs_f32() * 1e6
}

/// One way of doing the work, step by step.
pub(crate) trait Worker: Send + Sync + 'static {
    /// Does one operation; returns how many updates were acknowledged by it.
    fn step(&self, task: usize, rng: &mut Rng) -> impl Future<Output = Result<u64>> + Send;
}

/// Runs a worker in `tasks` tasks. The first error ends it.
pub(crate) async fn closed_loop<W: Worker>(
    worker: &Arc<W>,
    tasks: usize,
    length: Length,
    seed: u64,
) -> Result<Sample> {
    let begin = Instant::now() + length.warm_up;
    let end = begin + length.measured;
    let counts = move |ended| begin <= ended && (length.to_the_last || ended < end);
    let failed = Arc::new(AtomicBool::new(false));
    let mut running = Vec::with_capacity(tasks);
    for task in 0..tasks {
        let (worker, failed) = (Arc::clone(worker), Arc::clone(&failed));
        let mut rng = Rng::with_seed(seed.wrapping_mul(1_000_003).wrapping_add(task as u64));
        running.push(tokio::spawn(async move {
            let mut sample = Sample::default();
            let mut started = Instant::now();
            while started < end && !failed.load(Ordering::Relaxed) {
                let acknowledged = match worker.step(task, &mut rng).await {
                    Ok(acknowledged) => acknowledged,
                    Err(error) => {
                        failed.store(true, Ordering::Relaxed);
                        return Err(error);
                    }
                };
                let ended = Instant::now();
                sample.acknowledged += acknowledged;
                if counts(ended) {
                    sample.measured += acknowledged;
                    sample.latencies_us.push(micros(ended - started));
                }
                started = ended;
            }
            Ok(sample)
        }));
    }
    let mut total = Sample {
        seconds: length.measured.as_secs_f64(),
        ..Sample::default()
    };
    let mut outcome = Ok(());
    for task in running {
        match task.await? {
            Ok(sample) => {
                total.acknowledged += sample.acknowledged;
                total.measured += sample.measured;
                total.latencies_us.extend(sample.latencies_us);
            }
            Err(error) => outcome = outcome.and(Err(error)),
        }
    }
    outcome?;
    if length.to_the_last {
        total.seconds = begin.elapsed().as_secs_f64();
    }
    total.latencies_us.sort_unstable_by(f32::total_cmp);
    Ok(total)
}

/// Does so many operations, in `tasks` tasks; each is timed in none.
pub(crate) async fn repeat<W: Worker>(
    worker: &Arc<W>,
    tasks: usize,
    operations: u64,
    seed: u64,
) -> Result<Sample> {
    let left = Arc::new(AtomicU64::new(operations));
    let begin = Instant::now();
    let mut running = Vec::with_capacity(tasks);
    for task in 0..tasks {
        let (worker, left) = (Arc::clone(worker), Arc::clone(&left));
        let mut rng = Rng::with_seed(seed.wrapping_mul(1_000_003).wrapping_add(task as u64));
        running.push(tokio::spawn(async move {
            let mut acknowledged = 0;
            let take = |it: u64| it.checked_sub(1);
            while left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
                .is_ok()
            {
                acknowledged += worker.step(task, &mut rng).await?;
            }
            anyhow::Ok(acknowledged)
        }));
    }
    let mut sample = Sample::default();
    for task in running {
        sample.acknowledged += task.await??;
    }
    sample.measured = sample.acknowledged;
    sample.seconds = begin.elapsed().as_secs_f64();
    Ok(sample)
}

/// The value in the middle.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_unstable_by(f64::total_cmp);
    let (Some(low), Some(high)) = (
        values.get(values.len().saturating_sub(1) / 2),
        values.get(values.len() / 2),
    ) else {
        return 0.0;
    };
    f64::midpoint(*low, *high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_percentiles() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median([]), 0.0);
        let sample = Sample {
            latencies_us: (0..=100_u8).map(f32::from).collect(),
            ..Sample::default()
        };
        assert_eq!(sample.percentile_us(0.5), 50.0);
        assert_eq!(sample.percentile_us(0.99), 99.0);
        assert_eq!(sample.percentile_us(1.0), 100.0);
    }
}
