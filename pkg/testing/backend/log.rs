//! Reading one document's log.

use serde_json::json;

use super::support::{change, commit, creation, entry, key, opened};
use crate::document::{DocumentKey, Version};
use crate::event::{EventId, Metadata};
use crate::storage::backend::{
    Backend, EntryKind, LogEntry, LogRange, LoggedData, LoggedEvent, Position, Unit,
};
use crate::testing::TestStore;
use crate::testing::support::read_log;

fn range(id: i32) -> LogRange {
    LogRange {
        key: key(id),
        from: Version::NONE,
        to: Version::MAX,
        until: None,
        newest_first: false,
        limit: 1_000,
    }
}

async fn read(backend: &dyn Backend, range: LogRange) -> Vec<u64> {
    let entries = backend.read_log(&range).await.unwrap();
    assert!(entries.iter().all(|entry| entry.key == range.key));
    entries.iter().map(|entry| entry.version.get()).collect()
}

/// Ranges of versions, both directions, limits and upper positions are answered as asked for.
pub async fn ranges_of_the_log_are_read(store: &dyn TestStore) {
    let backend = opened(store).await;
    let backend = backend.as_ref();
    commit(backend, &[creation(1), creation(2)]).await.unwrap();
    for from in 1..20 {
        commit(backend, &[change(1, from)]).await.unwrap();
    }
    let up = |versions: std::ops::RangeInclusive<u64>| versions.collect::<Vec<_>>();
    let down = |versions: std::ops::RangeInclusive<u64>| versions.rev().collect::<Vec<_>>();
    let between = |from: u64, to: u64| LogRange {
        from: Version::new(from),
        to: Version::new(to),
        ..range(1)
    };
    let newest_first = |range: LogRange| LogRange {
        newest_first: true,
        ..range
    };
    let first = |limit: usize, range: LogRange| LogRange { limit, ..range };
    assert_eq!(read(backend, range(1)).await, up(1..=20));
    assert_eq!(read(backend, newest_first(range(1))).await, down(1..=20));
    assert_eq!(read(backend, between(5, 7)).await, up(5..=7));
    assert_eq!(
        read(backend, newest_first(between(5, 7))).await,
        down(5..=7)
    );
    assert_eq!(read(backend, first(3, between(5, 15))).await, up(5..=7));
    assert_eq!(
        read(backend, first(3, newest_first(between(5, 15)))).await,
        down(13..=15)
    );
    assert!(read(backend, between(21, 99)).await.is_empty());
    assert!(read(backend, between(7, 5)).await.is_empty());
    assert_eq!(read(backend, range(2)).await, [1]);
    assert!(read(backend, range(3)).await.is_empty());
    assert!(
        read(
            backend,
            LogRange {
                key: DocumentKey::new("never", "x"),
                ..range(1)
            }
        )
        .await
        .is_empty()
    );

    let entries = read_log(backend, &key(1)).await;
    let until = |position: Position| LogRange {
        until: Some(position),
        ..range(1)
    };
    assert_eq!(read(backend, until(entries[6].position)).await, up(1..=7));
    assert_eq!(
        read(backend, newest_first(until(entries[6].position))).await,
        down(1..=7)
    );
    let just_before = Position::from_u64(entries[6].position.to_u64() - 1);
    assert_eq!(read(backend, until(just_before)).await, up(1..=6));
    assert!(read(backend, until(Position::START)).await.is_empty());
    assert_eq!(
        read(backend, until(Position::from_u64(u64::MAX))).await,
        up(1..=20)
    );
}

/// Entries come back as they were committed, but for the position that the store gave them: every field,
/// event payloads with odd keys, and metadata.
pub async fn entries_come_back_as_committed(store: &dyn TestStore) {
    let backend = opened(store).await;
    let event = |index: u32, data: LoggedData| LoggedEvent {
        id: EventId::derive(backend.store_id(), &key(1), Version::new(1), index),
        event_type: format!("Event{index}"),
        schema: index + 1,
        data,
    };
    let payload =
        json!({ "a.b": { "$date": "no date" }, "": [null, 1.5, true, i64::MAX, "\u{10ffff}"] });
    let mut unit = creation(1);
    let full = LogEntry {
        events: vec![
            event(0, LoggedData::Json(payload)),
            event(1, LoggedData::Json(json!(null))),
            event(2, LoggedData::Change { merge_patch: None }),
            event(
                3,
                LoggedData::Change {
                    merge_patch: Some(json!({ "$x": [1] })),
                },
            ),
        ],
        version_field: "rev".into(),
        metadata: Metadata::new().with_actor("me").with_extra("k.$", "v"),
        ..unit.entries[0].clone()
    };
    unit.entries = vec![full.clone()];
    commit(backend.as_ref(), &[unit]).await.unwrap();
    let found = read_log(backend.as_ref(), &key(1)).await.remove(0);
    assert!(found.position > Position::START);
    assert_eq!(
        LogEntry {
            position: Position::START,
            ..found
        },
        full
    );
}

/// Positions rise along the commits of one document, and stay what they were.
pub async fn positions_rise_and_stay(store: &dyn TestStore) {
    let backend = opened(store).await;
    let stream = DocumentKey::new("nodestorage.streams", "s");
    let mut all = Vec::new();
    for batch in 0..5_u64 {
        let entries = (1..=3).map(|n| entry(&stream, batch * 3 + n, EntryKind::Appended));
        let unit = Unit {
            entries: entries.collect(),
            ..Unit::default()
        };
        let receipt = commit(backend.as_ref(), &[unit]).await.unwrap();
        let read = read_log(backend.as_ref(), &stream).await;
        assert_eq!(read[..all.len()], all[..], "what was committed before");
        assert!(read.iter().all(|entry| entry.position <= receipt.position));
        all = read;
    }
    let positions: Vec<_> = all.iter().map(|entry| entry.position).collect();
    assert!(
        positions.windows(2).all(|pair| pair[0] < pair[1]),
        "{positions:?}"
    );
}

/// What lies above a position is counted, up to a limit, with the age of the first entry.
pub async fn what_lies_behind_a_position_is_counted(store: &dyn TestStore) {
    let backend = opened(store).await;
    let backend = backend.as_ref();
    let nothing = backend.backlog(Position::START, 10).await.unwrap();
    assert_eq!((nothing.entries, nothing.oldest), (0, None));
    let mut positions = Vec::new();
    for id in 0..5 {
        let receipt = commit(backend, &[creation(id)]).await.unwrap();
        positions.push(receipt.position);
    }
    let all = backend.backlog(Position::START, 10).await.unwrap();
    assert_eq!(all.entries, 5);
    let first = backend.read_log(&range(0)).await.unwrap();
    assert_eq!(all.oldest, Some(first[0].at));
    for (limit, expected) in [(3, 3), (1, 1), (0, 0)] {
        let counted = backend.backlog(Position::START, limit).await.unwrap();
        assert_eq!(counted.entries, expected);
    }
    let rest = backend.backlog(positions[2], 10).await.unwrap();
    assert_eq!(rest.entries, 2);
    let none = backend.backlog(positions[4], 10).await.unwrap();
    assert_eq!((none.entries, none.oldest), (0, None));
}
