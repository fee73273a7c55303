//! Sagas that the program no longer fits, or that no longer fit the store.

use super::super::{SagaInstance, SagaOptions, SagaRunner};
use super::*;

const LONG: Duration = Duration::from_secs(30);

async fn open() -> Storage {
    let storage = Storage::builder().url("embedded::memory:").open().await;
    storage.unwrap()
}

async fn stopped<D>(sagas: &Sagas<D>, runner: SagaRunner) -> SagaInstance<D>
where
    D: serde::Serialize + serde::de::DeserializeOwned + Clone + Send + Sync + 'static,
{
    let found = sagas.wait("1", LONG).await.unwrap();
    runner.shutdown().await;
    found
}

fn waiting() -> Step<Names> {
    Step::wait_for("wait", "Word", |_: &mut Names, (): ()| Ok(()))
}

#[tokio::test]
async fn a_saga_whose_step_has_gone_is_stuck_until_it_is_back() {
    let storage = open().await;
    let all = || {
        Saga::new("s")
            .step(noting("a"))
            .step(waiting())
            .step(noting("b"))
    };
    let sagas = Sagas::new(&storage, all()).unwrap();
    sagas.start("1", Names::new()).await.unwrap();
    // The first step has another name by now.
    let other = Sagas::new(&storage, Saga::new("s").step(noting("x"))).unwrap();
    let runner = other.run(SagaOptions::new()).unwrap();
    let found = stopped(&other, runner).await;
    assert_eq!(
        (found.status(), found.step()),
        (SagaStatus::Stuck, Some("a"))
    );
    assert!(found.last_error().unwrap().contains("no step \"a\""));

    let runner = sagas.run(SagaOptions::new()).unwrap();
    sagas.retry("1").await.unwrap();
    sagas.signal("1", "Word", ()).await.unwrap();
    let found = stopped(&sagas, runner).await;
    assert_eq!(found.status(), SagaStatus::Completed);
    assert_eq!(found.data().unwrap(), ["s/1/a", "s/1/b"]);
    storage.close().await;
}

#[tokio::test]
async fn a_completed_step_that_has_gone_is_not_passed_over() {
    let storage = open().await;
    let all = || Saga::new("s").step(noting("a")).step(waiting());
    let sagas = Sagas::new(&storage, all()).unwrap();
    let runner = sagas.run(SagaOptions::new()).unwrap();
    sagas.start("1", Names::new()).await.unwrap();
    while sagas.status("1").await.unwrap().unwrap().status() != SagaStatus::Waiting {
        tokio::task::yield_now().await;
    }
    runner.shutdown().await;
    let rejecting = Step::wait_for("wait", "Word", |_: &mut Names, (): ()| {
        Err(StepError::rejected("no"))
    });
    let other = Sagas::new(&storage, Saga::new("s").step(rejecting)).unwrap();
    let runner = other.run(SagaOptions::new()).unwrap();
    other.signal("1", "Word", ()).await.unwrap();
    let found = stopped(&other, runner).await;
    assert_eq!(
        (found.status(), found.step()),
        (SagaStatus::Stuck, Some("a"))
    );
    storage.close().await;
}

#[tokio::test]
async fn data_of_another_type_are_stuck_and_unharmed() {
    let storage = open().await;
    let sagas = Sagas::new(&storage, abc()).unwrap();
    sagas.start("1", vec!["x".into()]).await.unwrap();
    let step = Step::new("a", async |_: StepContext<u32>| Ok(()));
    let other = Sagas::new(&storage, Saga::new("s").step(step)).unwrap();
    let runner = other.run(SagaOptions::new()).unwrap();
    let found = stopped(&other, runner).await;
    assert_eq!(found.status(), SagaStatus::Stuck);
    assert_eq!(found.data().unwrap_err().kind(), ErrorKind::Serialization);
    let runner = sagas.run(SagaOptions::new()).unwrap();
    sagas.retry("1").await.unwrap();
    let found = stopped(&sagas, runner).await;
    assert_eq!(found.status(), SagaStatus::Completed);
    assert_eq!(found.data().unwrap()[0], "x");
    storage.close().await;
}

#[tokio::test]
async fn a_result_that_cannot_be_stored_is_seen() {
    let storage = open().await;
    let step = Step::new("a", async |ctx: Context| {
        ctx.change(|names| names.push("x".repeat(20 << 20)));
        Ok(())
    });
    let sagas = Sagas::new(&storage, Saga::new("s").step(step)).unwrap();
    let runner = sagas.run(SagaOptions::new()).unwrap();
    sagas.start("1", Names::new()).await.unwrap();
    let found = stopped(&sagas, runner).await;
    assert_eq!(found.status(), SagaStatus::Stuck);
    let error = found.last_error().unwrap();
    assert!(
        error.starts_with("the step's result cannot be stored"),
        "{error}"
    );
    assert!(found.data().unwrap().is_empty());
    storage.close().await;
}

#[tokio::test]
async fn signals_have_a_bound() {
    let storage = open().await;
    let sagas = Sagas::new(&storage, Saga::new("s").step(waiting())).unwrap();
    sagas.start("1", Names::new()).await.unwrap();
    for n in 0..1_000 {
        let id = n.to_string();
        sagas.signal_once("1", &id, "Other", n).await.unwrap();
    }
    let error = sagas.signal("1", "Other", 0).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    storage.close().await;
}
