//! Several documents, all or nothing.

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};

use crate::document::DocumentKey;
use crate::error::{Error, ErrorKind};
use crate::event::{Metadata, NewEvent};
use crate::storage::{CollectionSpec, Index, RetryPolicy, Storage, Transaction, UpdateError};
use crate::testing::support::{Counter, User, foreign, kind_of, load_raw, log_of, open, open_with};
use crate::testing::{TestStore, check_log};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Account {
    balance: i64,
}

async fn with_accounts(store: &dyn TestStore, balance: i64) -> Storage {
    let storage = open(store).await;
    for name in ["a", "b"] {
        storage
            .update("accounts", name, |_| Account { balance })
            .await
            .unwrap();
    }
    storage
}

async fn transfer(tx: &Transaction, from: &str, to: &str, amount: i64) -> Result<(), Error> {
    tx.modify("accounts", from, |account: &mut Account| {
        account.balance -= amount
    })
    .await?;
    tx.modify("accounts", to, |account: &mut Account| {
        account.balance += amount
    })
    .await
}

async fn balances(storage: &Storage) -> (i64, i64) {
    let a = storage.load::<Account>("accounts", "a").await.unwrap();
    let b = storage.load::<Account>("accounts", "b").await.unwrap();
    (a.balance, b.balance)
}

/// Several documents, of several collections, are created, changed and deleted together; each gets one
/// version and one log entry, of one commit.
pub async fn a_transaction_changes_all_its_documents(store: &dyn TestStore) {
    let storage = with_accounts(store, 100).await;
    let told = storage
        .transaction(|tx| async move {
            transfer(&tx, "a", "b", 30).await?;
            tx.delete("accounts", "b").await?;
            tx.update("users", "u1", |_| User::new("Ann")).await?;
            Ok::<_, Error>("done")
        })
        .await
        .unwrap();
    assert_eq!(told, "done");
    let mut commits = Vec::new();
    for (collection, id, versions) in [
        ("accounts", "a", 2),
        ("accounts", "b", 2),
        ("users", "u1", 1),
    ] {
        let log = check_log(
            storage.backend().as_ref(),
            &DocumentKey::new(collection, id),
        )
        .await;
        assert_eq!(log.entries.len(), versions, "{collection}/{id}");
        commits.push(log.entries[versions - 1].commit);
    }
    commits.dedup();
    assert_eq!(commits.len(), 1, "entries of one commit carry its id");
    assert!(
        storage
            .find::<Account>("accounts", "b")
            .await
            .unwrap()
            .is_none()
    );
}

/// A transaction whose closure fails writes nothing and gives the error back typed.
pub async fn a_failed_transaction_writes_nothing(store: &dyn TestStore) {
    #[derive(Debug, PartialEq)]
    enum Refusal {
        TooPoor,
        Storage(ErrorKind),
    }
    impl From<Error> for Refusal {
        fn from(error: Error) -> Self {
            Self::Storage(error.kind())
        }
    }
    let storage = with_accounts(store, 100).await;
    let rejected = storage
        .transaction(|tx| async move {
            transfer(&tx, "a", "b", 300).await?;
            tx.update("users", "u1", |_| User::new("Ann")).await?;
            let left = tx.load::<Account>("accounts", "a").await?;
            if left.balance < 0 {
                return Err(Refusal::TooPoor);
            }
            Ok(())
        })
        .await
        .unwrap_err();
    assert_eq!(rejected.rejected(), Some(&Refusal::TooPoor));
    let missing = storage
        .transaction(|tx| async move {
            transfer(&tx, "a", "nobody", 1).await?;
            Ok::<_, Refusal>(())
        })
        .await
        .unwrap_err();
    assert_eq!(missing.flatten(), Refusal::Storage(ErrorKind::NotFound));
    assert_eq!(balances(&storage).await, (100, 100));
    assert!(storage.find::<User>("users", "u1").await.unwrap().is_none());
    for name in ["a", "b"] {
        let key = DocumentKey::new("accounts", name);
        let log = check_log(storage.backend().as_ref(), &key).await;
        assert_eq!(log.versions(), [1]);
    }
}

