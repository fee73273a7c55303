//! Batches in which some documents have moved: the others are committed, and nothing of those that have.

use std::time::Duration;

use bson::doc;
use bson::raw::cstr;
use nodestorage::document::{DocumentKey, Version};
use nodestorage::storage::backend::{
    Backend, CommitFailure, Condition, LogRange, PartialCommit, RecordWrite, Unit,
};
use nodestorage::storage::mongodb::MongoBackend;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::world::{
    World, content, create, delete, fail, put_document, soon, turn, update, user, world,
};

fn keys(count: usize) -> Vec<DocumentKey> {
    (0..count).map(|n| user(format!("u{n:03}"))).collect()
}

async fn create_all(world: &World, keys: &[DocumentKey]) {
    let units: Vec<_> = keys.iter().map(|key| create(key, 0)).collect();
    world.backend.commit(&units, soon()).await.unwrap();
}

async fn attempt(backend: &dyn Backend, units: &[Unit]) -> Result<PartialCommit, CommitFailure> {
    backend.commit_what_holds(units, soon()).await
}

/// Version and counter of a document, 0 where it is not there. Its log is without a gap up to there.
async fn state(world: &World, key: &DocumentKey) -> (i64, i32) {
    let stored = world.stored(key.id()).await;
    let state = stored.map_or((0, 0), |stored| {
        let n = stored.get_i32("n").unwrap();
        (stored.get_i64("version").unwrap(), n)
    });
    let range = LogRange {
        key: key.clone(),
        from: Version::new(1),
        to: Version::new(u32::MAX.into()),
        until: None,
        newest_first: false,
        limit: 10_000,
    };
    let entries = world.backend.read_log(&range).await.unwrap();
    let versions: Vec<_> = entries.iter().map(|entry| entry.version.get()).collect();
    let wanted: Vec<_> = (1..=versions.len() as u64).collect();
    assert_eq!(versions, wanted, "{key}");
    if state.0 > 0 {
        assert_eq!(versions.len() as i64, state.0, "{key}");
    }
    state
}

