//! Views kept elsewhere than in the storage whose log is read.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use super::support::{Listing, Summing, WITHIN, assert_lists, count_up, key, quick, until_state};
use crate::document::DocumentId;
use crate::error::{Error, ErrorKind, Result};
use crate::projection::{
    Build, ProjectionState, ProjectionTarget, StorageTarget, StoredView, ViewWrite,
};
use crate::storage::Query;
use crate::testing::support::{kind_of, on_backend, open};
use crate::testing::{Fault, FaultyBackend, TestStore};

/// Views in memory, which can be out of reach.
#[derive(Debug, Default)]
struct Shelf {
    views: Mutex<HashMap<(Build, DocumentId), StoredView>>,
    down: Mutex<Option<ErrorKind>>,
    /// How many writes are stored of a call that fails.
    half: Mutex<usize>,
}

impl Shelf {
    fn goes_down(&self, kind: ErrorKind, half: usize) {
        *self.half.lock().unwrap() = half;
        *self.down.lock().unwrap() = Some(kind);
    }

    fn comes_back(&self) {
        *self.down.lock().unwrap() = None;
    }

    fn reach(&self) -> Result<()> {
        match *self.down.lock().unwrap() {
            Some(kind) => Err(Error::new(kind, "the shelf is out of reach")),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl ProjectionTarget for Shelf {
    async fn load(&self, build: Build, keys: &[DocumentId]) -> Result<Vec<StoredView>> {
        self.reach()?;
        let views = self.views.lock().unwrap();
        let found = keys.iter().map(|key| views.get(&(build, key.clone())));
        Ok(found.flatten().cloned().collect())
    }

    async fn store(&self, build: Build, writes: &[ViewWrite]) -> Result<()> {
        let fails = self.reach();
        let most = match fails {
            Ok(()) => writes.len(),
            Err(_) => *self.half.lock().unwrap(),
        };
        let mut views = self.views.lock().unwrap();
        for write in writes.iter().take(most) {
            let place = (build, write.view.key.clone());
            if views.get(&place).map(|view| view.revision) != write.expected {
                return Err(Error::new(ErrorKind::VersionConflict, "it has changed"));
            }
            views.insert(place, write.view.clone());
        }
        fails
    }

    async fn clear(&self, build: Build) -> Result<()> {
        self.reach()?;
        self.views.lock().unwrap().retain(|(of, _), _| *of != build);
        Ok(())
    }
}

/// A target of one's own that is out of reach for a while, also in the middle of what it stores, or that
/// does not know what it stored: it is tried again, the state says so, and nothing is lost or counted twice.
pub async fn a_target_that_is_down_loses_nothing(store: &dyn TestStore) {
    let storage = open(store).await;
    let shelf = Arc::new(Shelf::default());
    let options = quick().with_target(shelf.clone());
    let listing = storage.project(Listing::new(), options).unwrap();
    let mut last = 0;
    for (kind, half) in [
        (ErrorKind::Unavailable, 0),
        (ErrorKind::Timeout, 3),
        (ErrorKind::CommitUnknown, 1_000),
    ] {
        shelf.goes_down(kind, half);
        for id in 0..10 {
            last = count_up(&storage, &format!("c{id}"), 3).await;
        }
        let state = until_state(
            &listing,
            "it tries again",
            |state| matches!(state, ProjectionState::Retrying { attempts, .. } if *attempts >= 3),
        )
        .await;
        assert_eq!(state.error().unwrap().kind(), kind);
        shelf.comes_back();
        listing.caught_up(WITHIN).await.unwrap();
        for id in 0..10 {
            assert_lists(&listing, &format!("c{id}"), last).await;
        }
    }
    assert_eq!(last, 9);
    let unsupported = listing.views().query(&Query::new()).await;
    assert_eq!(kind_of(unsupported), ErrorKind::Unsupported);
    until_state(&listing, "it follows", |state| {
        matches!(state, ProjectionState::Following)
    })
    .await;
    listing.shutdown().await;
}

/// A view that somebody else has changed is read again, and what is stored stays right.
pub async fn views_written_elsewhere_are_read_again(store: &dyn TestStore) {
    let storage = open(store).await;
    let shelf = Arc::new(Shelf::default());
    let options = quick().with_target(shelf.clone());
    let listing = storage.project(Listing::new(), options).unwrap();
    for round in 1..=3 {
        let version = count_up(&storage, "a", 2).await;
        listing.wait_for(&key("a"), version, WITHIN).await.unwrap();
        assert_lists(&listing, "a", round * 2).await;
        // As an owner does that was paused and wrote late: the same again, under a new revision.
        let mut views = shelf.views.lock().unwrap();
        for view in views.values_mut() {
            view.revision += 7;
        }
    }
    listing.shutdown().await;
}

/// Views may be kept in another storage.
pub async fn views_may_be_kept_in_another_storage(store: &dyn TestStore) {
    let storage = open(store).await;
    let other = crate::storage::Storage::builder().url("embedded::memory:");
    let other = other.open().await.unwrap();
    let target = Arc::new(StorageTarget::new(&other, "kept"));
    let options = quick().with_target(target);
    let listing = storage.project(Listing::new(), options).unwrap();
    let version = count_up(&storage, "a", 5).await;
    listing.wait_for(&key("a"), version, WITHIN).await.unwrap();
    let kept = other.backend().count("kept_v1", &Query::new()).await;
    assert_eq!(kept.unwrap(), 1);
    assert_lists(&listing, "a", 5).await;
    listing.shutdown().await;
    other.close().await;
}

/// Whatever fails in the store, now and then, is tried again: views come out right.
pub async fn a_store_that_fails_now_and_then_loses_nothing(store: &dyn TestStore) {
    let faulty = FaultyBackend::new(store.backend().await.unwrap());
    let writer = open(store).await;
    let storage = on_backend(faulty.clone(), |builder| builder).await;
    let summing = storage.project(Summing, quick()).unwrap();
    let faults = [
        Fault::Failed(ErrorKind::Unavailable),
        Fault::UnknownWritten,
        Fault::Tail(ErrorKind::Unavailable),
        Fault::UnknownUnwritten,
        Fault::Conflict,
        Fault::Lease(ErrorKind::Unavailable),
        Fault::Tail(ErrorKind::Timeout),
        Fault::UnknownWritten,
    ];
    let mut events = 0;
    for fault in faults {
        faulty.fail_with([fault]);
        for id in ["a", "b"] {
            count_up(&writer, id, 3).await;
            events += 3;
        }
        summing.caught_up(WITHIN).await.unwrap();
        let summary = summing.views().load("all").await.unwrap();
        assert_eq!((summary.events, summary.out_of_order), (events, 0));
    }
    summing.shutdown().await;
}
