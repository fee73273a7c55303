//! Rejections, failures, time-outs, and what is compensated then.

use super::super::FailureKind;
use super::*;

#[tokio::test]
async fn what_was_completed_is_compensated_in_reverse_order() {
    test(abc())
        .rejecting("c", "no")
        .when_started()
        .await
        .then_ran(["a", "b", "c", "b/compensate", "a/compensate"])
        .then_status(SagaStatus::Compensated)
        .then_data_is(Vec::new())
        .then_failure(|failure| {
            assert_eq!((&*failure.step, &*failure.reason), ("c", "no"));
            assert_eq!(failure.kind, FailureKind::Rejected);
        })
        .then_events([
            "SagaStarted",
            "SagaStepCompleted",
            "SagaStepCompleted",
            "SagaCompensating",
            "SagaStepCompensated",
            "SagaStepCompensated",
            "SagaCompensated",
        ]);
}

#[tokio::test]
async fn steps_without_a_compensation_are_passed_over() {
    let plain = |name: &'static str| Step::new(name, async |_: Context| Ok(()));
    let saga = Saga::new("s")
        .step(plain("a"))
        .step(noting("b"))
        .step(plain("c"));
    test(saga)
        .rejecting("c", "no")
        .when_started()
        .await
        .then_ran(["a", "b", "c", "b/compensate"])
        .then_status(SagaStatus::Compensated);
    test(abc())
        .rejecting("a", "no")
        .when_started()
        .await
        .then_ran(["a"])
        .then_events(["SagaStarted", "SagaCompensating", "SagaCompensated"])
        .then_status(SagaStatus::Compensated);
}

#[tokio::test]
async fn failures_are_tried_again_with_growing_pauses() {
    let saga = Saga::new("s").step(
        noting("a").with_retry(
            StepRetry::new()
                .with_attempts(4)
                .with_delays(SECOND, 60 * SECOND),
        ),
    );
    let test = test(saga).failing("a", 3);
    let before = test.now();
    let test = test.when_started().await.then_ran(["a"; 4]);
    let test = test
        .then_status(SagaStatus::Completed)
        .then_data_is(vec!["s/1/a".into()]);
    let took = test.now().timestamp_millis() - before.timestamp_millis();
    assert!((7_000..8_000).contains(&took), "{took} ms");
}

#[tokio::test]
async fn a_step_that_keeps_failing_is_compensated_too() {
    let saga = abc().step(noting("d").with_retry(StepRetry::new().with_attempts(3)));
    test(saga)
        .failing("d", 3)
        .when_started()
        .await
        .then_ran([
            "a",
            "b",
            "c",
            "d",
            "d",
            "d",
            "d/compensate",
            "c/compensate",
            "b/compensate",
            "a/compensate",
        ])
        .then_failure(|failure| assert_eq!(failure.kind, FailureKind::Exhausted))
        .then_status(SagaStatus::Compensated);
}

#[tokio::test]
async fn a_rejection_after_failures_leaves_a_doubt() {
    test(abc())
        .failing("b", 1)
        .rejecting("b", "no")
        .when_started()
        .await
        .then_ran(["a", "b", "b", "b/compensate", "a/compensate"])
        .then_failure(|failure| assert_eq!(failure.kind, FailureKind::Rejected));
}

#[tokio::test]
async fn a_step_that_takes_too_long_is_compensated_too() {
    let saga = abc().step(noting("d").with_timeout(30 * SECOND));
    let test = test(saga).hanging("d");
    let before = test.now();
    let test = test
        .when_started()
        .await
        .then_ran([
            "a",
            "b",
            "c",
            "d",
            "d/compensate",
            "c/compensate",
            "b/compensate",
            "a/compensate",
        ])
        .then_failure(|failure| assert_eq!(failure.kind, FailureKind::TimedOut))
        .then_status(SagaStatus::Compensated);
    assert_eq!(
        test.now().timestamp_millis() - before.timestamp_millis(),
        30_000
    );
}

#[tokio::test]
async fn a_pause_ends_with_the_deadline() {
    let retry = StepRetry::new().with_delays(60 * SECOND, 60 * SECOND);
    let saga = Saga::new("s").step(noting("a").with_timeout(90 * SECOND).with_retry(retry));
    let test = test(saga).failing("a", 10);
    let before = test.now();
    let test = test
        .when_started()
        .await
        .then_ran(["a", "a", "a/compensate"])
        .then_failure(|failure| assert_eq!(failure.kind, FailureKind::TimedOut));
    assert_eq!(
        test.now().timestamp_millis() - before.timestamp_millis(),
        90_000
    );
}

#[tokio::test]
async fn a_compensation_that_keeps_failing_is_stuck_until_it_is_retried() {
    let retry = StepRetry::new().with_attempts(2);
    let saga = Saga::new("s")
        .step(noting("a"))
        .step(noting("b").with_compensation_retry(retry))
        .step(noting("c"));
    test(saga)
        .rejecting("c", "no")
        .failing("b/compensate", 2)
        .when_started()
        .await
        .then_ran(["a", "b", "c", "b/compensate", "b/compensate"])
        .then_status(SagaStatus::Stuck)
        .then_at("b")
        .when_time_passes(3_600 * SECOND)
        .await
        .then_status(SagaStatus::Stuck)
        .when_retried()
        .await
        .then_ran([
            "a",
            "b",
            "c",
            "b/compensate",
            "b/compensate",
            "b/compensate",
            "a/compensate",
        ])
        .then_status(SagaStatus::Compensated)
        .then_data_is(Vec::new());
}

#[tokio::test]
async fn a_rejected_or_endless_compensation_is_stuck() {
    test(abc())
        .rejecting("b", "no")
        .rejecting("a/compensate", "cannot")
        .when_started()
        .await
        .then_ran(["a", "b", "a/compensate"])
        .then_status(SagaStatus::Stuck);
    let saga = Saga::new("s")
        .step(noting("a").with_compensation_retry(StepRetry::never()))
        .step(noting("b"));
    test(saga)
        .rejecting("b", "no")
        .hanging("a/compensate")
        .when_started()
        .await
        .then_status(SagaStatus::Stuck)
        .then_at("a");
}

#[tokio::test]
async fn a_panic_is_a_failure() {
    let panicking = |name: &'static str| {
        Step::new(name, |ctx: Context| {
            assert!(ctx.attempt() > 1, "at first");
            async move {
                assert!(ctx.attempt() > 2, "and once more");
                Ok(())
            }
        })
    };
    let saga = Saga::new("s").step(panicking("a"));
    test(saga)
        .when_started()
        .await
        .then_ran(["a"; 3])
        .then_status(SagaStatus::Completed);
    let saga = abc().step(panicking("d").with_retry(StepRetry::never()));
    test(saga)
        .when_started()
        .await
        .then_failure(|failure| {
            assert_eq!(failure.kind, FailureKind::Exhausted);
            assert_eq!(failure.reason, "panicked: at first");
        })
        .then_status(SagaStatus::Compensated);
}

#[tokio::test]
async fn failed_attempts_change_no_data() {
    let step = Step::new("a", async |ctx: Context| {
        let attempt = ctx.attempt();
        ctx.change(|names| names.push(format!("attempt {attempt}")));
        match attempt {
            1 => Err(StepError::retryable("not yet")),
            _ => Ok(()),
        }
    });
    test(Saga::new("s").step(step))
        .when_started()
        .await
        .then_data_is(vec!["attempt 2".into()]);
}