/// A transaction reads what it has written itself, and nobody else does before it ends. Several changes
/// of one document are one version.
pub async fn a_transaction_reads_its_own_writes(store: &dyn TestStore) {
    let storage = with_accounts(store, 100).await;
    storage
        .transaction(|tx| {
            let outside = storage.clone();
            async move {
                for amount in [10, 20] {
                    transfer(&tx, "a", "b", amount).await?;
                }
                assert_eq!(tx.load::<Account>("accounts", "a").await?.balance, 70);
                assert_eq!(balances(&outside).await, (100, 100));
                tx.update("users", "u1", |_| User::new("Ann")).await?;
                tx.delete("users", "u1").await?;
                assert!(tx.find::<User>("users", "u1").await?.is_none());
                tx.delete("accounts", "b").await?;
                tx.update("accounts", "b", |account: Option<Account>| {
                    assert_eq!(account, None);
                    Account { balance: 130 }
                })
                .await?;
                Ok::<_, Error>(())
            }
        })
        .await
        .unwrap();
    assert_eq!(balances(&storage).await, (70, 130));
    for (collection, id, versions) in [
        ("accounts", "a", 2),
        ("accounts", "b", 2),
        ("users", "u1", 0),
    ] {
        let log = check_log(
            storage.backend().as_ref(),
            &DocumentKey::new(collection, id),
        )
        .await;
        assert_eq!(log.entries.len(), versions, "{collection}/{id}");
    }
}

/// A transaction that loses a race on one of its documents runs again from the start on the new state,
/// and nothing of the lost run is left.
pub async fn a_transaction_that_loses_a_race_runs_again(store: &dyn TestStore) {
    let storage = with_accounts(store, 100).await;
    let mut runs = 0;
    storage
        .transaction(|tx| {
            runs += 1;
            let (outside, first) = (storage.clone(), runs == 1);
            async move {
                transfer(&tx, "a", "b", 30).await?;
                tx.update("users", if first { "lost" } else { "kept" }, |_| {
                    User::new("Ann")
                })
                .await?;
                if first {
                    let add = |account: Option<Account>| Account {
                        balance: account.unwrap().balance + 1,
                    };
                    outside.update("accounts", "b", add).await?;
                }
                Ok::<_, Error>(())
            }
        })
        .await
        .unwrap();
    assert_eq!(runs, 2);
    assert_eq!(balances(&storage).await, (70, 131));
    assert!(
        storage
            .find::<User>("users", "lost")
            .await
            .unwrap()
            .is_none()
    );
    assert!(
        storage
            .find::<User>("users", "kept")
            .await
            .unwrap()
            .is_some()
    );
    for (name, versions) in [("a", vec![1, 2]), ("b", vec![1, 2, 3])] {
        let key = DocumentKey::new("accounts", name);
        assert_eq!(
            check_log(storage.backend().as_ref(), &key).await.versions(),
            versions
        );
    }
}

/// A transaction that keeps losing gives up with `RetriesExhausted` and its attempts, leaving nothing.
pub async fn a_transaction_that_keeps_losing_gives_up(store: &dyn TestStore) {
    let storage = with_accounts(store, 100).await;
    let policy = RetryPolicy::default().with_conflict_attempts(3);
    let lost = storage.transaction_with(policy, |tx| {
        let outside = storage.clone();
        async move {
            transfer(&tx, "a", "b", 30).await?;
            outside
                .update("accounts", "a", |a: Option<Account>| Account {
                    balance: a.unwrap().balance + 1,
                })
                .await?;
            Ok::<_, Error>(())
        }
    });
    let error = lost.await.unwrap_err();
    assert_eq!(
        error.kind(),
        Some(ErrorKind::RetriesExhausted { attempts: 3 })
    );
    assert_eq!(balances(&storage).await, (103, 100));
    let log = log_of(&storage, &DocumentKey::new("accounts", "b")).await;
    assert_eq!(log.len(), 1);
}

