//! Following the whole log.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;

use super::support::{change, commit, creation, opened};
use crate::document::DocumentKey;
use crate::error::Result;
use crate::storage::backend::{Backend, Cursor, LogEntry, TailFrom, TailItem};
use crate::testing::TestStore;

type Tail = BoxStream<'static, Result<TailItem>>;

async fn next(tail: &mut Tail) -> TailItem {
    let item = tokio::time::timeout(Duration::from_secs(30), tail.next()).await;
    item.expect("something within half a minute")
        .expect("a tail does not end")
        .unwrap()
}

async fn next_entry(tail: &mut Tail) -> (LogEntry, Cursor) {
    loop {
        if let TailItem::Entry { entry, cursor } = next(tail).await {
            return (*entry, cursor);
        }
    }
}

/// Entries up to where there is nothing more at the moment.
async fn until_idle(tail: &mut Tail) -> (Vec<LogEntry>, Cursor) {
    let mut entries = Vec::new();
    loop {
        match next(tail).await {
            TailItem::Entry { entry, .. } => entries.push(*entry),
            TailItem::Idle { cursor } => return (entries, cursor),
        }
    }
}

fn names(entries: &[LogEntry]) -> Vec<String> {
    entries
        .iter()
        .map(|entry| format!("{}@{}", entry.key, entry.version))
        .collect()
}

async fn changes(backend: &dyn Backend, id: i32, versions: std::ops::Range<u64>) {
    for from in versions {
        let unit = if from == 0 {
            creation(id)
        } else {
            change(id, from)
        };
        commit(backend, &[unit]).await.unwrap();
    }
}

/// From the beginning, everything comes, then that there is nothing more, then what is committed after.
pub async fn the_log_is_followed_from_the_beginning(store: &dyn TestStore) {
    let backend = opened(store).await;
    let mut empty = backend.tail(TailFrom::Beginning);
    assert!(until_idle(&mut empty).await.0.is_empty());
    changes(backend.as_ref(), 1, 0..3).await;
    commit(backend.as_ref(), &[creation(2), creation(3)])
        .await
        .unwrap();
    let mut tail = backend.tail(TailFrom::Beginning);
    let (seen, _) = until_idle(&mut tail).await;
    assert_eq!(
        names(&seen),
        [
            "things/1@1",
            "things/1@2",
            "things/1@3",
            "things/2@1",
            "things/3@1"
        ]
    );
    changes(backend.as_ref(), 2, 1..2).await;
    assert_eq!(names(&[next_entry(&mut tail).await.0]), ["things/2@2"]);
    assert_eq!(names(&[next_entry(&mut empty).await.0]), ["things/1@1"]);
}

/// From now, only what is committed after the call comes.
pub async fn the_log_is_followed_from_now(store: &dyn TestStore) {
    let backend = opened(store).await;
    changes(backend.as_ref(), 1, 0..2).await;
    let mut tail = backend.tail(TailFrom::Now);
    // The first item says that following has begun.
    let (seen, _) = until_idle(&mut tail).await;
    assert!(seen.is_empty(), "{:?}", names(&seen));
    changes(backend.as_ref(), 1, 2..4).await;
    for version in [3, 4] {
        assert_eq!(next_entry(&mut tail).await.0.version, version);
    }
}

/// After a cursor, be it of an entry or of an idle moment, nothing is left out; what repeats is what was
/// there before.
pub async fn the_log_is_followed_from_a_cursor(store: &dyn TestStore) {
    let backend = opened(store).await;
    changes(backend.as_ref(), 1, 0..10).await;
    commit(backend.as_ref(), &[creation(2), creation(3), creation(4)])
        .await
        .unwrap();
    let mut tail = backend.tail(TailFrom::Beginning);
    let mut all = Vec::new();
    let mut cursors = Vec::new();
    let idle = loop {
        match next(&mut tail).await {
            TailItem::Entry { entry, cursor } => {
                all.push(*entry);
                cursors.push(cursor);
            }
            TailItem::Idle { cursor } => break cursor,
        }
    };
    assert_eq!(all.len(), 13);
    for (number, cursor) in cursors.into_iter().enumerate() {
        let (rest, _) = until_idle(&mut backend.tail(TailFrom::After(cursor))).await;
        let (all, rest) = (names(&all), names(&rest));
        assert!(
            rest.ends_with(&all[number + 1..]),
            "after {}: {rest:?}",
            all[number]
        );
    }
    changes(backend.as_ref(), 2, 1..3).await;
    let mut resumed = backend.tail(TailFrom::After(idle));
    let mut seen = Vec::new();
    while seen.last().is_none_or(|last: &String| last != "things/2@3") {
        seen.push(names(&[next_entry(&mut resumed).await.0]).remove(0));
    }
    assert!(
        seen.ends_with(&["things/2@2".to_owned(), "things/2@3".to_owned()]),
        "{seen:?}"
    );
}

/// While writers write, a tail from the beginning, and one that is restarted from its cursor again and
/// again, see every version of every document in order and leave none out.
pub async fn following_while_writers_write_leaves_nothing_out(store: &dyn TestStore) {
    const DOCUMENTS: i32 = 6;
    const VERSIONS: u64 = 25;
    let backend = opened(store).await;
    changes(backend.as_ref(), 0, 0..5).await;
    let writers: Vec<_> = (0..DOCUMENTS)
        .map(|id| {
            let backend = backend.clone();
            let from = if id == 0 { 5 } else { 0 };
            tokio::spawn(async move { changes(backend.as_ref(), id, from..VERSIONS).await })
        })
        .collect();
    let mut last: HashMap<DocumentKey, u64> = HashMap::new();
    let mut tail = backend.tail(TailFrom::Beginning);
    let mut seen = 0;
    while last.values().sum::<u64>() < DOCUMENTS as u64 * VERSIONS {
        let (entry, cursor) = next_entry(&mut tail).await;
        let version = last.entry(entry.key.clone()).or_default();
        assert!(
            entry.version.get() <= *version + 1,
            "{} after {version}: a gap",
            names(&[entry]).concat()
        );
        *version = entry.version.get().max(*version);
        seen += 1;
        if seen % 40 == 0 {
            tail = backend.tail(TailFrom::After(cursor));
        }
    }
    for writer in writers {
        writer.await.unwrap();
    }
}

/// A tail that nobody polls holds up no commit, and goes on where it was.
pub async fn a_tail_that_is_not_polled_holds_up_nobody(store: &dyn TestStore) {
    let backend = opened(store).await;
    let mut idle = backend.tail(TailFrom::Beginning);
    changes(backend.as_ref(), 1, 0..2).await;
    assert_eq!(next_entry(&mut idle).await.0.version, 1);
    changes(backend.as_ref(), 1, 2..200).await;
    for version in 2..=200 {
        assert_eq!(next_entry(&mut idle).await.0.version, version);
    }
}
