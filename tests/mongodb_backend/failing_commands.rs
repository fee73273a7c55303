//! A batch under every failure of every command: all of it is there once, or nothing, and nobody is
//! locked out.

use bson::{Document, doc};
use nodestorage::document::DocumentKey;
use nodestorage::storage::backend::{Backend, CommitFailure};

use crate::world::{World, create, fail, soon, turn, update, user, world};

const UNITS: usize = 10;

/// All units are at `version`, or all are at the version before; says which.
async fn all_or_nothing(world: &World, keys: &[DocumentKey], version: u64) -> bool {
    let loaded = world.backend.load(keys).await.unwrap();
    let written = loaded.iter().filter(|one| {
        let document = one.document.as_ref().unwrap();
        let head = one.head.unwrap().version.get();
        assert_eq!(document.get_i64("version").unwrap(), head as i64);
        assert!(head == version || head == version - 1, "{head}");
        head == version
    });
    let written = written.count();
    assert!(written == 0 || written == keys.len(), "{written}");
    written > 0
}

async fn survive(command: &str, failures: &[Document]) {
    let world = world().await;
    let _turn = turn().await;
    let app = format!("{command}-{}", &*world.name);
    let backend = world.another(&format!("appName={app}")).await;
    let keys: Vec<_> = (0..UNITS).map(|n| user(n as i64)).collect();
    let created: Vec<_> = keys.iter().map(|key| create(key, 0)).collect();
    backend.commit(&created, soon()).await.unwrap();
    let mut version = 1;
    for failure in failures {
        for times in [1, 2] {
            let mut data = failure.clone();
            data.insert("failCommands", [command]);
            fail(&world.client, &app, times, data).await;
            let mut units: Vec<_> = keys.iter().map(|key| update(key, version, 1)).collect();
            if command == "abortTransaction" {
                // So that there is something to abort.
                units[UNITS - 1] = update(&keys[UNITS - 1], version + 5, 1);
            }
            let outcome = backend.commit(&units, soon()).await;
            let off = doc! { "configureFailPoint": "failCommand", "mode": "off" };
            let admin = world.client.database("admin");
            admin.run_command(off).await.unwrap();
            let what = format!("{failure}, {times} times: {outcome:?}");
            let written = all_or_nothing(&world, &keys, version + 1).await;
            match &outcome {
                Ok(_) => assert!(written, "{what}"),
                Err(CommitFailure::Unknown(_)) => panic!("{what}"),
                Err(_) => assert!(!written, "{what}"),
            }
            version += u64::from(written);
            // Another process writes them at once, in one attempt.
            let next: Vec<_> = keys.iter().map(|key| update(key, version, 2)).collect();
            let next = world.backend.commit(&next, soon()).await;
            assert!(next.is_ok(), "{what}: {next:?}");
            version += 1;
        }
    }
    assert_eq!(world.log_entries().await, UNITS as u64 * version);
    backend.close().await;
}

fn failures() -> Vec<Document> {
    let mut failures = vec![doc! { "closeConnection": true }];
    let codes = [
        112,   // WriteConflict
        262,   // ExceededTimeLimit
        10107, // NotWritablePrimary
        91,    // ShutdownInProgress
    ];
    failures.extend(codes.map(|code| doc! { "errorCode": code }));
    failures
}

#[tokio::test]
async fn a_failing_update_leaves_nothing_behind() {
    survive("update", &failures()).await;
}

#[tokio::test]
async fn a_failing_insert_leaves_nothing_behind() {
    survive("insert", &failures()).await;
}

#[tokio::test]
async fn a_failing_abort_leaves_nothing_locked() {
    survive("abortTransaction", &failures()).await;
}

#[tokio::test]
async fn a_failing_commit_is_followed_up() {
    let mut failures = failures();
    let unconfirmed = |code: i32| doc! { "writeConcernError": { "code": code, "errmsg": "no" } };
    failures.extend([64, 91].map(unconfirmed));
    failures.push(doc! { "errorCode": 50 });
    survive("commitTransaction", &failures).await;
}
