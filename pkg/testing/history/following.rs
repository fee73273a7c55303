//! Following the log without a checkpoint.

use std::collections::HashMap;
use std::task::Poll;

use futures_core::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};

use crate::document::{DocumentKey, Version};
use crate::error::{ErrorKind, Result};
use crate::history::Logged;
use crate::storage::backend::TailFrom;
use crate::testing::TestStore;
use crate::testing::support::{Counter, kind_of, open};

/// Writers that go on while the log is read from its beginning: every entry comes, each once, per
/// document in version order.
pub async fn catching_up_while_writers_write_loses_and_repeats_nothing(store: &dyn TestStore) {
    const WRITERS: u64 = 4;
    const BEFORE: u64 = 30;
    const MEANWHILE: u64 = 60;

    let storage = open(store).await;
    let write = |writer: u64, count: u64| {
        let storage = storage.clone();
        async move {
            for n in 0..count {
                // Documents of its own and one that all share.
                let id = if n % 3 == 0 {
                    "shared".to_owned()
                } else {
                    format!("c{writer}")
                };
                let update = storage.update("counters", id, Counter::incremented);
                update.await.unwrap();
            }
        }
    };
    for writer in 0..WRITERS {
        write(writer, BEFORE).await;
    }
    let writing: Vec<_> = (0..WRITERS)
        .map(|writer| tokio::spawn(write(writer, MEANWHILE)))
        .collect();
    let total = WRITERS * (BEFORE + MEANWHILE);
    let logged: Vec<Logged> = storage
        .log(TailFrom::Beginning)
        .take(total as usize)
        .try_collect()
        .await
        .unwrap();
    for writer in writing {
        writer.await.unwrap();
    }
    let mut newest: HashMap<DocumentKey, Version> = HashMap::new();
    for logged in &logged {
        let last = newest.entry(logged.entry.key.clone()).or_default();
        assert_eq!(logged.entry.version, last.next(), "{}", logged.entry.key);
        *last = logged.entry.version;
    }
    assert_eq!(
        newest.values().map(|version| version.get()).sum::<u64>(),
        total
    );
}

/// The next entry of one document that is above `last`: behind a cursor entries may come again.
async fn next_above(
    log: &mut BoxStream<'static, Result<Logged>>,
    last: impl Into<Version>,
) -> Logged {
    let last = last.into();
    loop {
        let logged = log.try_next().await.unwrap().unwrap();
        if logged.entry.version > last {
            return logged;
        }
    }
}

/// From a cursor on what follows it comes, and nothing is left out; from now on nothing older comes.
pub async fn the_log_is_followed_from_now_and_from_a_cursor(store: &dyn TestStore) {
    let storage = open(store).await;
    let increment = || storage.update("counters", "c", Counter::incremented);
    for _ in 0..3 {
        increment().await.unwrap();
    }
    let mut now = storage.log(TailFrom::Now);
    // Nothing is there yet; this opens the log.
    assert!(futures_util::poll!(now.next()).is_pending());
    let start: Vec<Logged> = storage
        .log(TailFrom::Beginning)
        .take(2)
        .try_collect()
        .await
        .unwrap();
    let cursor = start[1].cursor.clone();
    let mut rest = storage.log(TailFrom::After(cursor));
    let third = next_above(&mut rest, 2).await;
    assert_eq!(third.entry.version, 3);
    // "Now" may take a moment to be established; what comes is the newest of that moment or later.
    let mut seen = None;
    for version in 4..10_000 {
        increment().await.unwrap();
        let next = next_above(&mut rest, version - 1).await;
        assert_eq!(next.entry.version, version);
        if let Poll::Ready(logged) = futures_util::poll!(now.next()) {
            seen = Some(logged.unwrap().unwrap().entry.version);
            break;
        }
    }
    assert!(seen.unwrap() > Version::new(3));
}

/// Closing the storage ends the log with `Closed`, for whoever waits for its next entry too.
pub async fn the_log_of_a_closed_storage_ends(store: &dyn TestStore) {
    let storage = open(store).await;
    storage
        .update("counters", "c", Counter::incremented)
        .await
        .unwrap();
    let mut log = storage.log(TailFrom::Beginning);
    let first = log.try_next().await.unwrap().unwrap();
    assert_eq!(first.entry.version, 1);
    let waiting = tokio::spawn(async move {
        let last = log.try_next().await;
        (last, log.next().await)
    });
    storage.close().await;
    let (last, after) = waiting.await.unwrap();
    assert_eq!(kind_of(last), ErrorKind::Closed);
    assert!(after.is_none());
    let mut late = storage.log(TailFrom::Beginning);
    assert_eq!(kind_of(late.try_next().await), ErrorKind::Closed);
}

/// Closing does not wait for a log that nobody polls, and that log has ended when it is looked at.
pub async fn closing_does_not_wait_for_a_kept_log(store: &dyn TestStore) {
    let storage = open(store).await;
    let mut log = storage.log(TailFrom::Beginning);
    assert!(futures_util::poll!(log.next()).is_pending());
    storage.close().await;
    assert_eq!(kind_of(log.try_next().await), ErrorKind::Closed);
}
