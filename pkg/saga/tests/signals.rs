//! Steps that wait.

use super::super::{FailureKind, SignalOutcome};
use super::*;

/// Notes, waits for a word, notes.
fn waiting() -> Saga<Names> {
    let wait = Step::wait_for(
        "wait",
        "Word",
        |names: &mut Names, word: String| match &*word {
            "no" => Err(StepError::rejected("was told no")),
            "panic" => panic!("was told to"),
            _ => {
                names.push(word);
                Ok(())
            }
        },
    );
    Saga::new("s")
        .step(noting("a"))
        .step(wait.with_timeout(60 * SECOND))
        .step(noting("c"))
}

#[tokio::test]
async fn a_signal_sets_the_saga_going() {
    test(waiting())
        .when_started()
        .await
        .then_status(SagaStatus::Waiting)
        .then_at("wait")
        .when_signalled("Other", 1)
        .await
        .then_status(SagaStatus::Waiting)
        .then_signal(SignalOutcome::Kept)
        .when_signalled("Word", "yes")
        .await
        .then_signal(SignalOutcome::Delivered)
        .then_status(SagaStatus::Completed)
        .then_data_is(vec!["s/1/a".into(), "yes".into(), "s/1/c".into()])
        .when_signalled("Word", "again")
        .await
        .then_signal(SignalOutcome::TooLate)
        .then_ran(["a", "c"]);
}

#[tokio::test]
async fn a_signal_may_come_before_the_step_waits() {
    let wait = |name: &'static str| {
        Step::wait_for(name, "Word", |names: &mut Names, word: String| {
            names.push(word);
            Ok(())
        })
    };
    let saga = Saga::new("s")
        .step(wait("x"))
        .step(wait("y"))
        .step(wait("z"));
    // All three come while the first step waits; each goes to one step, in order.
    test(saga)
        .when_started()
        .await
        .when_signalled("Word", "1")
        .await
        .then_at("y")
        .when_signalled("Other", "-")
        .await
        .when_signalled("Word", "2")
        .await
        .then_at("z")
        .when_signalled("Word", "3")
        .await
        .then_status(SagaStatus::Completed)
        .then_data_is(vec!["1".into(), "2".into(), "3".into()]);
}

#[tokio::test]
async fn a_step_waits_no_longer_than_its_timeout() {
    test(waiting())
        .when_started()
        .await
        .when_time_passes(59 * SECOND)
        .await
        .then_status(SagaStatus::Waiting)
        .when_time_passes(SECOND)
        .await
        .then_ran(["a", "a/compensate"])
        .then_failure(|failure| assert_eq!(failure.kind, FailureKind::TimedOut))
        .then_status(SagaStatus::Compensated);
}

#[tokio::test]
async fn payloads_may_be_refused() {
    for payload in [
        serde_json::json!("no"),
        serde_json::json!({ "not": "text" }),
        "panic".into(),
    ] {
        test(waiting())
            .when_started()
            .await
            .when_signalled("Word", payload)
            .await
            .then_ran(["a", "a/compensate"])
            .then_failure(|failure| {
                assert_eq!(failure.kind, FailureKind::Rejected);
                assert!(!failure.reason.contains("text"), "{}", failure.reason);
            })
            .then_status(SagaStatus::Compensated);
    }
}
