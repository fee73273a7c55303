//! Who carries sagas out: leases, outages, bounds, endings.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bson::Document;
use tokio::sync::Notify;

use super::sagas::{Attempts, Context, LONG, Notes, run};
use crate::error::ErrorKind;
use crate::saga::{Saga, SagaOptions, SagaRunnerState, SagaStatus, Sagas, Step};
use crate::storage::RetryPolicy;
use crate::testing::support::{kind_of, on_backend, open};
use crate::testing::{Fault, FaultyBackend, TestStore, eventually};

/// Of two runners of one name one works; when it ends, or its handle is dropped, the other one goes on with
/// what it left.
pub async fn runners_of_one_name_take_turns(store: &dyn TestStore) {
    let storage = open(store).await;
    let attempts = Attempts::default();
    let endless = Saga::new("s").step(attempts.endless("a"));
    let first_sagas = Sagas::new(&storage, endless).unwrap();
    let sagas = Sagas::new(&storage, Saga::new("s").step(attempts.step("a"))).unwrap();
    let options = SagaOptions::new().with_drain_timeout(Duration::ZERO);
    let first = first_sagas.run(options).unwrap();
    first.started().await.unwrap();
    let second = run(&sagas);
    let mut states = second.state_changes();
    let waits = |state: &SagaRunnerState| matches!(state, SagaRunnerState::WaitingForLease);
    states.wait_for(waits).await.unwrap();
    sagas.start("1", Notes::new()).await.unwrap();
    attempts.until(1).await;
    assert!(matches!(second.state(), SagaRunnerState::WaitingForLease));
    drop(first);
    second.started().await.unwrap();
    let ended = sagas.wait("1", LONG).await.unwrap();
    assert_eq!(ended.status(), SagaStatus::Completed);
    assert_eq!(attempts.seen(), ["s/1/a", "s/1/a"]);
    // Sagas of another name are nobody else's business.
    let other = Sagas::new(&storage, Saga::new("t").step(attempts.step("a"))).unwrap();
    let third = run(&other);
    other.start("1", Notes::new()).await.unwrap();
    other.wait("1", LONG).await.unwrap();
    third.shutdown().await;
    second.shutdown().await;
    storage.close().await;
}

