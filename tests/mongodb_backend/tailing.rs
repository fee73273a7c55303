use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bson::{Document, doc, rawdoc};
use futures_util::{Stream, StreamExt};
use nodestorage::ErrorKind;
use nodestorage::storage::backend::{
    Backend, CommitReceipt, Condition, Cursor, LogEntry, Position, TailFrom, TailItem,
};

use crate::world::{World, create, fail, soon, turn, update, user, world};

type Item = nodestorage::Result<TailItem>;

async fn next(tail: &mut (impl Stream<Item = Item> + Unpin)) -> TailItem {
    let item = tokio::time::timeout(Duration::from_secs(30), tail.next()).await;
    item.expect("the tail says nothing")
        .expect("the tail has ended")
        .unwrap()
}

/// Entries up to the first idle item, with the cursor behind each, and the cursor of the idle item.
async fn until_idle(
    tail: &mut (impl Stream<Item = Item> + Unpin),
) -> (Vec<(LogEntry, Cursor)>, Cursor) {
    let mut entries = Vec::new();
    loop {
        match next(tail).await {
            TailItem::Entry { entry, cursor } => entries.push((*entry, cursor)),
            TailItem::Idle { cursor } => return (entries, cursor),
        }
    }
}

/// Reads until everything up to a receipt has been passed.
async fn until_passed(
    tail: &mut (impl Stream<Item = Item> + Unpin),
    receipt: CommitReceipt,
) -> Vec<(LogEntry, Cursor)> {
    let mut entries = Vec::new();
    loop {
        match next(tail).await {
            TailItem::Entry { entry, cursor } => entries.push((*entry, cursor)),
            TailItem::Idle { cursor } if cursor.position >= receipt.position => return entries,
            TailItem::Idle { .. } => {}
        }
    }
}

fn names(entries: &[(LogEntry, Cursor)]) -> Vec<String> {
    entries
        .iter()
        .map(|(entry, _)| format!("{}@{}", entry.key.id(), entry.version))
        .collect()
}

async fn fill(world: &World, count: i32) -> CommitReceipt {
    let units: Vec<_> = (0..count).map(|n| create(&user(n), 1)).collect();
    world.backend.commit(&units, soon()).await.unwrap()
}

#[tokio::test]
async fn from_the_beginning_then_live() {
    let world = world().await;
    fill(&world, 600).await;
    let mut tail = world.backend.tail(TailFrom::Beginning);
    let (past, _) = until_idle(&mut tail).await;
    assert_eq!(past.len(), 600);
    assert!(
        past.windows(2)
            .all(|pair| pair[0].0.position < pair[1].0.position)
    );
    let units = [update(&user(1), 1, 2), update(&user(2), 1, 2)];
    let receipt = world.backend.commit(&units, soon()).await.unwrap();
    let live = until_passed(&mut tail, receipt).await;
    assert_eq!(names(&live), ["1@2", "2@2"]);
    // Half of a commit does not count as passed.
    assert!(live[0].1.position < receipt.position);
}

#[tokio::test]
async fn from_now_sees_only_what_comes() {
    let world = world().await;
    fill(&world, 3).await;
    let mut tail = world.backend.tail(TailFrom::Now);
    let (nothing, _) = until_idle(&mut tail).await;
    assert!(nothing.is_empty());
    let receipt = world.commit(update(&user(1), 1, 2)).await.unwrap();
    assert_eq!(names(&until_passed(&mut tail, receipt).await), ["1@2"]);
}

#[tokio::test]
async fn every_cursor_continues_where_it_stands() {
    let world = world().await;
    fill(&world, 5).await;
    let mut tail = world.backend.tail(TailFrom::Beginning);
    let (mut all, idle) = until_idle(&mut tail).await;
    let units: Vec<_> = (0..5).map(|n| update(&user(n), 1, 2)).collect();
    let receipt = world.backend.commit(&units, soon()).await.unwrap();
    all.extend(until_passed(&mut tail, receipt).await);
    assert_eq!(all.len(), 10);
    drop(tail);

    let mut tail = world.backend.tail(TailFrom::After(idle));
    assert_eq!(until_passed(&mut tail, receipt).await.len(), 5);
    for (index, (_, cursor)) in all.iter().enumerate() {
        let mut tail = world.backend.tail(TailFrom::After(cursor.clone()));
        let rest = names(&until_passed(&mut tail, receipt).await);
        let missing = names(&all[index + 1..]);
        assert!(
            missing.iter().all(|name| rest.contains(name)),
            "{index}: {rest:?}"
        );
        // Behind live entries, even in the middle of a commit, nothing repeats.
        if index >= 5 {
            assert_eq!(rest, missing, "{index}");
        }
    }
}