#[track_caller]
fn assert_conflict(result: Result<PartialCommit, CommitFailure>, blamed: &[usize]) {
    match result {
        Err(CommitFailure::Conflict { suspects, .. }) => assert_eq!(suspects, blamed),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_holds_is_committed_and_the_rest_is_named() {
    for size in [2, 4, 7, 64] {
        let world = world().await;
        let keys = keys(size);
        create_all(&world, &keys).await;
        // Somebody else has gone to the very version that this batch wants to write, has gone further, and
        // has deleted one.
        world.commit(update(&keys[0], 1, 7)).await.unwrap();
        let mut lost = vec![0];
        if size > 2 {
            world.commit(update(&keys[1], 1, 7)).await.unwrap();
            world.commit(update(&keys[1], 2, 8)).await.unwrap();
            world.commit(delete(&keys[size - 1], 1)).await.unwrap();
            lost = vec![0, 1, size - 1];
        }
        let units: Vec<_> = keys.iter().map(|key| update(key, 1, 5)).collect();
        let committed = attempt(&world.backend, &units).await.unwrap();
        assert_eq!(committed.lost, lost, "{size}");
        for (index, key) in keys.iter().enumerate() {
            let wanted = match index {
                0 => (2, 7),
                1 if size > 2 => (3, 8),
                _ if lost.contains(&index) => (0, 0),
                _ => (2, 5),
            };
            assert_eq!(state(&world, key).await, wanted, "{size}: {key}");
        }
        // Nothing is locked, nobody is in doubt.
        let next: Vec<_> = keys
            .iter()
            .skip(2)
            .take(1)
            .map(|key| update(key, 2, 6))
            .collect();
        if size > 3 {
            let committed = attempt(&world.another("").await, &next).await.unwrap();
            assert_eq!(committed.lost, [0_usize; 0]);
        }
    }
}

#[tokio::test]
async fn nothing_is_left_of_a_batch_in_which_everything_has_moved() {
    for size in [1, 3, 12] {
        let world = world().await;
        let keys = keys(size);
        create_all(&world, &keys).await;
        for key in &keys {
            world.commit(update(key, 1, 7)).await.unwrap();
        }
        let units: Vec<_> = keys.iter().map(|key| update(key, 1, 5)).collect();
        let all: Vec<_> = (0..size).collect();
        assert_conflict(attempt(&world.backend, &units).await, &all);
        for key in &keys {
            assert_eq!(state(&world, key).await, (2, 7));
        }
    }
}

#[tokio::test]
async fn the_same_bytes_from_somebody_else_are_not_taken_for_ones_own() {
    let world = world().await;
    let keys = keys(10);
    create_all(&world, &keys).await;
    world.commit(update(&keys[3], 1, 5)).await.unwrap();
    world.commit(update(&keys[4], 1, 6)).await.unwrap();
    let units: Vec<_> = keys.iter().map(|key| update(key, 1, 5)).collect();
    assert_conflict(attempt(&world.backend, &units).await, &[3, 4]);
    for (index, key) in keys.iter().enumerate() {
        let wanted = match index {
            3 => (2, 5),
            4 => (2, 6),
            _ => (1, 0),
        };
        assert_eq!(state(&world, key).await, wanted);
    }
    // Without a log entry as well: another program, which knows nothing of the log.
    let users = world.database().collection::<bson::Document>("users");
    let same = bson::Document::try_from(content(&keys[5], 5, 2)).unwrap();
    let id = doc! { "_id": same.get("_id") };
    users.replace_one(id, same).await.unwrap();
    let units: Vec<_> = keys[5..].iter().map(|key| update(key, 1, 5)).collect();
    assert_conflict(attempt(&world.backend, &units).await, &[0]);
}

#[tokio::test]
async fn units_of_several_parts_are_committed_whole_or_not_at_all() {
    let both = |one: &DocumentKey, other: &DocumentKey| {
        let (mut unit, mut more) = (update(one, 1, 5), update(other, 1, 5));
        unit.writes.append(&mut more.writes);
        unit.entries.append(&mut more.entries);
        unit
    };
    let world = world().await;
    let keys = keys(12);
    create_all(&world, &keys).await;
    world.commit(update(&keys[0], 1, 7)).await.unwrap();
    let singles = |from: usize| keys[from..].iter().map(|key| update(key, 1, 5));

    // One of two documents has moved: nothing is written at all.
    let mut units = vec![both(&keys[0], &keys[1])];
    units.extend(singles(2));
    assert_conflict(attempt(&world.backend, &units).await, &[0]);
    for key in &keys[1..] {
        assert_eq!(state(&world, key).await, (1, 0));
    }

    // Nor where the one that has moved also checks another document or writes a record.
    let mut checking = update(&keys[0], 1, 5);
    let unmoved = Condition::Version(Version::new(1));
    checking.checks.push((keys[1].clone(), unmoved));
    let mut recording = update(&keys[0], 1, 5);
    recording.records.push(RecordWrite::Delete {
        kind: "kind".to_owned(),
        key: "key".to_owned(),
    });
    for unit in [checking, recording] {
        let mut units = vec![unit];
        units.extend(singles(2));
        assert_conflict(attempt(&world.backend, &units).await, &[0]);
    }
    for key in &keys[1..] {
        assert_eq!(state(&world, key).await, (1, 0));
    }

    // A unit of two documents that holds goes with the others.
    let mut units = vec![update(&keys[0], 1, 5), both(&keys[1], &keys[2])];
    units.extend(singles(3));
    let committed = attempt(&world.backend, &units).await.unwrap();
    assert_eq!(committed.lost, [0]);
    assert_eq!(state(&world, &keys[0]).await, (2, 7));
    for key in &keys[1..] {
        assert_eq!(state(&world, key).await, (2, 5));
    }
}

#[tokio::test]
async fn all_or_nothing_stays_what_it_was() {
    let world = world().await;
    let keys = keys(10);
    create_all(&world, &keys).await;
    world.commit(update(&keys[3], 1, 7)).await.unwrap();
    let units: Vec<_> = keys.iter().map(|key| update(key, 1, 5)).collect();
    match world.backend.commit(&units, soon()).await {
        Err(CommitFailure::Conflict { suspects, .. }) => assert_eq!(suspects, [3]),
        other => panic!("{other:?}"),
    }
    assert_eq!(world.log_entries().await, 11);
}

#[tokio::test]
async fn creations_and_deletions_go_with_what_holds() {
    let world = world().await;
    let keys = keys(12);
    create_all(&world, &keys[..10]).await;
    world.commit(update(&keys[0], 1, 7)).await.unwrap();
    let mut units: Vec<_> = keys[..9].iter().map(|key| update(key, 1, 5)).collect();
    units.push(delete(&keys[9], 1));
    units.push(create(&keys[10], 5));
    let committed = attempt(&world.backend, &units).await.unwrap();
    assert_eq!(committed.lost, [0]);
    assert_eq!(world.stored(keys[9].id()).await, None);
    assert_eq!(state(&world, &keys[10]).await, (1, 5));
    // A creation that comes too late takes all with it, as before.
    units = vec![update(&keys[0], 1, 5), create(&keys[1], 5)];
    units.extend(keys[2..9].iter().map(|key| update(key, 2, 6)));
    let result = attempt(&world.backend, &units).await;
    assert!(
        matches!(result, Err(CommitFailure::Conflict { .. })),
        "{result:?}"
    );
    assert_eq!(state(&world, &keys[2]).await, (2, 5));
}

/// Whatever fails on the way, what is said to be written is there, and nothing else.
#[tokio::test]
async fn failures_on_the_way_leave_nothing_half_done() {
    let world = world().await;
    let _turn = turn().await;
    let app = format!("partial-{}", &*world.name);
    let backend = world.another(&format!("appName={app}")).await;
    let keys = keys(10);
    create_all(&world, &keys).await;
    let mut versions = vec![1_u64; keys.len()];
    let kinds = [
        doc! { "closeConnection": true },
        doc! { "errorCode": 112 },
        doc! { "errorCode": 262 },
        doc! { "errorCode": 91 },
    ];
    for command in ["find", "insert", "commitTransaction"] {
        for kind in &kinds {
            let mut data = kind.clone();
            data.insert("failCommands", [command]);
            let mut units: Vec<_> = keys
                .iter()
                .zip(&versions)
                .map(|(key, version)| update(key, *version, 5))
                .collect();
            world
                .commit(update(&keys[4], versions[4], 7))
                .await
                .unwrap();
            versions[4] += 1;
            units.rotate_left(1);
            fail(&world.client, &app, 1, data).await;
            let outcome = attempt(&backend, &units).await;
            let off = doc! { "configureFailPoint": "failCommand", "mode": "off" };
            world
                .client
                .database("admin")
                .run_command(off)
                .await
                .unwrap();
            match &outcome {
                Ok(committed) => {
                    assert_eq!(committed.lost, [3], "{command}, {kind}");
                    for (index, version) in versions.iter_mut().enumerate() {
                        *version += u64::from(index != 4);
                    }
                }
                Err(CommitFailure::Unknown(_)) => panic!("{command}, {kind}: {outcome:?}"),
                Err(_) => {}
            }
            for (key, version) in keys.iter().zip(&versions) {
                let (found, _) = state(&world, key).await;
                assert_eq!(
                    found, *version as i64,
                    "{command}, {kind}: {key}, {outcome:?}"
                );
            }
            // Nobody is locked out.
            let next: Vec<_> = keys
                .iter()
                .zip(&versions)
                .map(|(key, version)| update(key, *version, 6))
                .collect();
            let next = world.backend.commit(&next, soon()).await;
            assert!(next.is_ok(), "{command}, {kind}: {next:?}");
            versions.iter_mut().for_each(|version| *version += 1);
        }
    }
    backend.close().await;
}

/// Three processes over the same documents: every increment that was acknowledged is there, and no other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn increments_of_several_writers_add_up() {
    let world = world().await;
    let keys = keys(DOCUMENTS);
    create_all(&world, &keys).await;
    let committed = watch::Sender::new(());
    let mut writers = JoinSet::new();
    for seed in 1..=3 {
        let backend = world.another("").await;
        writers.spawn(write(seed, backend, keys.clone(), committed.clone()));
    }
    let mut sums = [0; DOCUMENTS];
    let (mut whole, mut in_part) = (0, 0);
    while let Some(writer) = writers.join_next().await {
        let written = writer.unwrap();
        whole += written.whole;
        in_part += written.in_part;
        for (sum, acknowledged) in sums.iter_mut().zip(written.acknowledged) {
            *sum += acknowledged;
        }
    }
    for (key, sum) in keys.iter().zip(sums) {
        assert_eq!(state(&world, key).await, (i64::from(sum) + 1, sum), "{key}");
    }
    println!("{whole} commits as a whole, {in_part} in part");
    assert!(whole > 0 && in_part > 0, "{whole}, {in_part}");
}

const DOCUMENTS: usize = 24;

#[derive(Default)]
struct Written {
    acknowledged: [i32; DOCUMENTS],
    whole: u32,
    in_part: u32,
}

/// Increments some of the documents again and again, each time on what was read before somebody else's commit.
async fn write(
    seed: usize,
    backend: MongoBackend,
    keys: Vec<DocumentKey>,
    committed: watch::Sender<()>,
) -> Written {
    let mut written = Written::default();
    for round in 0..40 {
        let mut other = committed.subscribe();
        let chosen: Vec<_> = (0..DOCUMENTS)
            .filter(|index| (index * 7 + round * 5 + seed * 11) % 4 < 2)
            .collect();
        let names: Vec<_> = chosen.iter().map(|index| keys[*index].clone()).collect();
        let loaded = backend.load(&names).await.unwrap();
        // The first to lose patience lets the others go.
        let patience = Duration::from_millis(5 + 10 * seed as u64);
        let _ = timeout(patience, other.changed()).await;
        let units: Vec<_> = loaded
            .iter()
            .zip(&names)
            .map(|(loaded, key)| {
                let document = loaded.document.as_ref().unwrap();
                let version = document.get_i64("version").unwrap();
                let n = document.get_i32("n").unwrap();
                // Else all would write the same bytes.
                let mut after = content(key, n + 1, version + 1);
                after.append(cstr!("by"), seed as i64);
                let before = Condition::Version(Version::new(version as u64));
                put_document(key, before, version as u64 + 1, &after)
            })
            .collect();
        let lost = match attempt(&backend, &units).await {
            Ok(committed) => committed.lost,
            Err(CommitFailure::Conflict { .. }) => continue,
            Err(failure) => panic!("{failure:?}"),
        };
        committed.send_replace(());
        written.whole += u32::from(lost.is_empty());
        written.in_part += u32::from(!lost.is_empty());
        for (at, index) in chosen.into_iter().enumerate() {
            written.acknowledged[index] += i32::from(!lost.contains(&at));
        }
    }
    backend.close().await;
    written
}

/// A field that is no number any more is nobody's version; the others go on all the same.
#[tokio::test]
async fn a_version_of_another_type_is_a_loss_like_any_other() {
    let world = world().await;
    let keys = keys(8);
    create_all(&world, &keys).await;
    let mut odd = bson::RawDocumentBuf::new();
    odd.append(cstr!("_id"), keys[2].id().to_raw());
    odd.append(cstr!("version"), "one");
    let users = world.database().collection::<bson::RawDocumentBuf>("users");
    let id = doc! { "_id": "u002" };
    users.replace_one(id, odd.clone()).await.unwrap();
    let units: Vec<_> = keys.iter().map(|key| update(key, 1, 5)).collect();
    let committed = attempt(&world.backend, &units).await.unwrap();
    assert_eq!(committed.lost, [2]);
    assert_eq!(world.stored("u002").await, Some(odd));
    assert_eq!(state(&world, &keys[3]).await, (2, 5));
}
