//! Views that are built anew beside the ones in use.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::support::{Listing, WITHIN, assert_lists, count_up, key, quick, until_state};
use crate::error::ErrorKind;
use crate::projection::{Build, ProjectionHandle, ProjectionState};
use crate::storage::Query;
use crate::testing::support::{kind_of, open};
use crate::testing::{TestStore, eventually};

/// A rebuild goes on beside the views in use while writers write; readers always get complete views, first
/// the old ones and then the new ones, of which no event is missing.
pub async fn views_are_rebuilt_while_writers_write(store: &dyn TestStore) {
    const WRITERS: u64 = 3;

    let storage = open(store).await;
    for writer in 0..WRITERS {
        count_up(&storage, &format!("c{writer}"), 50).await;
    }
    let listing = storage.project(Listing::new(), quick()).unwrap();
    listing.caught_up(WITHIN).await.unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let writing: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (storage, done) = (storage.clone(), Arc::clone(&done));
            let listing = listing.clone();
            tokio::spawn(async move {
                let id = format!("c{writer}");
                let mut last = 50;
                while !done.load(Ordering::SeqCst) {
                    last = count_up(&storage, &id, 1).await;
                    listing.wait_for(&key(&id), last, WITHIN).await.unwrap();
                    let view = listing.views().load(&id).await.unwrap();
                    assert!(view.seen.len() as u64 >= last, "a reader does not go back");
                }
                last
            })
        })
        .collect();
    let progress = listing.progress_changes();
    for generation in 1..=2 {
        listing.rebuild().await.unwrap();
        let build = listing.views().build().await.unwrap();
        assert_eq!(build, Some(Build::new(1, generation)));
        assert!(progress.has_changed().unwrap(), "progress was shown");
    }
    assert!(listing.progress().is_none(), "{:?}", listing.progress());
    done.store(true, Ordering::SeqCst);
    for (writer, task) in writing.into_iter().enumerate() {
        let last = task.await.unwrap();
        assert_lists(&listing, &format!("c{writer}"), last).await;
    }
    listing.shutdown().await;
}

/// Newer code builds its views beside those of the older, which go on until they are replaced; the older
/// code then stops, its readers get the newer views, and what was replaced is removed.
pub async fn newer_code_takes_over_when_its_views_are_complete(store: &dyn TestStore) {
    let storage = open(store).await;
    let old = storage.project(Listing::version(1), quick()).unwrap();
    let version = count_up(&storage, "a", 3).await;
    old.wait_for(&key("a"), version, WITHIN).await.unwrap();
    let new = storage.project(Listing::version(2), quick()).unwrap();
    let version = count_up(&storage, "a", 3).await;
    eventually("the newer views are in use", async || {
        new.views().build().await.unwrap() == Some(Build::new(2, 0))
    })
    .await;
    new.wait_for(&key("a"), version, WITHIN).await.unwrap();
    assert_lists(&new, "a", 6).await;
    assert_eq!(new.views().load("a").await.unwrap().made_by, 2);
    until_state(
        &old,
        "the older code is superseded",
        |state| matches!(state, ProjectionState::Superseded(build) if *build == Build::new(2, 0)),
    )
    .await;
    assert_eq!(old.views().load("a").await.unwrap().made_by, 2);
    assert_eq!(kind_of(old.rebuild().await), ErrorKind::Unsupported);
    let version = count_up(&storage, "a", 1).await;
    old.wait_for(&key("a"), version, WITHIN).await.unwrap();
    assert_lists(&old, "a", 7).await;
    old.shutdown().await;
    eventually("the older views are removed", async || {
        let all = Query::new();
        let old = storage.backend().count("listing_v1", &all);
        old.await.unwrap() == 0
    })
    .await;
    new.shutdown().await;
}

/// Views of which something waits behind a dead letter do not replace those in use, until that is replayed
/// or discarded.
pub async fn incomplete_views_do_not_take_over(store: &dyn TestStore) {
    let storage = open(store).await;
    let old = storage.project(Listing::version(1), quick()).unwrap();
    let version = count_up(&storage, "a", 4).await;
    old.wait_for(&key("a"), version, WITHIN).await.unwrap();
    let listing = Listing::version(2);
    let trouble = listing.trouble.clone();
    trouble.at("a", 3);
    let new = storage.project(listing, quick()).unwrap();
    let is_blocked = |state: &ProjectionState| matches!(state, ProjectionState::Blocked(_));
    until_state(&new, "the newer build waits", is_blocked).await;
    let view = new.views().load("a").await.unwrap();
    assert_eq!((view.made_by, view.seen.len()), (1, 4));
    let letters = new.dead_letters(None, 10).await.unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].build, Build::new(2, 0));
    trouble.mend("a");
    new.replay(&key("a")).await.unwrap();
    until_state(&new, "the newer build is in use", |state| {
        matches!(state, ProjectionState::Following)
    })
    .await;
    let view = new.views().load("a").await.unwrap();
    assert_eq!((view.made_by, view.seen.len()), (2, 4));
    old.shutdown().await;
    new.shutdown().await;
}

/// A rebuild that is broken off goes on where it was, whoever runs it next.
pub async fn a_rebuild_survives_its_process(store: &dyn TestStore) {
    let storage = open(store).await;
    count_up(&storage, "a", 30).await;
    let first = storage.project(Listing::new(), quick()).unwrap();
    first.caught_up(WITHIN).await.unwrap();
    let rebuilding = {
        let first: ProjectionHandle<Listing> = first.clone();
        tokio::spawn(async move { first.rebuild().await })
    };
    first.shutdown().await;
    // Either it was done before, or it was not begun, or it is broken off.
    let _ = rebuilding.await.unwrap();
    let second = storage.project(Listing::new(), quick()).unwrap();
    let version = count_up(&storage, "a", 1).await;
    second.wait_for(&key("a"), version, WITHIN).await.unwrap();
    match second.rebuild().await {
        Ok(()) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::AlreadyRegistered),
    }
    eventually("a rebuild is in use", async || {
        second.views().build().await.unwrap() > Some(Build::new(1, 0))
    })
    .await;
    assert_lists(&second, "a", 31).await;
    second.shutdown().await;
    tokio::time::timeout(Duration::from_secs(5), second.shutdown())
        .await
        .unwrap();
}
