//! Projections that follow the log.

use std::time::Duration;

use super::support::{
    Listing, Summing, WITHIN, assert_lists, count_up, key, quick, rewind, until_state,
};
use crate::document::DocumentId;
use crate::error::{BoxError, ErrorKind};
use crate::event::Event;
use crate::projection::{Projection, ProjectionOptions, ProjectionState};
use crate::storage::backend::LeaseRequest;
use crate::testing::support::{Counter, kind_of, open};
use crate::testing::{TestStore, eventually};

/// While writers write, a projection that begins in the middle folds every event once, those of a document
/// in version order, into views of one document and of all.
pub async fn a_projection_keeps_up_with_writers(store: &dyn TestStore) {
    const WRITERS: usize = 4;
    const EACH: u64 = 60;

    let storage = open(store).await;
    for writer in 0..WRITERS {
        count_up(&storage, &format!("c{writer}"), 5).await;
    }
    let listing = storage.project(Listing::new(), quick()).unwrap();
    let summing = storage.project(Summing, quick()).unwrap();
    let writing: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let storage = storage.clone();
            tokio::spawn(async move { count_up(&storage, &format!("c{writer}"), EACH).await })
        })
        .collect();
    for writer in writing {
        writer.await.unwrap();
    }
    listing.caught_up(WITHIN).await.unwrap();
    summing.caught_up(WITHIN).await.unwrap();
    for writer in 0..WRITERS {
        assert_lists(&listing, &format!("c{writer}"), 5 + EACH).await;
    }
    let summary = summing.views().load("all").await.unwrap();
    assert_eq!(summary.events, (5 + EACH) * WRITERS as u64);
    assert_eq!(summary.out_of_order, 0);
    until_state(&listing, "it follows", |state| {
        matches!(state, ProjectionState::Following)
    })
    .await;
    assert_eq!(listing.lag().await.unwrap().entries, 0);
    listing.shutdown().await;
    summing.shutdown().await;
    assert!(matches!(listing.state(), ProjectionState::Stopped(_)));
}

/// A projection that was shut down goes on behind what it has handled.
pub async fn a_projection_continues_at_its_checkpoint(store: &dyn TestStore) {
    let storage = open(store).await;
    for round in 1..=3 {
        count_up(&storage, "a", 3).await;
        let listing = storage.project(Listing::new(), quick()).unwrap();
        let last = count_up(&storage, "a", 2).await;
        listing.wait_for(&key("a"), last, WITHIN).await.unwrap();
        assert_lists(&listing, "a", round * 5).await;
        listing.shutdown().await;
    }
}

/// What the log hands out again after a crash changes nothing, in views of one document, of several, and
/// where the view is gone by now.
pub async fn what_is_repeated_counts_once(store: &dyn TestStore) {
    let storage = open(store).await;
    count_up(&storage, "a", 2).await;
    let early = {
        let summing = storage.project(Summing, quick()).unwrap();
        let gone = storage.project(Removing, quick()).unwrap();
        summing.caught_up(WITHIN).await.unwrap();
        gone.caught_up(WITHIN).await.unwrap();
        summing.shutdown().await;
        gone.shutdown().await;
        let checkpoint = storage.backend().read_checkpoint("projection/summing/1.0");
        checkpoint.await.unwrap().unwrap()
    };
    for id in ["a", "b", "c"] {
        count_up(&storage, id, 4).await;
    }
    let mut before = None;
    for _ in 0..3 {
        let summing = storage.project(Summing, quick()).unwrap();
        let gone = storage.project(Removing, quick()).unwrap();
        summing.caught_up(WITHIN).await.unwrap();
        gone.caught_up(WITHIN).await.unwrap();
        let summary = summing.views().load("all").await.unwrap();
        assert_eq!((summary.events, summary.out_of_order), (14, 0));
        let kept = gone.views().query(&Removing::all()).await.unwrap();
        let kept: Vec<_> = kept
            .iter()
            .map(|view| (view.id().clone(), view.seen))
            .collect();
        // Versions 4 of b and c have removed them; a was removed at 4 and came back.
        assert_eq!(kept, [(DocumentId::from("a"), 2)]);
        let revision = summary.version();
        assert!(
            before.is_none_or(|before| before == revision),
            "nothing was stored again"
        );
        before = Some(revision);
        summing.shutdown().await;
        gone.shutdown().await;
        rewind(storage.backend().as_ref(), "projection/summing/1.0", &early).await;
        rewind(
            storage.backend().as_ref(),
            "projection/removing/1.0",
            &early,
        )
        .await;
    }
}

