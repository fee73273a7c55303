//! The rules, rehearsed in memory; what needs a store is in `testing/cqrs/sagas.rs`.

mod failures;
mod signals;
#[cfg(feature = "embedded")]
mod stored;

use std::time::Duration;

use super::{Saga, SagaStatus, Sagas, Step, StepContext, StepError, StepRetry};
use crate::error::ErrorKind;
use crate::storage::Storage;
use crate::testing::SagaTest;

type Names = Vec<String>;
type Context = StepContext<Names>;

const SECOND: Duration = Duration::from_secs(1);

/// A step that notes its effect, and takes it back.
fn noting(name: &'static str) -> Step<Names> {
    Step::new(name, async |ctx: Context| {
        let effect = ctx.effect_id().to_owned();
        ctx.change(|names| names.push(effect));
        Ok(())
    })
    .compensate_with(async |ctx: Context| {
        let action = ctx.action_id().to_owned();
        ctx.change(|names| names.retain(|name| *name != action));
        Ok(())
    })
}

fn abc() -> Saga<Names> {
    Saga::new("s")
        .step(noting("a"))
        .step(noting("b"))
        .step(noting("c"))
}

fn test(saga: Saga<Names>) -> SagaTest<Names> {
    SagaTest::given(saga, "1", Vec::new())
}

#[tokio::test]
async fn steps_run_in_order_with_ids_of_their_own() {
    test(abc())
        .when_started()
        .await
        .then_ran(["a", "b", "c"])
        .then_status(SagaStatus::Completed)
        .then_at(None)
        .then_data_is(vec!["s/1/a".into(), "s/1/b".into(), "s/1/c".into()])
        .then_events([
            "SagaStarted",
            "SagaStepCompleted",
            "SagaStepCompleted",
            "SagaStepCompleted",
            "SagaCompleted",
        ]);
}

#[tokio::test]
async fn a_context_knows_its_saga() {
    let step = Step::new("look", async |ctx: Context| {
        assert_eq!((ctx.saga(), ctx.id(), ctx.step()), ("s", "1/x", "look"));
        assert_eq!(
            (ctx.effect_id(), ctx.action_id()),
            ("s/1/x/look", "s/1/x/look")
        );
        assert_eq!((ctx.attempt(), ctx.is_compensation()), (1, false));
        assert_eq!(ctx.new_id("a"), ctx.new_id("a"));
        assert_ne!(ctx.new_id("a"), ctx.new_id("b"));
        assert_eq!(ctx.metadata().correlation.as_deref(), Some("s/1/x"));
        assert_eq!(ctx.metadata().causation.as_deref(), Some("s/1/x/look"));
        Ok(())
    });
    let saga = SagaTest::given(Saga::new("s").step(step), "1/x", Vec::new());
    saga.when_started().await.then_status(SagaStatus::Completed);
}

#[cfg(feature = "embedded")]
#[tokio::test]
async fn bad_definitions_are_refused() {
    let storage = Storage::builder().url("embedded::memory:").open().await;
    let storage = storage.unwrap();
    let kind = |saga: Saga<Names>| Sagas::new(&storage, saga).unwrap_err().kind();
    assert_eq!(kind(Saga::new("s")), ErrorKind::InvalidConfig);
    assert_eq!(kind(abc().step(noting("b"))), ErrorKind::InvalidConfig);
    assert_eq!(
        kind(abc().step(noting("compensate"))),
        ErrorKind::InvalidConfig
    );
    for name in ["", "a/b", "a\n", &"x".repeat(101)] {
        assert_eq!(
            kind(Saga::new(name).step(noting("a"))),
            ErrorKind::InvalidName
        );
    }
    assert_eq!(kind(abc().step(noting("x/y"))), ErrorKind::InvalidName);
    assert_eq!(kind(abc().with_collection("a$b")), ErrorKind::InvalidName);
    let sagas = Sagas::new(&storage, abc()).unwrap();
    for id in ["", "a\n", &"x".repeat(257)] {
        let error = sagas.start(id, Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidName);
    }
    let none = super::SagaOptions::new().with_concurrency(0);
    assert_eq!(
        sagas.run(none).unwrap_err().kind(),
        ErrorKind::InvalidConfig
    );
    storage.close().await;
    let error = sagas.run(super::SagaOptions::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}

#[test]
fn pauses_grow_to_their_limit() {
    let retry = StepRetry::new()
        .with_attempts(40)
        .with_delays(SECOND, 10 * SECOND);
    let delays: Vec<_> = (1..40).map(|n| retry.delay(n, "s/1/a").unwrap()).collect();
    assert!(delays[0] >= SECOND && delays[0] < 2 * SECOND, "{delays:?}");
    assert!(
        delays[1] >= 2 * SECOND && delays[1] < 3 * SECOND,
        "{delays:?}"
    );
    assert!(
        delays[10..]
            .iter()
            .all(|d| *d >= 10 * SECOND && *d < 12 * SECOND),
        "{delays:?}"
    );
    assert_eq!(retry.delay(40, "s/1/a"), None);
    assert_eq!(StepRetry::never().delay(1, "s/1/a"), None);
}

#[test]
fn storage_errors_are_told_apart() {
    use crate::{Error, UpdateError};
    let of = |kind| StepError::from(Error::new(kind, "x")).is_retryable();
    assert!(of(ErrorKind::Unavailable) && of(ErrorKind::Timeout) && of(ErrorKind::CommitUnknown));
    assert!(of(ErrorKind::Closed) && of(ErrorKind::RetriesExhausted { attempts: 3 }));
    assert!(!of(ErrorKind::NotFound) && !of(ErrorKind::Constraint));
    assert!(!StepError::from(UpdateError::Rejected("too little money")).is_retryable());
    let outage: UpdateError<String> = Error::new(ErrorKind::Unavailable, "x").into();
    assert!(StepError::from(outage).is_retryable());
}
