//! What the suites do not show: how it runs, rather than what comes out.

use std::time::Duration;

use super::{Projection, ProjectionOptions, ProjectionState};
use crate::document::{DocumentId, DocumentKey};
use crate::error::BoxError;
use crate::event::Event;
use crate::storage::Storage;
use crate::testing::eventually;

const WITHIN: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
struct Count {
    events: u64,
}

/// Counts the events of each document, in no hurry.
struct Counting {
    pause: Duration,
}

impl Projection for Counting {
    type View = Count;

    fn name(&self) -> &str {
        "counting"
    }

    fn apply(
        &self,
        _: &DocumentId,
        view: Option<Count>,
        _: &Event,
    ) -> Result<Option<Count>, BoxError> {
        std::thread::sleep(self.pause);
        let events = view.unwrap_or_default().events + 1;
        Ok(Some(Count { events }))
    }
}

fn counting(pause_ms: u64) -> Counting {
    let pause = Duration::from_millis(pause_ms);
    Counting { pause }
}

async fn storage(documents: i64) -> Storage {
    let storage = Storage::builder().url("embedded::memory:");
    let storage = storage.open().await.unwrap();
    for id in 0..documents {
        let created = |_: Option<bson::Document>| bson::doc! { "n": id };
        storage.update("docs", id, created).await.unwrap();
    }
    storage
}

fn quick() -> ProjectionOptions {
    ProjectionOptions::new().with_lease_ttl(Duration::from_millis(300))
}

/// A batch that takes much longer than a lease does not lose it.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_fold_keeps_its_lease() {
    let storage = storage(60).await;
    let first = storage.project(counting(20), quick()).unwrap();
    eventually("the first is at work", async || {
        first.progress().is_some() || matches!(first.state(), ProjectionState::Building(_))
    })
    .await;
    let second = storage.project(counting(0), quick()).unwrap();
    let mut states = second.state_changes();
    first.caught_up(WITHIN).await.unwrap();
    assert!(matches!(
        *states.borrow_and_update(),
        ProjectionState::WaitingForLease
    ));
    assert_eq!(first.views().count(&Default::default()).await.unwrap(), 60);
    second.shutdown().await;
    first.shutdown().await;
}

/// Dropping the last handle ends the tasks and frees the lease.
#[tokio::test(flavor = "multi_thread")]
async fn a_projection_ends_with_its_handle() {
    let storage = storage(3).await;
    let counts = storage.project(counting(0), quick()).unwrap();
    counts.caught_up(WITHIN).await.unwrap();
    let views = counts.views();
    let other = counts.clone();
    drop(counts);
    other.caught_up(WITHIN).await.unwrap();
    drop(other);
    eventually("the lease is free", async || {
        let leased = storage.backend().is_leased("projection/counting/1.0");
        !leased.await.unwrap()
    })
    .await;
    // Views can be read without it.
    assert_eq!(views.load(1).await.unwrap().events, 1);
}

/// The progress of a first build is shown, and gone when it has caught up.
#[tokio::test(flavor = "multi_thread")]
async fn progress_is_shown_while_it_is_made() {
    let storage = storage(700).await;
    let counts = storage.project(counting(1), quick()).unwrap();
    let mut progress = counts.progress_changes();
    let shown = progress.wait_for(Option::is_some).await.unwrap().unwrap();
    assert!(shown.handled > 0 && shown.total == 700, "{shown:?}");
    assert!(shown.fraction() > 0.0 && shown.per_second() > 0.0);
    progress.wait_for(Option::is_none).await.unwrap();
    let last = DocumentKey::new("docs", 699);
    counts.wait_for(&last, 1_u64, WITHIN).await.unwrap();
    eventually("it follows", async || {
        matches!(counts.state(), ProjectionState::Following)
    })
    .await;
    counts.shutdown().await;
}

/// Waiting and reading may be given up at any time.
#[tokio::test(flavor = "multi_thread")]
async fn waiting_may_be_given_up() {
    let storage = storage(1).await;
    let counts = storage.project(counting(0), quick()).unwrap();
    for _ in 0..20 {
        let key = DocumentKey::new("docs", 0);
        let waiting = counts.wait_for(&key, 99_u64, WITHIN);
        let given_up = tokio::time::timeout(Duration::from_millis(1), waiting).await;
        assert!(given_up.is_err());
    }
    counts.caught_up(WITHIN).await.unwrap();
    counts.shutdown().await;
}
