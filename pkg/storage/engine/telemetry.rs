//! What the engine tells about its work: numbers for programs, events for logs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::super::backend::{CommitFailure, PartialCommit};
use super::batch::Batch;

/// What the commit engine of one storage has done since it was opened, and what it is at now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CommitStatistics {
    /// Batches put together.
    pub batches: u64,
    /// Updates in them.
    pub updates: u64,
    /// Documents written by them: fewer than updates, since updates of one document share a write.
    pub writes: u64,
    /// Commits sent to the backend: more than batches where some had to be divided.
    pub commits: u64,
    /// Commits that lost against another writer, as a whole or in part.
    pub conflicts: u64,
    /// Proposals that came too late for the state they were decided on.
    pub misses: u64,
    /// The most batches that were put together while one update waited for its own.
    pub longest_wait: u64,
    /// Updates that wait for a commit now.
    pub queued: u64,
    /// Updates whose commit is under way now.
    pub committing: u64,
}

#[derive(Debug, Default)]
pub(super) struct Telemetry {
    batches: AtomicU64,
    updates: AtomicU64,
    writes: AtomicU64,
    commits: AtomicU64,
    conflicts: AtomicU64,
    misses: AtomicU64,
    longest_wait: AtomicU64,
}

impl Telemetry {
    pub(super) fn statistics(&self, queued: usize, committing: usize) -> CommitStatistics {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CommitStatistics {
            batches: of(&self.batches),
            updates: of(&self.updates),
            writes: of(&self.writes),
            commits: of(&self.commits),
            conflicts: of(&self.conflicts),
            misses: of(&self.misses),
            longest_wait: of(&self.longest_wait),
            queued: queued as u64,
            committing: committing as u64,
        }
    }

    /// A batch was put together.
    pub(super) fn batch(&self, batch: &Batch, number: u64) {
        let now = Instant::now();
        let updates = batch.updates();
        let writes: usize = batch.units.iter().map(|unit| unit.writes.len()).sum();
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.updates.fetch_add(updates as u64, Ordering::Relaxed);
        self.writes.fetch_add(writes as u64, Ordering::Relaxed);
        let tickets = batch.groups.iter().flat_map(|group| &group.tickets);
        for ticket in tickets {
            let passed = (number - 1).saturating_sub(ticket.queued_at);
            self.longest_wait.fetch_max(passed, Ordering::Relaxed);
            meter::queued(now.duration_since(ticket.since));
        }
        for group in &batch.groups {
            meter::lane(group.tickets.len());
        }
        meter::batch(updates);
        tracing::trace!(updates, writes, "batch");
    }

    /// A commit came to its end.
    pub(super) fn committed(
        &self,
        result: &Result<PartialCommit, CommitFailure>,
        units: usize,
        took: Duration,
    ) {
        self.commits.fetch_add(1, Ordering::Relaxed);
        let outcome = match result {
            Ok(committed) if committed.lost.is_empty() => "committed",
            Ok(_) => {
                self.conflicts.fetch_add(1, Ordering::Relaxed);
                "in part"
            }
            Err(CommitFailure::Conflict { .. }) => {
                self.conflicts.fetch_add(1, Ordering::Relaxed);
                "conflict"
            }
            Err(CommitFailure::Refused { .. }) => "refused",
            Err(CommitFailure::Failed(_)) => "failed",
            Err(CommitFailure::Unknown(_)) => "unknown",
        };
        meter::commit(outcome, took);
        match result {
            Ok(committed) => {
                let lost = committed.lost.len();
                tracing::trace!(units, lost, ?took, "committed");
            }
            Err(failure) => tracing::debug!(units, ?took, outcome, %failure, "not committed"),
        }
    }

    /// A proposal was decided on a state that had moved on.
    pub(super) fn missed(&self) {
        self.misses.fetch_add(1, Ordering::Relaxed);
        meter::missed();
    }
}

/// The same for the `metrics` facade, under names that begin with `nodestorage_`.
#[cfg(feature = "metrics")]
pub(crate) mod meter {
    use std::time::Duration;

    use metrics::{counter, histogram};

    pub(crate) fn batch(updates: usize) {
        histogram!("nodestorage_batch_updates").record(updates as f64);
    }

    pub(crate) fn lane(updates: usize) {
        histogram!("nodestorage_lane_updates").record(updates as f64);
    }

    pub(crate) fn queued(waited: Duration) {
        histogram!("nodestorage_queue_seconds").record(waited.as_secs_f64());
    }

    pub(crate) fn commit(outcome: &'static str, took: Duration) {
        counter!("nodestorage_commits_total", "outcome" => outcome).increment(1);
        histogram!("nodestorage_commit_seconds").record(took.as_secs_f64());
    }

    pub(crate) fn missed() {
        counter!("nodestorage_missed_total").increment(1);
    }

    pub(crate) fn attempts(made: u32) {
        histogram!("nodestorage_update_attempts").record(f64::from(made));
    }

    pub(crate) fn conflict() {
        counter!("nodestorage_conflicts_total").increment(1);
    }
}

#[cfg(not(feature = "metrics"))]
pub(crate) mod meter {
    use std::time::Duration;

    pub(crate) fn batch(_: usize) {}
    pub(crate) fn lane(_: usize) {}
    pub(crate) fn queued(_: Duration) {}
    pub(crate) fn commit(_: &'static str, _: Duration) {}
    pub(crate) fn missed() {}
    pub(crate) fn attempts(_: u32) {}
    pub(crate) fn conflict() {}
}
