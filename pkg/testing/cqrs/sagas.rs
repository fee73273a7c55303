//! What sagas promise, on a store.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::transfer::{Transfer, account, open_account, plain_transfer};
use crate::document::DocumentKey;
use crate::error::ErrorKind;
use crate::saga::{
    Saga, SagaOptions, SagaRunner, SagaStatus, Sagas, Step, StepContext, StepError, StepRetry,
};
use crate::testing::support::{kind_of, log_of, on_backend, open};
use crate::testing::{TestStore, eventually};

pub(super) type Notes = Vec<String>;
pub(super) type Context = StepContext<Notes>;

/// Longer than any case takes.
pub(super) const LONG: Duration = Duration::from_secs(60);

/// A runner that looks through the store only when it has an occasion.
pub(super) fn run<D>(sagas: &Sagas<D>) -> SagaRunner
where
    D: serde::Serialize + serde::de::DeserializeOwned + Clone + Send + Sync + 'static,
{
    let seldom = SagaOptions::new().with_look_interval(Duration::from_secs(3_600));
    sagas.run(seldom).expect("the runner starts")
}

/// The effect ids of what was attempted.
#[derive(Clone, Default)]
pub(super) struct Attempts(Arc<Mutex<Vec<String>>>);

impl Attempts {
    pub(super) fn seen(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    pub(super) fn note(&self, effect: &str) {
        self.0.lock().unwrap().push(effect.to_owned());
    }

    /// A step that does nothing but note that it ran.
    pub(super) fn step(&self, name: &'static str) -> Step<Notes> {
        let (attempts, undone) = (self.clone(), self.clone());
        Step::new(name, move |ctx: Context| {
            attempts.note(ctx.effect_id());
            async { Ok(()) }
        })
        .compensate_with(move |ctx: Context| {
            undone.note(ctx.effect_id());
            async { Ok(()) }
        })
    }

    /// A step that notes that it began, and never ends.
    pub(super) fn endless(&self, name: &'static str) -> Step<Notes> {
        let attempts = self.clone();
        Step::new(name, move |ctx: Context| {
            attempts.note(ctx.effect_id());
            std::future::pending()
        })
    }

    /// Waits until so many attempts were begun.
    pub(super) async fn until(&self, count: usize) {
        eventually("the steps are attempted", || async {
            self.seen().len() >= count
        })
        .await;
    }
}

async fn status<D>(sagas: &Sagas<D>, id: &str) -> SagaStatus
where
    D: serde::Serialize + serde::de::DeserializeOwned + Clone + Send + Sync + 'static,
{
    sagas.status(id).await.unwrap().unwrap().status()
}

/// A transfer to an account that is not there is rejected, and the debit is taken back; of more steps the
/// last one is compensated first.
pub async fn a_rejected_transfer_is_compensated_in_reverse_order(store: &dyn TestStore) {
    let storage = open(store).await;
    open_account(&storage, "a", 100).await.unwrap();
    let transfers = Sagas::new(&storage, plain_transfer(&storage)).unwrap();
    let runner = run(&transfers);
    let transfer = Transfer {
        from: "a".into(),
        to: "nobody".into(),
        amount: 60,
    };
    transfers.start("T-1", transfer).await.unwrap();
    let ended = transfers.wait("T-1", LONG).await.unwrap();
    assert_eq!(ended.status(), SagaStatus::Compensated, "{ended:?}");
    assert_eq!(ended.failure().unwrap().step, "credit");
    let found = account(&storage, "a").await.unwrap();
    assert_eq!(found.balance, 100);
    let effects: Vec<_> = found.effects.into_iter().collect();
    let expected = [
        ("transfer/T-1/debit".to_owned(), -60),
        ("transfer/T-1/debit/compensate".to_owned(), 60),
    ];
    assert_eq!(effects, expected);
    runner.shutdown().await;

    let attempts = Attempts::default();
    let rejected = Step::new("d", async |_: Context| Err(StepError::rejected("no")));
    let saga = Saga::new("order")
        .step(attempts.step("a"))
        .step(attempts.step("b"));
    let saga = saga.step(attempts.step("c")).step(rejected);
    let sagas = Sagas::new(&storage, saga).unwrap();
    let runner = run(&sagas);
    sagas.start("1", Notes::new()).await.unwrap();
    let ended = sagas.wait("1", LONG).await.unwrap();
    assert_eq!(ended.status(), SagaStatus::Compensated);
    let of = |step: &str| format!("order/1/{step}");
    let expected = [
        "a",
        "b",
        "c",
        "c/compensate",
        "b/compensate",
        "a/compensate",
    ];
    assert_eq!(attempts.seen(), expected.map(of));
    runner.shutdown().await;
    storage.close().await;
}

/// A saga that was in the middle of a step when its process ended goes on with that step, under the same
/// effect id; what was completed does not run again.
pub async fn a_restart_in_the_middle_resumes(store: &dyn TestStore) {
    let storage = open(store).await;
    let attempts = Attempts::default();
    let saga = Saga::new("s")
        .step(attempts.step("a"))
        .step(attempts.endless("b"));
    let sagas = Sagas::new(&storage, saga.step(attempts.step("c"))).unwrap();
    let options = SagaOptions::new().with_drain_timeout(Duration::ZERO);
    let runner = sagas.run(options).unwrap();
    sagas.start("1", Notes::new()).await.unwrap();
    attempts.until(2).await;
    runner.shutdown().await;

    let storage = on_backend(store.reopen().await.unwrap(), |builder| builder).await;
    let saga = Saga::new("s")
        .step(attempts.step("a"))
        .step(attempts.step("b"));
    let sagas = Sagas::new(&storage, saga.step(attempts.step("c"))).unwrap();
    let unfinished = sagas.unfinished(None, 10).await.unwrap();
    let [found] = &unfinished[..] else {
        panic!("{unfinished:?}");
    };
    assert_eq!((found.id(), found.step()), ("1", Some("b")));
    assert_eq!(found.status(), SagaStatus::Running);
    let runner = run(&sagas);
    let ended = sagas.wait("1", LONG).await.unwrap();
    assert_eq!(ended.status(), SagaStatus::Completed);
    assert_eq!(attempts.seen(), ["s/1/a", "s/1/b", "s/1/b", "s/1/c"]);
    assert!(sagas.unfinished(None, 10).await.unwrap().is_empty());
    runner.shutdown().await;
    storage.close().await;
}

/// A deadline that passes while no runner is there is noticed by the next one; one that has not passed yet
/// is waited for.
pub async fn a_timeout_fires_after_a_restart(store: &dyn TestStore) {
    let storage = open(store).await;
    let attempts = Attempts::default();
    let saga = |timeout: Duration| {
        let wait = Step::wait_for("wait", "Word", |_: &mut Notes, (): ()| Ok(()));
        Saga::new("s")
            .step(attempts.step("a"))
            .step(wait.with_timeout(timeout))
    };
    let short = Duration::from_millis(300);
    let sagas = Sagas::new(&storage, saga(short)).unwrap();
    let runner = run(&sagas);
    for id in ["1", "2"] {
        sagas.start(id, Notes::new()).await.unwrap();
    }
    eventually("the saga waits", || async {
        status(&sagas, "1").await == SagaStatus::Waiting
            && status(&sagas, "2").await == SagaStatus::Waiting
    })
    .await;
    runner.shutdown().await;
    let deadline = sagas
        .status("1")
        .await
        .unwrap()
        .unwrap()
        .deadline()
        .unwrap();

    let storage = on_backend(store.reopen().await.unwrap(), |builder| builder).await;
    eventually("the deadline passes", || async {
        bson::DateTime::now() > deadline
    })
    .await;
    // The stored deadline counts, not what the program says by now.
    let sagas = Sagas::new(&storage, saga(LONG)).unwrap();
    let runner = run(&sagas);
    for id in ["1", "2"] {
        let ended = sagas.wait(id, LONG).await.unwrap();
        assert_eq!(ended.status(), SagaStatus::Compensated);
    }
    runner.shutdown().await;

    // The runner that fires here never saw the saga begin to wait.
    let sagas = Sagas::new(&storage, saga(short)).unwrap();
    let runner = run(&sagas);
    sagas.start("3", Notes::new()).await.unwrap();
    eventually("the saga waits", || async {
        status(&sagas, "3").await != SagaStatus::Running
    })
    .await;
    runner.shutdown().await;
    let runner = run(&sagas);
    let ended = sagas.wait("3", LONG).await.unwrap();
    assert_eq!(ended.status(), SagaStatus::Compensated);
    runner.shutdown().await;
    storage.close().await;
}

/// Many transfers at once between few accounts, some of them refused: the sum stays, and each is made once
/// or not at all.
pub async fn transfers_lose_and_make_no_money(store: &dyn TestStore) {
    const TRANSFERS: usize = 40;
    let storage = open(store).await;
    let accounts = ["a", "b", "c"];
    for id in accounts {
        open_account(&storage, id, 100).await.unwrap();
    }
    let transfers = Sagas::new(&storage, plain_transfer(&storage)).unwrap();
    let runner = run(&transfers);
    for n in 0..TRANSFERS {
        let transfer = Transfer {
            from: accounts[n % 3].into(),
            // Every eighth goes to nobody.
            to: match n % 8 {
                0 => "nobody".into(),
                _ => accounts[(n + 1 + n % 2) % 3].into(),
            },
            amount: 10 + (n as i64 * 7) % 60,
        };
        transfers.start(&format!("T-{n}"), transfer).await.unwrap();
    }
    let mut expected: Vec<i64> = vec![100; 3];
    let mut compensated = 0;
    for n in 0..TRANSFERS {
        let ended = transfers.wait(&format!("T-{n}"), LONG).await.unwrap();
        let transfer = ended.data().unwrap();
        match ended.status() {
            SagaStatus::Completed => {
                for (place, id) in accounts.iter().enumerate() {
                    expected[place] += match *id {
                        id if id == transfer.from => -transfer.amount,
                        id if id == transfer.to => transfer.amount,
                        _ => 0,
                    };
                }
            }
            SagaStatus::Compensated => compensated += 1,
            other => panic!("T-{n} is {other}"),
        }
    }
    assert!(compensated >= TRANSFERS / 8, "{compensated}");
    for (id, expected) in accounts.iter().zip(expected) {
        assert_eq!(
            account(&storage, id).await.unwrap().balance,
            expected,
            "{id}"
        );
    }
    runner.shutdown().await;
    storage.close().await;
}

/// A saga whose compensation keeps failing is stuck, is listed, and goes on where it was when it is retried.
pub async fn stuck_sagas_are_listed_and_retried(store: &dyn TestStore) {
    let storage = open(store).await;
    let works = Arc::new(AtomicU32::new(0));
    let mends = Arc::clone(&works);
    let step = Step::new("a", async |_: Context| Ok(()))
        .compensate_with(move |_: Context| {
            let works = works.load(Ordering::SeqCst) > 0;
            async move {
                match works {
                    true => Ok(()),
                    false => Err(StepError::retryable("not yet")),
                }
            }
        })
        .with_compensation_retry(
            StepRetry::new()
                .with_attempts(3)
                .with_delays(Duration::from_millis(1), Duration::from_millis(5)),
        );
    let rejected = Step::new("b", async |_: Context| Err(StepError::rejected("no")));
    let saga = Saga::new("s").step(step).step(rejected);
    let sagas = Sagas::new(&storage, saga).unwrap();
    let runner = run(&sagas);
    for id in ["1", "2", "3"] {
        sagas.start(id, Notes::new()).await.unwrap();
        let stuck = sagas.wait(id, LONG).await.unwrap();
        assert_eq!(
            (stuck.status(), stuck.step()),
            (SagaStatus::Stuck, Some("a"))
        );
        assert_eq!(stuck.last_error(), Some("not yet"));
    }
    let ids = async |after: Option<&str>, limit: u64| {
        let stuck = sagas.stuck(after, limit).await.unwrap();
        let ids = stuck.iter().map(|saga| saga.id().to_owned());
        ids.collect::<Vec<_>>()
    };
    assert_eq!(ids(None, 2).await, ["1", "2"]);
    assert_eq!(ids(Some("2"), 2).await, ["3"]);
    assert_eq!(sagas.unfinished(None, 10).await.unwrap().len(), 3);
    mends.store(1, Ordering::SeqCst);
    sagas.retry("2").await.unwrap();
    let ended = sagas.wait("2", LONG).await.unwrap();
    assert_eq!(ended.status(), SagaStatus::Compensated);
    assert_eq!(ids(None, 10).await, ["1", "3"]);
    assert_eq!(kind_of(sagas.retry("2").await), ErrorKind::InvalidConfig);
    assert_eq!(kind_of(sagas.retry("9").await), ErrorKind::NotFound);
    runner.shutdown().await;
    storage.close().await;
}

/// What happens to a saga is in the log as events, with the saga as correlation and the effect as causation.
pub async fn a_sagas_changes_are_its_events(store: &dyn TestStore) {
    let storage = open(store).await;
    let attempts = Attempts::default();
    let rejected = Step::new("b", async |_: Context| Err(StepError::rejected("no")));
    let saga = Saga::new("s").step(attempts.step("a")).step(rejected);
    let sagas = Sagas::new(&storage, saga).unwrap();
    let runner = run(&sagas);
    sagas.start("1", Notes::new()).await.unwrap();
    let ended = sagas.wait("1", LONG).await.unwrap();
    runner.shutdown().await;
    let entries = log_of(&storage, &DocumentKey::new("sagas", "s/1")).await;
    assert_eq!(entries.len() as u64, ended.version().get());
    let mut told = Vec::new();
    for entry in &entries {
        assert_eq!(entry.metadata.correlation.as_deref(), Some("s/1"));
        for event in entry.to_events().unwrap() {
            assert_eq!(event.aggregate_type(), "Saga");
            assert_eq!(event.data()["saga"], "s");
            assert_eq!(event.data()["id"], "1");
            told.push((
                event.event_type().to_owned(),
                entry.metadata.causation.clone(),
            ));
        }
    }
    let expected = [
        ("SagaStarted", None),
        ("SagaStepCompleted", Some("s/1/a")),
        ("SagaCompensating", Some("s/1/b")),
        ("SagaStepCompensated", Some("s/1/a/compensate")),
        ("SagaCompensated", Some("s/1/a/compensate")),
    ];
    let expected = expected.map(|(name, cause)| (name.to_owned(), cause.map(str::to_owned)));
    assert_eq!(told, expected);
    storage.close().await;
}