/// Counts the changes of a document since it was last divisible by four, and then forgets it.
#[derive(Debug)]
struct Removing;

#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
struct Kept {
    seen: u64,
}

impl Removing {
    fn all() -> crate::storage::Query {
        crate::storage::Query::new().allow_scan()
    }
}

impl Projection for Removing {
    type View = Kept;

    fn name(&self) -> &str {
        "removing"
    }

    fn apply(
        &self,
        _: &DocumentId,
        view: Option<Kept>,
        event: &Event,
    ) -> Result<Option<Kept>, BoxError> {
        if event.version().get().is_multiple_of(4) {
            return Ok(None);
        }
        let seen = view.map_or(0, |view| view.seen) + 1;
        Ok(Some(Kept { seen }))
    }
}

/// Of two projections of one name one runs; the other takes over when it is shut down, and the one that
/// waits knows how far the other is.
pub async fn one_projection_of_a_name_runs(store: &dyn TestStore) {
    let storage = open(store).await;
    let first = storage.project(Listing::new(), quick()).unwrap();
    let version = count_up(&storage, "a", 3).await;
    first.wait_for(&key("a"), version, WITHIN).await.unwrap();
    let second = storage.project(Listing::new(), quick()).unwrap();
    until_state(&second, "the second waits", |state| {
        matches!(state, ProjectionState::WaitingForLease)
    })
    .await;
    let version = count_up(&storage, "a", 3).await;
    second.wait_for(&key("a"), version, WITHIN).await.unwrap();
    assert_lists(&second, "a", 6).await;
    assert_eq!(kind_of(second.replay(&key("a")).await), ErrorKind::InUse);
    first.shutdown().await;
    let version = count_up(&storage, "a", 3).await;
    second.wait_for(&key("a"), version, WITHIN).await.unwrap();
    assert_lists(&second, "a", 9).await;
    second.shutdown().await;
}

/// A projection whose owner died is taken over when its lease has ended.
pub async fn a_dead_owner_is_replaced(store: &dyn TestStore) {
    let storage = open(store).await;
    let request = LeaseRequest {
        name: "projection/listing/1.0".to_owned(),
        owner: "dead".to_owned(),
        ttl: Duration::from_millis(500),
    };
    storage.backend().acquire_lease(&request).await.unwrap();
    let listing = storage.project(Listing::new(), quick()).unwrap();
    let version = count_up(&storage, "a", 3).await;
    listing.wait_for(&key("a"), version, WITHIN).await.unwrap();
    assert_lists(&listing, "a", 3).await;
    listing.shutdown().await;
}

