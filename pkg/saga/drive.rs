//! Carries one saga out, until it rests.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bson::{Bson, DateTime};
use futures_util::FutureExt;
use tokio::time::sleep;

use super::context::{Call, effect_id};
use super::definition::Definition;
use super::journal::{Journal, Written};
use super::next::{Next, next, timed_out};
use super::state::{FailureKind, SagaState, reason};
use super::step::{Run, StepDefinition, StepRetry};
use super::step_error::StepError;
use super::transition::{Transition, later};
use super::validity::Validity;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::history::follow::Backoff;

/// How a saga was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// It has ended, is stuck, or is gone.
    Ended,
    /// It waits for this time, or for something to come.
    Resting(Option<DateTime>),
    /// The runner is being shut down.
    Stopped,
    /// The lease may have ended.
    LeaseLost,
    /// A later runner has written the saga.
    Overtaken,
}

/// What an attempt came to.
pub(crate) enum Attempt {
    Done(Option<Bson>),
    Failed(StepError),
    /// Its time was up; what it did is not known.
    TimedOut,
}

/// Takes the place of actions in rehearsals.
pub(crate) trait Script: Send + Sync {
    /// The outcome of an attempt, unless it is the action's own.
    fn attempt(&self, call: &Call, deadline: Option<DateTime>) -> Option<Attempt>;
}

pub(crate) struct Driver<J> {
    pub(crate) definition: Arc<Definition>,
    pub(crate) journal: J,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) validity: Validity,
    pub(crate) script: Option<Arc<dyn Script>>,
}

impl<J: Journal> Driver<J> {
    /// Goes on with a saga as far as it goes now. May be dropped at any `await`.
    pub(crate) async fn drive(&self, id: &str) -> Result<Left> {
        let mut state = match self.load(id).await? {
            Some(state) => state,
            None => return Ok(Left::Ended),
        };
        loop {
            if self.validity.has_ended() {
                return Ok(Left::LeaseLost);
            }
            if self.journal.is_overtaken(&state) {
                return Ok(Left::Overtaken);
            }
            if self.validity.stop.is_cancelled() {
                return Ok(Left::Stopped);
            }
            let transition = match next(&self.definition, &state, self.clock.now()) {
                Next::Rest(None) if state.status.is_ended() => return Ok(Left::Ended),
                Next::Rest(due) => return Ok(Left::Resting(due)),
                Next::Write(transition) => transition,
                Next::Take(take, payload) => {
                    let taken = AssertUnwindSafe(|| take(&state.data, payload));
                    let taken = match catch_unwind(taken) {
                        Ok(Ok(data)) => Attempt::Done(Some(data)),
                        Ok(Err(error)) => Attempt::Failed(error),
                        Err(panic) => Attempt::Failed(StepError::rejected(text_of(&*panic))),
                    };
                    self.settle(&state, &StepRetry::never(), taken)
                }
                Next::Run(step, run) => match self.run(&state, step, run).await {
                    Some(transition) => transition,
                    None => return Ok(Left::LeaseLost),
                },
            };
            state = match self.write(&state, transition).await? {
                Written::Done(state) => *state,
                Written::Stale => match self.load(id).await? {
                    Some(state) => state,
                    None => return Ok(Left::Ended),
                },
            };
        }
    }

    /// Makes an attempt at the current step; `None` if the lease ended meanwhile.
    async fn run(&self, state: &SagaState, step: &StepDefinition, run: &Run) -> Option<Transition> {
        let compensates = state.backward;
        let call = Call {
            saga: Arc::clone(&self.definition.name),
            id: state.id.as_str().into(),
            step: Arc::clone(&step.name),
            compensates,
            in_doubt: compensates && state.is_in_doubt(),
            attempt: state.attempts.saturating_add(1),
            data: state.data.clone(),
            clock: Arc::clone(&self.clock),
        };
        let (retry, deadline) = match compensates {
            false => (&step.retry, state.deadline),
            true => {
                let limit = later(self.clock.now(), self.definition.compensation_timeout);
                (&step.compensation_retry, Some(limit))
            }
        };
        let script = self.script.as_deref();
        if let Some(scripted) = script.and_then(|script| script.attempt(&call, deadline)) {
            return Some(self.settle(state, retry, scripted));
        }
        // Within the block, so that a closure that panics before it returns its future is caught too.
        let work = AssertUnwindSafe(async { run(call).await }).catch_unwind();
        let attempt = async {
            tokio::select! {
                biased;
                done = work => match done {
                    Ok(Ok(data)) => Attempt::Done(data),
                    Ok(Err(error)) => Attempt::Failed(error),
                    Err(panic) => Attempt::Failed(StepError::retryable(text_of(&*panic))),
                },
                () = self.passed(deadline) => Attempt::TimedOut,
            }
        };
        let attempt = self.validity.keep(attempt).await?;
        Some(self.settle(state, retry, attempt))
    }