#[tokio::test]
async fn catching_up_while_writers_write_loses_and_repeats_nothing() {
    let world = world().await;
    fill(&world, 400).await;
    let other = world.another("").await;
    let writer = tokio::spawn(async move {
        let mut receipt = None;
        for version in 1..40 {
            let units: Vec<_> = (0..10).map(|n| update(&user(n), version, 0)).collect();
            receipt = Some(other.commit(&units, soon()).await.unwrap());
        }
        receipt.unwrap()
    });
    let mut tail = world.backend.tail(TailFrom::Beginning);
    let mut seen = Vec::new();
    while !writer.is_finished() {
        if let TailItem::Entry { entry, cursor } = next(&mut tail).await {
            seen.push((*entry, cursor));
        }
    }
    let receipt = writer.await.unwrap();
    seen.extend(until_passed(&mut tail, receipt).await);
    assert_eq!(seen.len(), 400 + 39 * 10);
    let mut versions = BTreeMap::new();
    for (entry, _) in &seen {
        let last = versions.entry(entry.key.clone()).or_insert(0);
        assert_eq!(entry.version, *last + 1, "{}", entry.key);
        *last += 1;
    }
}

#[tokio::test]
async fn a_lost_token_falls_back_to_the_log_and_loses_nothing() {
    let world = world().await;
    fill(&world, 5).await;
    let mut tail = world.backend.tail(TailFrom::Beginning);
    let (_, idle) = until_idle(&mut tail).await;
    let receipt = world.commit(update(&user(1), 1, 2)).await.unwrap();
    let bogus = [
        // Malformed, of another cluster's history, of no form at all.
        rawdoc! { "time": bson::Timestamp::from(idle.position), "resume": { "_data": "82AA" } },
        rawdoc! { "time": bson::Timestamp::from(idle.position), "resume": {
            "_data": "8200000001000000012B022C0100296E5A1004A3F5A9D0F24B4C2F8B0F1D2C3B4A596846645F69640064000000000000000000000000000004",
        } },
        rawdoc! { "time": bson::Timestamp::from(idle.position), "resume": {} },
        rawdoc! { "what": "is this" },
    ];
    for token in bogus {
        let cursor = Cursor {
            position: idle.position,
            token: token.clone(),
        };
        let mut tail = world.backend.tail(TailFrom::After(cursor));
        let seen: BTreeSet<_> = names(&until_passed(&mut tail, receipt).await)
            .into_iter()
            .collect();
        assert!(seen.contains("1@2"), "{token:?}: {seen:?}");
    }
}

#[tokio::test]
async fn a_transaction_open_during_the_scan_is_not_lost() {
    let world = world().await;
    // Its position is drawn now, it commits after later ones were scanned.
    let log = world.database().collection::<Document>("nodestorage.log");
    let mut session = world.client.start_session().await.unwrap();
    session.start_transaction().await.unwrap();
    let late = create(&user("late"), 1).entries[0].to_raw().unwrap();
    let late: Document = bson::deserialize_from_slice(late.as_bytes()).unwrap();
    log.insert_one(late).session(&mut session).await.unwrap();
    fill(&world, 5).await;
    let mut tail = world.backend.tail(TailFrom::Beginning);
    let TailItem::Entry {
        cursor: in_scan, ..
    } = next(&mut tail).await
    else {
        panic!("no entry");
    };
    let mut entries = 0;
    while entries < 4 {
        entries += i32::from(matches!(next(&mut tail).await, TailItem::Entry { .. }));
    }
    session.commit_transaction().await.unwrap();
    let receipt = world.commit(create(&user("last"), 1)).await.unwrap();
    let rest = names(&until_passed(&mut tail, receipt).await);
    assert_eq!(rest, ["late@1", "last@1"]);
    // After a crash in the middle of the scan as well.
    let mut tail = world.backend.tail(TailFrom::After(in_scan));
    let again = names(&until_passed(&mut tail, receipt).await);
    assert!(
        again.contains(&"late@1".to_owned()) && again.contains(&"4@1".to_owned()),
        "{again:?}"
    );
}

#[tokio::test]
async fn a_scan_that_outlives_its_snapshot_goes_on() {
    let world = world().await;
    let _turn = turn().await;
    let app = format!("snapshot-{}", &*world.name);
    let backend = world.another(&format!("appName={app}")).await;
    fill(&world, 700).await;
    let mut tail = backend.tail(TailFrom::Beginning);
    let mut seen = BTreeSet::new();
    for code in [239, 246, 239] {
        for _ in 0..100 {
            if let TailItem::Entry { entry, .. } = next(&mut tail).await {
                seen.insert(entry.key);
            }
        }
        fail(
            &world.client,
            &app,
            1,
            doc! { "failCommands": ["find"], "errorCode": code },
        )
        .await;
    }
    let (rest, _) = until_idle(&mut tail).await;
    seen.extend(rest.into_iter().map(|(entry, _)| entry.key));
    assert_eq!(seen.len(), 700);
}