/// Who has written waits until the views have it; what is not written yet is waited for in vain.
pub async fn ones_own_writes_are_read(store: &dyn TestStore) {
    let storage = open(store).await;
    let listing = storage.project(Listing::new(), quick()).unwrap();
    for round in 1..=20 {
        let change = storage
            .update("counters", "a", Counter::incremented)
            .await
            .unwrap();
        let waiting = listing.wait_for(change.document(), change.version(), WITHIN);
        waiting.await.unwrap();
        assert_lists(&listing, "a", round).await;
    }
    // What is not committed yet is waited for as well.
    let soon = Duration::from_millis(300);
    listing.caught_up(WITHIN).await.unwrap();
    listing.wait_for(&key("a"), 3_u64, soon).await.unwrap();
    let waiting = listing.wait_for(&key("a"), 21_u64, soon).await;
    assert_eq!(kind_of(waiting), ErrorKind::Timeout);
    let later = {
        let listing = listing.clone();
        tokio::spawn(async move { listing.wait_for(&key("a"), 22_u64, WITHIN).await })
    };
    count_up(&storage, "a", 2).await;
    later.await.unwrap().unwrap();
    listing.shutdown().await;
    let version = count_up(&storage, "a", 1).await;
    let waiting = listing.wait_for(&key("a"), version, soon).await;
    assert_eq!(kind_of(waiting), ErrorKind::Closed);
    // Nobody runs it: it is not known to be closed, so time is what ends the waiting.
    let request = LeaseRequest {
        name: "projection/listing/1.0".to_owned(),
        owner: "idle".to_owned(),
        ttl: WITHIN,
    };
    storage.backend().acquire_lease(&request).await.unwrap();
    let listing = storage.project(Listing::new(), quick()).unwrap();
    let waiting = listing.wait_for(&key("a"), version, soon).await;
    assert_eq!(kind_of(waiting), ErrorKind::Timeout);
    listing.shutdown().await;
}

/// Bad names and options are refused, and a closed storage runs nothing.
pub async fn what_makes_no_sense_is_refused(store: &dyn TestStore) {
    #[derive(Debug)]
    struct Named(String, u32);
    impl Projection for Named {
        type View = super::support::Versions;
        fn name(&self) -> &str {
            &self.0
        }
        fn version(&self) -> u32 {
            self.1
        }
        fn apply(
            &self,
            _: &DocumentId,
            view: Option<Self::View>,
            _: &Event,
        ) -> Result<Option<Self::View>, BoxError> {
            Ok(view)
        }
    }
    let storage = open(store).await;
    for name in ["", "a b", "a/b", "사용자", &"x".repeat(129)] {
        let refused = storage.project(Named(name.to_owned(), 1), quick());
        assert_eq!(kind_of(refused), ErrorKind::InvalidName, "{name:?}");
    }
    let refused = storage.project(Named("a".to_owned(), 0), quick());
    assert_eq!(kind_of(refused), ErrorKind::InvalidConfig);
    let nothing = Duration::ZERO;
    for options in [
        quick().with_lease_ttl(nothing),
        quick().with_retries(0, Duration::from_secs(1), Duration::from_secs(1)),
        quick().with_retries(1, nothing, Duration::from_secs(1)),
        quick().with_max_parked(0),
        quick().with_cached_views(0),
    ] {
        let refused = storage.project(Named("a".to_owned(), 1), options);
        assert_eq!(kind_of(refused), ErrorKind::InvalidConfig);
    }
    let running = storage.project(Listing::new(), quick()).unwrap();
    storage.close().await;
    let refused = storage.project(Listing::new(), ProjectionOptions::new());
    assert_eq!(kind_of(refused), ErrorKind::Closed);
    eventually("the projection ends with its storage", async || {
        matches!(running.state(), ProjectionState::Stopped(_))
    })
    .await;
    running.shutdown().await;
}

/// More views than fit in memory come to the same, and so does a projection whose views all go at once.
pub async fn views_that_do_not_fit_in_memory_are_read_again(store: &dyn TestStore) {
    let storage = open(store).await;
    for round in 0..3 {
        for id in 0..30 {
            count_up(&storage, &format!("c{id}"), 1 + round % 2).await;
        }
    }
    let few = quick().with_cached_views(4);
    let listing = storage.project(Listing::new(), few).unwrap();
    listing.caught_up(WITHIN).await.unwrap();
    for id in 0..30 {
        assert_lists(&listing, &format!("c{id}"), 4).await;
    }
    for id in 0..30 {
        count_up(&storage, &format!("c{id}"), 1).await;
    }
    listing.caught_up(WITHIN).await.unwrap();
    for id in 0..30 {
        assert_lists(&listing, &format!("c{id}"), 5).await;
    }
    assert_eq!(
        listing.views().count(&Default::default()).await.unwrap(),
        30
    );
    listing.shutdown().await;
}
