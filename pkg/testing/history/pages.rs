//! Pages of versions and events.

use crate::event::{MapError, NewEvent};
use crate::history::{HistoryPage, VersionRange};
use crate::storage::Storage;
use crate::storage::backend::LogEntry;
use crate::testing::TestStore;
use crate::testing::support::{Counter, open, open_with};

async fn count_to(storage: &Storage, versions: u64) {
    for _ in 0..versions {
        storage
            .update("counters", "c", Counter::incremented)
            .await
            .unwrap();
    }
}

fn versions(page: &HistoryPage<LogEntry>) -> Vec<u64> {
    page.items.iter().map(|entry| entry.version.get()).collect()
}

/// All pages of a range, as versions.
async fn all_pages(storage: &Storage, range: VersionRange) -> Vec<Vec<u64>> {
    let history = storage.history("counters", "c");
    let mut pages = Vec::new();
    let mut next = Some(range);
    while let Some(range) = next {
        let page = history.versions(range).await.unwrap();
        assert_eq!(page.next_start().is_some(), page.next.is_some());
        pages.push(versions(&page));
        next = page.next;
    }
    pages
}

fn run(from: u64, to: u64) -> Vec<u64> {
    (from..=to).collect()
}

fn down(from: u64, to: u64) -> Vec<u64> {
    (to..=from).rev().collect()
}

/// Versions come in pages in either direction, between bounds, and the last page says that it is the
/// last, also when it is full.
pub async fn versions_are_paged_in_both_directions(store: &dyn TestStore) {
    let storage = open(store).await;
    count_to(&storage, 25).await;
    let range = VersionRange::new().with_limit(10);
    assert_eq!(
        all_pages(&storage, range).await,
        [run(1, 10), run(11, 20), run(21, 25)]
    );
    assert_eq!(
        all_pages(&storage, range.with_newest_first(true)).await,
        [down(25, 16), down(15, 6), down(5, 1)]
    );
    let middle = range.with_from(5).with_to(19);
    assert_eq!(all_pages(&storage, middle).await, [run(5, 14), run(15, 19)]);
    assert_eq!(
        all_pages(&storage, middle.with_newest_first(true)).await,
        [down(19, 10), down(9, 5)]
    );
    let full = range.with_to(20);
    assert_eq!(all_pages(&storage, full).await, [run(1, 10), run(11, 20)]);
    assert_eq!(all_pages(&storage, range.with_from(26)).await, [run(1, 0)]);
    assert_eq!(
        all_pages(&storage, range.with_from(9).with_to(8)).await,
        [run(1, 0)]
    );
    assert_eq!(
        all_pages(&storage, range.with_limit(0).with_to(2))
            .await
            .len(),
        2
    );
}

/// The history of a deleted document goes on being there, and goes on with a second creation.
pub async fn a_deleted_document_has_its_history(store: &dyn TestStore) {
    let storage = open(store).await;
    count_to(&storage, 2).await;
    storage.delete("counters", "c").await.unwrap();
    let history = storage.history("counters", "c");
    let page = history.versions(VersionRange::new()).await.unwrap();
    let kinds: Vec<_> = page.items.iter().map(|entry| entry.kind.as_str()).collect();
    assert_eq!(kinds, ["created", "updated", "deleted"]);
    count_to(&storage, 1).await;
    let newest = VersionRange::new().with_newest_first(true).with_limit(1);
    let page = history.versions(newest).await.unwrap();
    assert_eq!(versions(&page), [4]);
    assert_eq!(page.items[0].kind.as_str(), "created");
}

/// Events come in pages of whole versions, in their order within a version in either direction.
pub async fn events_are_paged_with_their_versions(store: &dyn TestStore) {
    let two = |change: &crate::event::ChangeView<'_>| -> Result<Vec<NewEvent>, MapError> {
        let version = change.version().get();
        Ok(vec![
            NewEvent::new("First", version)?,
            NewEvent::new("Second", version)?,
        ])
    };
    let storage = open_with(store, |builder| builder.mapper("counters", two)).await;
    count_to(&storage, 5).await;
    let history = storage.history("counters", "c");
    let seen = |page: HistoryPage<crate::event::Event>| {
        let events = page.items.iter();
        events
            .map(|event| (event.version().get(), event.index()))
            .collect::<Vec<_>>()
    };
    let range = VersionRange::new().with_limit(2);
    let page = history.events(range).await.unwrap();
    let next = page.next.unwrap();
    assert_eq!(seen(page), [(1, 0), (1, 1), (2, 0), (2, 1)]);
    let page = history.events(next).await.unwrap();
    assert_eq!(seen(page), [(3, 0), (3, 1), (4, 0), (4, 1)]);
    let backward = range.with_newest_first(true);
    let page = history.events(backward).await.unwrap();
    assert_eq!(seen(page), [(5, 0), (5, 1), (4, 0), (4, 1)]);
}
