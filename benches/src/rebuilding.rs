//! A projection that folds a log from its beginning, in a process of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nodestorage::error::BoxError;
use nodestorage::projection::{Projection, ProjectionHandle, ProjectionOptions, ProjectionState};
use nodestorage::storage::embedded::{EmbeddedBackend, EmbeddedOptions};
use nodestorage::{DocumentId, Event, Query, Storage};
use serde::{Deserialize, Serialize};

use crate::load::Sample;
use crate::machine::peak_memory_bytes;
use crate::processes::Job;

/// Memory for pages of the file: filled before the first third, so that what grows after it is not the cache
/// of the store.
pub(crate) const CACHE_BYTES: usize = 16 << 20;

/// What a user did, by the events of their document.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Activity {
    changes: u64,
    counter: i64,
    status: String,
}

struct Activities;

impl Projection for Activities {
    type View = Activity;

    fn name(&self) -> &str {
        "activities"
    }

    fn apply(
        &self,
        _: &DocumentId,
        view: Option<Activity>,
        event: &Event,
    ) -> Result<Option<Activity>, BoxError> {
        let patch = &event.data()["merge_patch"];
        let mut view = view.unwrap_or_default();
        view.changes += 1;
        view.counter = patch["counter"].as_i64().ok_or("no counter")?;
        patch["status"]
            .as_str()
            .ok_or("no status")?
            .clone_into(&mut view.status);
        Ok(Some(view))
    }
}

/// Folds all of the log; how long it took, and the peak memory after a third of it.
pub(crate) async fn rebuild(
    job: &Job,
    ready: impl FnOnce() -> Result<()>,
) -> Result<(Sample, u64)> {
    let builder = match job.url.strip_prefix("embedded://") {
        Some(path) => {
            let options = EmbeddedOptions::default().with_cache_bytes(CACHE_BYTES);
            let backend = EmbeddedBackend::open(path, options)?;
            Storage::builder().shared_backend(Arc::new(backend))
        }
        None => Storage::builder().url(&job.url),
    };
    let storage = builder.open().await?;
    ready()?;
    let began = Instant::now();
    let activities = storage.project(Activities, ProjectionOptions::new())?;
    let early = folded(&activities, job.updates).await?;
    let seconds = began.elapsed().as_secs_f64();
    let views = activities.views().query(&Query::new().allow_scan()).await?;
    let changes: u64 = views.iter().map(|view| view.changes).sum();
    let entries = job.updates;
    ensure!(
        changes == entries,
        "the views have {changes} events, the log {entries}"
    );
    activities.shutdown().await;
    storage.close().await;
    let sample = Sample {
        acknowledged: entries,
        measured: entries,
        seconds,
        latencies_us: Vec::new(),
    };
    Ok((sample, early))
}

/// Waits until all of the log is in the views; the peak memory after a third of it.
async fn folded(activities: &ProjectionHandle<Activities>, entries: u64) -> Result<u64> {
    let mut progress = activities.progress_changes();
    let mut states = activities.state_changes();
    let mut early = 0;
    let mut shown = Instant::now();
    loop {
        if let Some(now) = *progress.borrow_and_update() {
            if early == 0 && now.handled >= entries / 3 {
                early = peak_memory_bytes();
            }
            if shown.elapsed() >= Duration::from_secs(1) {
                shown = Instant::now();
                eprintln!(
                    "  {:.0} %, {:.0} entries/s, peak memory {} MiB",
                    now.fraction() * 100.0,
                    now.per_second(),
                    peak_memory_bytes() >> 20
                );
            }
        }
        match &*states.borrow_and_update() {
            ProjectionState::Following => break,
            ProjectionState::Stopped(error) => bail!("the projection stopped: {error}"),
            _ => {}
        }
        tokio::select! {
            changed = progress.changed() => changed?,
            changed = states.changed() => changed?,
        }
    }
    (early > 0)
        .then_some(early)
        .context("no progress was shown")
}