/// Notes when it is dropped.
struct Dropped(Arc<AtomicU32>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A runner whose lease is refused drops the steps that are in work at the `await` they are in, lines up
/// again, and goes on with them from their beginning.
pub async fn a_runner_that_lost_its_lease_drops_its_steps(store: &dyn TestStore) {
    let faulty = FaultyBackend::new(store.backend().await.unwrap());
    let storage = on_backend(faulty.clone(), |builder| builder).await;
    let (attempts, dropped) = (Attempts::default(), Arc::new(AtomicU32::new(0)));
    let step = {
        let (attempts, dropped) = (attempts.clone(), Arc::clone(&dropped));
        Step::new("a", move |ctx: Context| {
            attempts.note(ctx.effect_id());
            let (dropped, is_first) = (Dropped(Arc::clone(&dropped)), attempts.seen().len() == 1);
            async move {
                if is_first {
                    std::future::pending::<()>().await;
                }
                drop(dropped);
                Ok(())
            }
        })
    };
    let sagas = Sagas::new(&storage, Saga::new("s").step(step)).unwrap();
    let options = SagaOptions::new().with_lease_ttl(Duration::from_millis(600));
    let runner = sagas.run(options).unwrap();
    sagas.start("1", Notes::new()).await.unwrap();
    attempts.until(1).await;
    faulty.fail_with([Fault::Lease(ErrorKind::InUse)]);
    eventually("the step is dropped", || async {
        dropped.load(Ordering::SeqCst) > 0
    })
    .await;
    let ended = sagas.wait("1", LONG).await.unwrap();
    assert_eq!(ended.status(), SagaStatus::Completed);
    assert_eq!(attempts.seen(), ["s/1/a", "s/1/a"]);
    assert_eq!(faulty.faults_left(), 0);
    runner.shutdown().await;
    storage.close().await;
}

/// Once a later runner has written a saga, what a former one still decides on it is refused.
pub async fn what_a_former_runner_decided_is_refused(store: &dyn TestStore) {
    let storage = open(store).await;
    let (attempts, goes) = (Attempts::default(), Arc::new(Notify::new()));
    let step = {
        let (attempts, goes) = (attempts.clone(), Arc::clone(&goes));
        Step::new("a", move |ctx: Context| {
            attempts.note(ctx.effect_id());
            let goes = Arc::clone(&goes);
            async move {
                goes.notified().await;
                Ok(())
            }
        })
    };
    let saga = Saga::new("s").step(step).step(attempts.step("b"));
    let sagas = Sagas::new(&storage, saga).unwrap();
    let runner = run(&sagas);
    sagas.start("1", Notes::new()).await.unwrap();
    attempts.until(1).await;
    // As a runner that took over would: with a higher fence.
    let overtaken = storage.update("sagas", "s/1", |found: Option<Document>| {
        let mut found = found.unwrap();
        found.insert("fence", 1_000_000_i64);
        found
    });
    let version = overtaken.await.unwrap().version();
    goes.notify_one();
    // Another saga gets through, so this one would have too.
    sagas.start("2", Notes::new()).await.unwrap();
    attempts.until(2).await;
    goes.notify_one();
    sagas.wait("2", LONG).await.unwrap();
    let found = sagas.status("1").await.unwrap().unwrap();
    assert_eq!((found.version(), found.step()), (version, Some("a")));
    assert!(!attempts.seen().contains(&"s/1/b".to_owned()));
    runner.shutdown().await;
    storage.close().await;
}

/// Outages of the store, and commits whose outcome it does not know, neither lose nor repeat a step.
pub async fn outages_and_unknown_commits_are_survived(store: &dyn TestStore) {
    let faulty = FaultyBackend::new(store.backend().await.unwrap());
    let storage = on_backend(faulty.clone(), |builder| {
        builder.retry(RetryPolicy::never())
    })
    .await;
    let faults = [
        Fault::Failed(ErrorKind::Unavailable),
        Fault::UnknownUnwritten,
        Fault::UnknownWritten,
        Fault::Conflict,
    ];
    let attempts = Attempts::default();
    let (noting, meeting) = (attempts.clone(), Arc::clone(&faulty));
    let step = Step::new("a", move |ctx: Context| {
        noting.note(ctx.effect_id());
        // The next commit is that of the step's completion.
        let fault = faults[ctx.id().parse::<usize>().unwrap()];
        meeting.fail_with([fault]);
        async { Ok(()) }
    });
    let saga = Saga::new("s").step(step).step(attempts.step("b"));
    let sagas = Sagas::new(&storage, saga).unwrap();
    let runner = run(&sagas);
    let mut expected = Vec::new();
    runner.started().await.unwrap();
    for (n, fault) in faults.iter().enumerate() {
        let id = n.to_string();
        // The storage tries nothing again, and a store may be busy.
        eventually("the saga is started", || async {
            sagas.start(&id, Notes::new()).await.is_ok()
        })
        .await;
        let ended = sagas.wait(&id, LONG).await.unwrap();
        assert_eq!(ended.status(), SagaStatus::Completed, "{fault:?}");
        assert_eq!(ended.completed().len(), 2);
        assert_eq!(faulty.faults_left(), 0, "{fault:?}");
        expected.extend([format!("s/{n}/a"), format!("s/{n}/b")]);
    }
    assert_eq!(attempts.seen(), expected);
    // The log breaks off; what is started after that is noticed all the same.
    faulty.fail_with([Fault::Tail(ErrorKind::Unavailable)]);
    let other = Saga::new("t").step(attempts.step("a"));
    let other = Sagas::new(&storage, other).unwrap();
    let others = run(&other);
    eventually("the saga is started", || async {
        other.start("1", Notes::new()).await.is_ok()
    })
    .await;
    other.wait("1", LONG).await.unwrap();
    others.shutdown().await;
    runner.shutdown().await;
    storage.close().await;
}

/// No more sagas are in work at a time than the options allow, and all come to their turn.
pub async fn no_more_sagas_run_at_a_time_than_allowed(store: &dyn TestStore) {
    const SAGAS: usize = 60;
    let storage = open(store).await;
    let (now, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (running, highest) = (Arc::clone(&now), Arc::clone(&most));
    let step = Step::new("a", move |_: Context| {
        let (running, highest) = (Arc::clone(&running), Arc::clone(&highest));
        async move {
            let count = running.fetch_add(1, Ordering::SeqCst) + 1;
            highest.fetch_max(count, Ordering::SeqCst);
            tokio::task::yield_now().await;
            running.fetch_sub(1, Ordering::SeqCst);
            Ok(())
        }
    });
    let sagas = Sagas::new(&storage, Saga::new("s").step(step)).unwrap();
    // Some before the runner begins.
    for n in 0..SAGAS / 2 {
        sagas.start(&n.to_string(), Notes::new()).await.unwrap();
    }
    let options = SagaOptions::new().with_concurrency(3);
    let runner = sagas.run(options.with_look_interval(LONG * 60)).unwrap();
    for n in SAGAS / 2..SAGAS {
        sagas.start(&n.to_string(), Notes::new()).await.unwrap();
    }
    for n in 0..SAGAS {
        sagas.wait(&n.to_string(), LONG).await.unwrap();
    }
    let most = most.load(Ordering::SeqCst);
    assert!((1..=3).contains(&most), "{most}");
    assert_eq!(now.load(Ordering::SeqCst), 0);
    runner.shutdown().await;
    storage.close().await;
}

/// What another storage starts and signals is noticed through the log; a saga that waits for its next
/// attempt gets it in time.
pub async fn sagas_of_other_processes_are_noticed(store: &dyn TestStore) {
    let storage = open(store).await;
    let other = open(store).await;
    let attempts = Attempts::default();
    let saga = || {
        let wait = Step::wait_for("wait", "Word", |_: &mut Notes, (): ()| Ok(()));
        Saga::new("s").step(attempts.step("a")).step(wait)
    };
    let here = Sagas::new(&storage, saga()).unwrap();
    let runner = run(&here);
    runner.started().await.unwrap();
    let there = Sagas::new(&other, saga()).unwrap();
    for n in 0..5 {
        let id = n.to_string();
        there.start(&id, Notes::new()).await.unwrap();
        eventually("the saga waits", || async {
            there.status(&id).await.unwrap().unwrap().status() == SagaStatus::Waiting
        })
        .await;
        there.signal(&id, "Word", ()).await.unwrap();
        let ended = there.wait(&id, LONG).await.unwrap();
        assert_eq!(ended.status(), SagaStatus::Completed);
    }
    let late = there.wait("0", Duration::ZERO).await;
    assert!(late.is_ok() || kind_of(late) == ErrorKind::Timeout);
    there.start("9", Notes::new()).await.unwrap();
    let late = there.wait("9", Duration::from_millis(20)).await;
    assert_eq!(kind_of(late), ErrorKind::Timeout);
    runner.shutdown().await;
    other.close().await;
    storage.close().await;
}

/// Shutting down lets steps in work come to their end and stores it, begins no further ones, and drops
/// those that take longer than they may.
pub async fn shutting_down_waits_for_steps_in_work(store: &dyn TestStore) {
    let storage = open(store).await;
    let (attempts, goes) = (Attempts::default(), Arc::new(Notify::new()));
    let step = {
        let (attempts, goes) = (attempts.clone(), Arc::clone(&goes));
        Step::new("a", move |ctx: Context| {
            attempts.note(ctx.effect_id());
            let goes = Arc::clone(&goes);
            async move {
                goes.notified().await;
                Ok(())
            }
        })
    };
    let saga = Saga::new("s").step(step).step(attempts.endless("b"));
    let sagas = Sagas::new(&storage, saga).unwrap();
    let runner = sagas
        .run(SagaOptions::new().with_drain_timeout(LONG))
        .unwrap();
    sagas.start("1", Notes::new()).await.unwrap();
    attempts.until(1).await;
    let shutdown = async {
        runner.shutdown().await;
        assert!(matches!(runner.state(), SagaRunnerState::Stopped(_)));
    };
    let goes_on = async {
        tokio::task::yield_now().await;
        goes.notify_one();
    };
    tokio::join!(shutdown, goes_on);
    let found = sagas.status("1").await.unwrap().unwrap();
    assert_eq!(found.step(), Some("b"));
    assert_eq!(attempts.seen(), ["s/1/a"]);
    let options = SagaOptions::new().with_drain_timeout(Duration::from_millis(1));
    let runner = sagas.run(options).unwrap();
    attempts.until(2).await;
    runner.shutdown().await;
    assert_eq!(sagas.status("1").await.unwrap().unwrap().step(), Some("b"));
    storage.close().await;
}

/// A runner whose storage is closed stops, and says why.
pub async fn sagas_end_with_their_storage(store: &dyn TestStore) {
    let storage = open(store).await;
    let attempts = Attempts::default();
    let sagas = Sagas::new(&storage, Saga::new("s").step(attempts.step("a"))).unwrap();
    let runner = run(&sagas);
    runner.started().await.unwrap();
    storage.close().await;
    let mut states = runner.state_changes();
    let stopped = |state: &SagaRunnerState| matches!(state, SagaRunnerState::Stopped(_));
    let state = states.wait_for(stopped).await.unwrap().clone();
    let SagaRunnerState::Stopped(error) = state else {
        panic!("{state:?}");
    };
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert_eq!(
        kind_of(sagas.start("1", Notes::new()).await),
        ErrorKind::Closed
    );
    assert_eq!(kind_of(sagas.status("1").await), ErrorKind::Closed);
    runner.shutdown().await;
}