#[tokio::test]
async fn broken_connections_and_lost_cursors_are_recovered_from() {
    let world = world().await;
    let _turn = turn().await;
    let app = format!("broken-{}", &*world.name);
    let backend = world.another(&format!("appName={app}")).await;
    fill(&world, 1).await;
    let mut tail = backend.tail(TailFrom::Beginning);
    until_idle(&mut tail).await;
    for (version, data) in (1..).zip([
        doc! { "failCommands": ["getMore"], "closeConnection": true },
        doc! { "failCommands": ["getMore"], "errorCode": 43 },
        doc! { "failCommands": ["getMore"], "errorCode": 91 },
        doc! { "failCommands": ["getMore"], "errorCode": 286 },
        doc! { "failCommands": ["getMore", "aggregate"], "errorCode": 10107 },
    ]) {
        fail(&world.client, &app, 1, data).await;
        let receipt = world.commit(update(&user(0), version, 0)).await.unwrap();
        let seen = names(&until_passed(&mut tail, receipt).await);
        assert!(seen.contains(&format!("0@{}", version + 1)), "{seen:?}");
    }
}

#[tokio::test]
async fn held_keys_never_show() {
    let world = world().await;
    let mut tail = world.backend.tail(TailFrom::Now);
    until_idle(&mut tail).await;
    let mut unit = create(&user("a"), 1);
    unit.checks = vec![(user("b"), Condition::Absent)];
    let receipt = world.commit(unit).await.unwrap();
    assert_eq!(names(&until_passed(&mut tail, receipt).await), ["a@1"]);
}

#[tokio::test]
async fn the_largest_entry_can_be_followed() {
    let world = world().await;
    let mut tail = world.backend.tail(TailFrom::Now);
    until_idle(&mut tail).await;
    // The longest collection name and id make the largest event.
    let collection = "c".repeat(190 - 1);
    let key = nodestorage::DocumentKey::new(collection, "i".repeat(1_024));
    let mut unit = create(&key, 1);
    unit.writes.clear();
    let mut entry = unit.entries.pop().unwrap();
    let space = |entry: &LogEntry| {
        world.backend.capabilities().max_entry_bytes - entry.to_raw().unwrap().as_bytes().len()
    };
    entry.after = Some(rawdoc! { "x": "" });
    let left = space(&entry);
    entry.after = Some(rawdoc! { "x": "x".repeat(left) });
    assert_eq!(space(&entry), 0);
    unit.entries.push(entry);
    let receipt = world.commit(unit).await.unwrap();
    assert_eq!(until_passed(&mut tail, receipt).await.len(), 1);
    let mut tail = world.backend.tail(TailFrom::Beginning);
    assert_eq!(until_idle(&mut tail).await.0.len(), 1);
}

#[tokio::test]
async fn a_dropped_log_and_a_closed_store_end_the_tail() {
    let world = world().await;
    let mut tail = world.backend.tail(TailFrom::Now);
    until_idle(&mut tail).await;
    let mut closed = world.another("").await.tail(TailFrom::Now);
    until_idle(&mut closed).await;
    world
        .database()
        .collection::<Document>("nodestorage.log")
        .drop()
        .await
        .unwrap();
    let error = loop {
        if let Err(error) = tail.next().await.expect("an error comes first") {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(tail.next().await.is_none());

    let world = self::world().await;
    let mut tail = world.backend.tail(TailFrom::Now);
    until_idle(&mut tail).await;
    world.backend.close().await;
    assert_eq!(
        tail.next().await.unwrap().unwrap_err().kind(),
        ErrorKind::Closed
    );
    assert!(tail.next().await.is_none());
}

#[tokio::test]
async fn positions_never_claim_what_was_not_passed() {
    let world = world().await;
    let mut tail = world.backend.tail(TailFrom::Beginning);
    let mut claimed = Position::START;
    for round in 0..20 {
        let receipt = world.commit(create(&user(round), 1)).await.unwrap();
        let mut seen = false;
        while !seen || claimed < receipt.position {
            let cursor = match next(&mut tail).await {
                TailItem::Entry { entry, cursor } => {
                    seen |= entry.key == user(round);
                    cursor
                }
                TailItem::Idle { cursor } => cursor,
            };
            assert!(cursor.position >= claimed);
            claimed = cursor.position;
            assert!(seen || claimed < receipt.position, "round {round}");
        }
    }
}