    /// Waits until a time has come.
    async fn passed(&self, deadline: Option<DateTime>) {
        /// Wall clocks jump and machines sleep, so the clock is asked now and then.
        const LOOK: Duration = Duration::from_secs(1);
        let Some(deadline) = deadline else {
            return std::future::pending().await;
        };
        while let Some(left) = until(self.clock.now(), deadline) {
            sleep(left.min(LOOK)).await;
        }
    }

    /// What an attempt means for the saga.
    fn settle(&self, state: &SagaState, retry: &StepRetry, attempt: Attempt) -> Transition {
        let failures = state.attempts.saturating_add(1);
        let step = state.step.as_deref().unwrap_or_default();
        let effect = effect_id(&state.saga, &state.id, step, state.backward);
        let error = match (attempt, state.backward) {
            (Attempt::Done(data), false) => return Transition::Completed { data },
            (Attempt::Done(data), true) => return Transition::Compensated { data },
            (Attempt::TimedOut, false) => return timed_out(true),
            (Attempt::TimedOut, true) => {
                StepError::retryable("the compensation did not end in time")
            }
            (Attempt::Failed(error), _) => error,
        };
        tracing::warn!(%effect, attempt = failures, %error, "a step of a saga failed");
        let reason = reason(&error);
        if error.is_unreadable() {
            return Transition::Stuck { reason };
        }
        let again = error.is_retryable().then(|| retry.delay(failures, &effect));
        match (again.flatten(), state.backward) {
            (Some(delay), _) => {
                let due = later(self.clock.now(), delay);
                let due = state.deadline.map_or(due, |deadline| due.min(deadline));
                Transition::TryAgain { reason, due }
            }
            (None, true) => Transition::Stuck { reason },
            (None, false) => Transition::Failed {
                kind: match error.is_retryable() {
                    true => FailureKind::Exhausted,
                    false => FailureKind::Rejected,
                },
                reason,
                // What failed before may have had its effect all the same, or have it yet.
                in_doubt: error.is_retryable() || state.attempts > 0,
            },
        }
    }

    async fn load(&self, id: &str) -> Result<Option<SagaState>> {
        let mut backoff = Backoff::default();
        loop {
            match self.journal.load(id).await {
                Err(error) if error.is_retryable() && self.goes_on() => {
                    tracing::warn!(saga = %self.definition.name, id, %error, "saga cannot be read");
                    sleep(backoff.next_delay()).await;
                }
                loaded => return loaded,
            }
        }
    }

    /// Writes what happened, however long it takes: what a step did is not done again only because the
    /// store did not answer.
    async fn write(&self, state: &SagaState, transition: Transition) -> Result<Written> {
        let mut backoff = Backoff::default();
        let mut transition = transition;
        loop {
            let now = self.clock.now();
            let error = match self.journal.write(state, transition.clone(), now).await {
                Ok(written) => return Ok(written),
                Err(error) => error,
            };
            tracing::warn!(saga = %self.definition.name, id = %state.id, %error, "saga cannot be written");
            // If the commit happened after all, the repetition finds the saga moved on.
            let passes = error.is_retryable() || error.kind() == ErrorKind::CommitUnknown;
            if !self.goes_on() {
                return Err(error);
            }
            if passes {
                sleep(backoff.next_delay()).await;
                continue;
            }
            if error.kind() == ErrorKind::Closed || matches!(transition, Transition::Stuck { .. }) {
                return Err(error);
            }
            // Data that have grown too large, for example: without them, so that it is seen.
            transition = Transition::Stuck {
                reason: reason(&unwritable(&error)),
            };
        }
    }

    fn goes_on(&self) -> bool {
        !self.validity.stop.is_cancelled() && !self.validity.has_ended()
    }
}

fn unwritable(error: &Error) -> Error {
    error.clone().context("the step's result cannot be stored")
}

/// How long it is until then; `None` when it has passed.
pub(super) fn until(now: DateTime, then: DateTime) -> Option<Duration> {
    let left = then
        .timestamp_millis()
        .saturating_sub(now.timestamp_millis());
    u64::try_from(left)
        .ok()
        .filter(|left| *left > 0)
        .map(Duration::from_millis)
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panicked: {}", text.unwrap_or("no message"))
}
