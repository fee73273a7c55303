//! Sagas whose steps send commands.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::account::{Account, AccountCommand, deposit, opening, withdraw};
use super::sagas::{LONG, run};
use super::transfer::Transfer;
use crate::aggregate::Repository;
use crate::command::{CommandOptions, Dispatcher};
use crate::error::ErrorKind;
use crate::saga::{FailureKind, Saga, SagaStatus, Sagas, Step, StepRetry};
use crate::storage::{RetryPolicy, Storage};
use crate::testing::support::{on_backend, open};
use crate::testing::{Fault, FaultyBackend, TestStore, eventually};

fn dispatcher(storage: &Storage) -> Dispatcher {
    let accounts = Repository::<Account>::new(storage);
    Dispatcher::builder().aggregate(accounts).unwrap().build()
}

async fn balance(storage: &Storage, id: &str) -> i64 {
    let accounts = Repository::<Account>::new(storage);
    accounts.load(id).await.unwrap().balance
}

/// A transfer whose first command is told by `withdrawing`.
fn transfer(
    dispatcher: &Dispatcher,
    withdrawing: impl Fn(i64) -> AccountCommand + Send + Sync + 'static,
) -> Saga<Transfer> {
    let withdrawal = Step::sending("withdraw", dispatcher, move |t: &Transfer| {
        (t.from.clone(), withdrawing(t.amount))
    });
    let withdrawal = withdrawal
        .compensate_sending(dispatcher, |t| (t.from.clone(), deposit(t.amount)))
        .with_retry(StepRetry::never());
    let deposit = Step::sending("deposit", dispatcher, |t: &Transfer| {
        (t.to.clone(), deposit(t.amount))
    });
    Saga::new("transfer").step(withdrawal).step(deposit)
}

fn to(to: &str, amount: i64) -> Transfer {
    Transfer {
        from: "a".to_owned(),
        to: to.to_owned(),
        amount,
    }
}

/// A step's command has the effect as its id, so that a repetition is known, and the saga as correlation; a
/// rejected command rejects the step.
pub async fn commands_are_sent_once_under_the_effects_id(store: &dyn TestStore) {
    let storage = open(store).await;
    let dispatcher = dispatcher(&storage);
    for id in ["a", "b"] {
        dispatcher.send(id, opening("Kim", 100)).await.unwrap();
    }
    let sagas = Sagas::new(&storage, transfer(&dispatcher, withdraw)).unwrap();
    let runner = run(&sagas);
    sagas.start("T-1", to("b", 30)).await.unwrap();
    let ended = sagas.wait("T-1", LONG).await.unwrap();
    assert_eq!(ended.status(), SagaStatus::Completed, "{ended:?}");
    assert_eq!(balance(&storage, "a").await, 70);
    assert_eq!(balance(&storage, "b").await, 130);
    let again = CommandOptions::new().with_command_id("transfer/T-1/withdraw");
    let again = dispatcher
        .send_with("a", withdraw(30), again)
        .await
        .unwrap();
    assert!(again.is_duplicate());
    let event = &again.events()[0];
    let metadata = event.metadata();
    assert_eq!(metadata.correlation.as_deref(), Some("transfer/T-1"));
    assert_eq!(metadata.causation.as_deref(), Some("transfer/T-1/withdraw"));

    // Nobody has opened that account.
    sagas.start("T-2", to("c", 30)).await.unwrap();
    let ended = sagas.wait("T-2", LONG).await.unwrap();
    assert_eq!(ended.status(), SagaStatus::Compensated, "{ended:?}");
    assert_eq!(ended.failure().unwrap().reason, "account is not active");
    sagas.start("T-3", to("b", 1_000)).await.unwrap();
    let ended = sagas.wait("T-3", LONG).await.unwrap();
    assert_eq!(ended.status(), SagaStatus::Compensated, "{ended:?}");
    assert!(ended.completed().is_empty());
    assert_eq!(balance(&storage, "a").await, 70);
    runner.shutdown().await;
    storage.close().await;
}

/// A command of which nobody knows whether it was carried out is undone only if it was.
pub async fn commands_in_doubt_are_settled_before_they_are_undone(store: &dyn TestStore) {
    let faulty = FaultyBackend::new(store.backend().await.unwrap());
    let storage = on_backend(faulty.clone(), |builder| {
        builder.retry(RetryPolicy::never())
    })
    .await;
    let dispatcher = dispatcher(&storage);
    // The storage tries nothing again, and a store may be busy.
    for id in ["a", "b"] {
        eventually("the account is open", || async {
            let opened = dispatcher.send(id, opening("Kim", 100)).await;
            opened.is_ok_and(|opened| opened.version() == 1)
        })
        .await;
    }
    let fails = Arc::new(AtomicBool::new(false));
    let fault = Arc::new(Mutex::new(Fault::UnknownWritten));
    let withdrawing = {
        let (faulty, fails, fault) = (Arc::clone(&faulty), Arc::clone(&fails), Arc::clone(&fault));
        move |amount: i64| {
            // The next commit is that of the command.
            if fails.swap(false, Ordering::SeqCst) {
                faulty.fail_with([*fault.lock().unwrap()]);
            }
            withdraw(amount)
        }
    };
    let sagas = Sagas::new(&storage, transfer(&dispatcher, withdrawing)).unwrap();
    let runner = run(&sagas);
    runner.started().await.unwrap();
    let faults = [
        Fault::UnknownWritten,
        Fault::UnknownUnwritten,
        Fault::Failed(ErrorKind::Unavailable),
    ];
    for (n, next) in faults.into_iter().enumerate() {
        *fault.lock().unwrap() = next;
        fails.store(true, Ordering::SeqCst);
        let id = format!("T-{n}");
        eventually("the saga is started", || async {
            sagas.start(&id, to("b", 30)).await.is_ok()
        })
        .await;
        let ended = sagas.wait(&id, LONG).await.unwrap();
        assert_eq!(
            ended.status(),
            SagaStatus::Compensated,
            "{next:?} {ended:?}"
        );
        let failure = ended.failure().unwrap();
        assert_eq!(
            (&*failure.step, failure.kind),
            ("withdraw", FailureKind::Exhausted)
        );
        assert!(ended.completed()[0].in_doubt);
        assert_eq!(faulty.faults_left(), 0, "{next:?}");
        assert_eq!(balance(&storage, "a").await, 100, "{next:?}");
        assert_eq!(balance(&storage, "b").await, 100, "{next:?}");
    }
    runner.shutdown().await;
    storage.close().await;
}
