//! What a saga needs next, purely.

use bson::{Bson, DateTime};

use super::definition::Definition;
use super::state::{FailureKind, SagaState, SagaStatus};
use super::step::{Run, StepDefinition, Take, Work};
use super::transition::Transition;

/// What is to be done about a saga.
pub(super) enum Next<'d> {
    /// Nothing before this time, or before something comes.
    Rest(Option<DateTime>),
    /// This is settled.
    Write(Transition),
    /// Its action, or the compensation of the step, runs.
    Run(&'d StepDefinition, &'d Run),
    /// The step takes what it waited for.
    Take(&'d Take, Bson),
}

pub(super) fn next<'d>(definition: &'d Definition, state: &SagaState, now: DateTime) -> Next<'d> {
    let is_late = state.deadline.is_some_and(|deadline| deadline <= now);
    let is_due = state.due.is_some_and(|due| due <= now);
    match state.status {
        SagaStatus::Completed | SagaStatus::Compensated | SagaStatus::Stuck => Next::Rest(None),
        SagaStatus::Waiting if is_late => Next::Write(timed_out(false)),
        SagaStatus::Waiting => Next::Rest(state.due),
        SagaStatus::Running | SagaStatus::Compensating => {
            let name = state.step.as_deref().unwrap_or_default();
            let Some((_, step)) = definition.find(name) else {
                return stuck(format!("the saga's definition has no step {name:?}"));
            };
            if state.status == SagaStatus::Compensating {
                return match &step.compensation {
                    Some(run) if is_due => Next::Run(step, run),
                    Some(_) => Next::Rest(state.due),
                    None => stuck(format!("step {name:?} has no compensation any more")),
                };
            }
            match (&step.work, &state.received) {
                (Work::Wait { take, .. }, Some(received)) => {
                    Next::Take(take, received.payload.clone())
                }
                (Work::Wait { .. }, None) => Next::Write(Transition::Enter),
                // It may be in the middle of its work, or may have been when its process died.
                (Work::Act(_), _) if is_late => Next::Write(timed_out(true)),
                (Work::Act(run), _) if is_due => Next::Run(step, run),
                (Work::Act(_), _) => Next::Rest(state.due),
            }
        }
    }
}

pub(super) fn timed_out(in_doubt: bool) -> Transition {
    Transition::Failed {
        kind: FailureKind::TimedOut,
        reason: "the step was not completed in time".to_owned(),
        in_doubt,
    }
}

fn stuck(reason: String) -> Next<'static> {
    Next::Write(Transition::Stuck { reason })
}
