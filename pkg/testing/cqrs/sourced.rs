//! Aggregates that are events alone.

use super::account::{Account, AccountCommand, deposit, opening};
use crate::aggregate::{CommandOptions, Repository};
use crate::document::DocumentKey;
use crate::error::ErrorKind;
use crate::storage::backend::{Fence, Record, RecordWrite, Unit};
use crate::testing::TestStore;
use crate::testing::support::open;

async fn run(accounts: &Repository<Account>, command: AccountCommand) -> u64 {
    let done = accounts.execute("a", &command, CommandOptions::new()).await;
    done.unwrap().version().get()
}

/// States come from events, with snapshots and without, at every version; no document is stored.
pub async fn states_are_replayed_with_and_without_snapshots(store: &dyn TestStore) {
    let storage = open(store).await;
    let accounts = Repository::<Account>::new(&storage).event_sourced();
    let accounts = accounts.with_snapshot_every(10);
    run(&accounts, opening("Kim", 0)).await;
    for amount in 1..=24 {
        assert_eq!(
            run(&accounts, deposit(amount)).await,
            amount.unsigned_abs() + 1
        );
    }
    // What changes nothing leaves the version as it is, and says which.
    assert_eq!(run(&accounts, AccountCommand::Look).await, 25);
    assert!(
        storage
            .find::<Account>("accounts", "a")
            .await
            .unwrap()
            .is_none()
    );
    // Other intervals find no snapshots, or others.
    for interval in [10, 1, 5, 7, 100] {
        let accounts = accounts.clone().with_snapshot_every(interval);
        for version in 1..=25_u64 {
            let state = accounts.load_at("a", version).await.unwrap().unwrap();
            let sum: i64 = (1..i64::try_from(version).unwrap()).sum();
            assert_eq!(
                (state.balance, state.version().get()),
                (sum, version),
                "every {interval}"
            );
        }
        assert_eq!(accounts.load("a").await.unwrap().balance, 300);
    }
    for above in [26, 30, 31, 100] {
        let error = accounts.load_at("a", above).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("newest is 25"), "{error}");
    }
    assert!(accounts.verify("a").await.unwrap().agrees());
    let snapshots = storage
        .backend()
        .read_records("snapshot", None, 10)
        .await
        .unwrap();
    assert_eq!(snapshots.len(), 2);
}

/// A snapshot that does not read costs time and nothing else.
pub async fn a_damaged_snapshot_is_passed_over(store: &dyn TestStore) {
    let storage = open(store).await;
    let accounts = Repository::<Account>::new(&storage).event_sourced();
    let accounts = accounts.with_snapshot_every(2);
    run(&accounts, opening("Kim", 1)).await;
    run(&accounts, deposit(1)).await;
    run(&accounts, deposit(1)).await;
    let backend = storage.backend();
    let key = format!("{}/2", DocumentKey::new("accounts", "a"));
    let kept = backend.read_record("snapshot", &key).await.unwrap();
    assert!(kept.is_some());
    let damaged = Unit {
        records: vec![RecordWrite::Put(Record {
            kind: "snapshot".into(),
            key,
            value: bson::rawdoc! { "state": { "balance": "two" } },
        })],
        fence: None::<Fence>,
        ..Unit::default()
    };
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    backend.commit(&[damaged], deadline).await.unwrap();
    assert_eq!(accounts.load("a").await.unwrap().balance, 3);
    assert_eq!(run(&accounts, deposit(1)).await, 4);
    assert_eq!(accounts.load("a").await.unwrap().balance, 4);
}

/// What is stored as a document is not taken for events alone.
pub async fn documents_and_events_alone_are_not_mixed(store: &dyn TestStore) {
    let storage = open(store).await;
    let documents = Repository::<Account>::new(&storage);
    run(&documents, opening("Kim", 1)).await;
    let sourced = Repository::<Account>::new(&storage).event_sourced();
    let command = deposit(1);
    let error = sourced
        .execute("a", &command, CommandOptions::new())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Some(ErrorKind::Unsupported));
    assert_eq!(documents.load("a").await.unwrap().version().get(), 1);
}