/// Documents that were only read are validated too: two transactions that each read what the other
/// changes cannot both go ahead (no write skew), whether the document exists or not.
pub async fn documents_only_read_are_validated(store: &dyn TestStore) {
    let storage = open(store).await;
    for read in ["existing", "missing"] {
        if read == "existing" {
            storage
                .update("counters", read, |_| Counter { value: 1 })
                .await
                .unwrap();
        }
        let written = format!("written-{read}");
        let mut runs = 0;
        let change = storage.transaction(|tx| {
            runs += 1;
            let (outside, first, written) = (storage.clone(), runs == 1, written.clone());
            async move {
                let seen = tx.find::<Counter>("counters", read).await?;
                let seen = seen.map_or(0, |counter| counter.value);
                if first {
                    outside
                        .update("counters", read, Counter::incremented)
                        .await?;
                }
                tx.update("counters", written, |_| Counter { value: seen })
                    .await?;
                Ok::<_, Error>(seen)
            }
        });
        let seen = change.await.unwrap();
        let now = storage
            .load::<Counter>("counters", read)
            .await
            .unwrap()
            .value;
        assert_eq!((seen, runs), (now, 2), "{read}");
        check_log(
            storage.backend().as_ref(),
            &DocumentKey::new("counters", written),
        )
        .await;
    }
    // Two doctors, one of whom has to stay on call.
    let on_call = |storage: Storage, leaving: &'static str, staying: &'static str| {
        tokio::spawn(async move {
            let leave = |tx: Transaction| async move {
                if tx.load::<Counter>("doctors", staying).await?.value == 1 {
                    tx.update("doctors", leaving, |_| Counter { value: 0 })
                        .await?;
                }
                Ok::<_, Error>(())
            };
            storage.transaction(leave).await.unwrap();
        })
    };
    for _ in 0..20 {
        for name in ["ann", "bob"] {
            storage
                .update("doctors", name, |_| Counter { value: 1 })
                .await
                .unwrap();
        }
        let both = [
            on_call(storage.clone(), "ann", "bob"),
            on_call(storage.clone(), "bob", "ann"),
        ];
        for result in join_all(both).await {
            result.unwrap();
        }
        let ann = storage.load::<Counter>("doctors", "ann").await.unwrap();
        let bob = storage.load::<Counter>("doctors", "bob").await.unwrap();
        assert_eq!(ann.value + bob.value, 1, "exactly one stays on call");
    }
}

/// A transaction that only reads sees one state, not parts of two.
pub async fn a_transaction_that_only_reads_sees_one_state(store: &dyn TestStore) {
    let storage = with_accounts(store, 100).await;
    let mut runs = 0;
    let seen = storage.transaction(|tx| {
        runs += 1;
        let (outside, first) = (storage.clone(), runs == 1);
        async move {
            let a = tx.load::<Account>("accounts", "a").await?.balance;
            if first {
                let moving =
                    outside.transaction(|tx| async move { transfer(&tx, "a", "b", 30).await });
                moving.await.map_err(UpdateError::flatten)?;
            }
            let b = tx.load::<Account>("accounts", "b").await?.balance;
            Ok::<_, Error>((a, b))
        }
    });
    assert_eq!(seen.await.unwrap(), (70, 130));
    assert_eq!(runs, 2);
}

/// Transactions over the same two documents in opposite order all finish, and no money is made or lost.
pub async fn transactions_in_opposite_order_finish(store: &dyn TestStore) {
    let storage = with_accounts(store, 1_000).await;
    let tasks = (0..8).map(|task| {
        let storage = storage.clone();
        tokio::spawn(async move {
            let (from, to) = if task % 2 == 0 {
                ("a", "b")
            } else {
                ("b", "a")
            };
            for _ in 0..5 {
                let moving = storage
                    .transaction(|tx| async move { transfer(&tx, from, to, 1 + task).await });
                moving.await.unwrap();
            }
        })
    });
    for result in join_all(tasks).await {
        result.unwrap();
    }
    assert_eq!(balances(&storage).await, (1_020, 980));
    for name in ["a", "b"] {
        let key = DocumentKey::new("accounts", name);
        let log = check_log(storage.backend().as_ref(), &key).await;
        assert_eq!(log.entries.len(), 41, "{name}");
    }
}

