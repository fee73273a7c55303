use std::time::Duration;

use bson::DateTime;
use tokio::time::{Instant, timeout};

use super::leader::Leader;
use super::run::Inner;
use super::telemetry::Meter;
use crate::error::Result;
use crate::storage::backend::Position;

/// The most entries that are counted: an index is walked for each, which takes MongoDB about 50
/// milliseconds for so many.
const COUNTED: u64 = 100_000;

/// How often the lag is measured while there is any: a stalled relay shows within seconds, and counting
/// the log costs the store next to nothing.
const MEASURE_EVERY: Duration = Duration::from_secs(5);

/// How far a relay is behind the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RelayLag {
    /// How many log entries are neither confirmed nor set aside, counted up to 100,000. It is near
    /// rather than exact while updates go on: entries that are being committed or published may count
    /// or not. The log only keeps entries, so versions without events count as well.
    pub entries: u64,
    /// How long ago the oldest of them was committed, by the clocks of whoever committed it and of this
    /// relay; zero without any. It grows for as long as a bus does not answer.
    pub age: Duration,
}

/// Measures what the log holds that no relay of this name has passed.
pub(super) async fn measure(inner: &Inner) -> Result<RelayLag> {
    let checkpoint = inner.backend.read_checkpoint(&inner.options.name).await?;
    let stored = checkpoint.map_or(Position::START, |cursor| cursor.position);
    let passed = inner.progress.position().max(stored);
    let backlog = inner.backend.backlog(passed, COUNTED).await?;
    let lag = RelayLag {
        entries: backlog.entries,
        age: backlog.oldest.map_or(Duration::ZERO, |at| since(inner, at)),
    };
    inner.meter.lag(&lag);
    Ok(lag)
}

/// How long ago something was committed; zero if the committer's clock is ahead.
pub(super) fn since(inner: &Inner, at: DateTime) -> Duration {
    let now = inner.options.clock.now();
    let millis = now.timestamp_millis().saturating_sub(at.timestamp_millis());
    Duration::from_millis(u64::try_from(millis).unwrap_or_default())
}

impl Leader<'_> {
    /// Keeps the gauges of the lag up to date while there is any.
    pub(super) async fn measure_if_due(&mut self) {
        let due = self.measure_at.is_some_and(|at| Instant::now() >= at);
        if !Meter::LISTENS || !due {
            return;
        }
        // What cannot be measured now is measured next time; the lease comes first.
        let limit = self.inner.options.lease_ttl / 10;
        if let Ok(Err(error)) = timeout(limit, measure(self.inner)).await {
            tracing::debug!(relay = %self.inner.options.name, %error, "lag is not to be had");
        }
        self.measure_at = Some(Instant::now() + MEASURE_EVERY);
    }

    /// Notes whether there is anything in the log that was not passed.
    pub(super) fn note_lag(&mut self, behind: bool) {
        if !behind {
            self.measure_at = None;
            self.inner.meter.lag(&RelayLag::default());
        } else if self.measure_at.is_none() {
            self.measure_at = Some(Instant::now() + MEASURE_EVERY);
        }
    }
}