/// A handle that is used after its closure has returned fails with `Closed` and changes nothing.
pub async fn a_handle_is_of_no_use_after_the_end(store: &dyn TestStore) {
    let storage = with_accounts(store, 100).await;
    let mut kept = None;
    storage
        .transaction(|tx| {
            kept = Some(tx.clone());
            async move { transfer(&tx, "a", "b", 1).await }
        })
        .await
        .unwrap();
    let tx = kept.unwrap();
    assert_eq!(
        kind_of(tx.find::<Account>("accounts", "a").await),
        ErrorKind::Closed
    );
    assert_eq!(kind_of(transfer(&tx, "a", "b", 1).await), ErrorKind::Closed);
    assert_eq!(
        kind_of(tx.delete("accounts", "new").await),
        ErrorKind::Closed
    );
    assert_eq!(balances(&storage).await, (99, 101));
}

/// One document that its collection refuses (a unique index) fails the transaction with `Constraint`;
/// none of the others is written.
pub async fn one_refused_document_undoes_the_transaction(store: &dyn TestStore) {
    let unique = CollectionSpec::new("users").with_index(Index::on("email").unique());
    let storage = open_with(store, |builder| builder.collection(unique)).await;
    let user = |email: &str| User {
        name: "n".into(),
        email: email.into(),
    };
    storage
        .update("users", "u1", |_| user("taken"))
        .await
        .unwrap();
    let refused = storage.transaction(|tx| async move {
        tx.update("counters", "c", Counter::incremented).await?;
        tx.update("users", "u2", |_| user("free")).await?;
        tx.update("users", "u3", |_| user("taken")).await?;
        Ok::<_, Error>(())
    });
    assert_eq!(
        refused.await.unwrap_err().kind(),
        Some(ErrorKind::Constraint)
    );
    for (collection, id) in [("counters", "c"), ("users", "u2"), ("users", "u3")] {
        let key = DocumentKey::new(collection, id);
        assert_eq!(load_raw(&storage, &key).await, None, "{key}");
        assert!(
            check_log(storage.backend().as_ref(), &key)
                .await
                .entries
                .is_empty()
        );
    }
}

/// Metadata of a transaction and events that its updates emit are in the log entries of its documents.
pub async fn metadata_and_events_of_a_transaction_are_logged(store: &dyn TestStore) {
    let storage = with_accounts(store, 100).await;
    storage
        .transaction(|tx| async move {
            tx.set_metadata(Metadata::new().with_correlation("order-7"));
            tx.update_with("accounts", "a", |account: Option<Account>, context| {
                context.emit(NewEvent::new("MoneySent", 30)?);
                Ok::<_, Error>(Account {
                    balance: account.unwrap().balance - 30,
                })
            })
            .await
            .map_err(UpdateError::flatten)?;
            tx.modify("accounts", "b", |account: &mut Account| {
                account.balance += 30
            })
            .await
        })
        .await
        .unwrap();
    let types = |id: &'static str| {
        let storage = storage.clone();
        async move {
            let log = log_of(&storage, &DocumentKey::new("accounts", id)).await;
            let last = log.last().unwrap().clone();
            assert_eq!(last.metadata.correlation.as_deref(), Some("order-7"));
            last.events
                .into_iter()
                .map(|event| event.event_type)
                .collect::<Vec<_>>()
        }
    };
    assert_eq!(types("a").await, ["AccountsUpdated", "MoneySent"]);
    assert_eq!(types("b").await, ["AccountsUpdated"]);
}

/// A document that another program changed is adopted inside a transaction as it is by an update.
pub async fn a_transaction_adopts_foreign_changes(store: &dyn TestStore) {
    let storage = with_accounts(store, 100).await;
    let key = DocumentKey::new("accounts", "a");
    let raised = bson::rawdoc! { "_id": "a", "balance": 500_i64, "version": 4_i64 };
    foreign(store).await.put(&key, raised).await;
    storage
        .transaction(|tx| async move { transfer(&tx, "a", "b", 30).await })
        .await
        .unwrap();
    assert_eq!(balances(&storage).await, (470, 130));
    let log = check_log(storage.backend().as_ref(), &key).await;
    assert_eq!(log.versions(), [1, 5, 6]);
}
