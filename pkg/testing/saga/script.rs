//! What steps do in a rehearsal.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bson::DateTime;

use crate::saga::StepError;
use crate::saga::context::Call;
use crate::saga::drive::{Attempt, Script};
use crate::testing::FixedClock;

/// What is prescribed for a step.
#[derive(Debug, Default)]
pub(super) struct Scripted {
    /// So many attempts fail first.
    pub(super) failures: u32,
    pub(super) rest: Rest,
}

#[derive(Debug, Default)]
pub(super) enum Rest {
    #[default]
    Own,
    Succeed,
    Reject(String),
    Hang,
}

/// All that is prescribed, and what was attempted.
#[derive(Debug)]
pub(super) struct Scripts {
    steps: Mutex<HashMap<String, Scripted>>,
    attempts: Mutex<Vec<String>>,
    clock: Arc<FixedClock>,
}

impl Scripts {
    pub(super) fn new(clock: Arc<FixedClock>) -> Self {
        Self {
            steps: Mutex::default(),
            attempts: Mutex::default(),
            clock,
        }
    }

    pub(super) fn of(&self, step: &str, change: impl FnOnce(&mut Scripted)) {
        change(locked(&self.steps).entry(step.to_owned()).or_default());
    }

    pub(super) fn attempts(&self) -> Vec<String> {
        locked(&self.attempts).clone()
    }
}

impl Script for Scripts {
    fn attempt(&self, call: &Call, deadline: Option<DateTime>) -> Option<Attempt> {
        let prefix = format!("{}/{}/", call.saga, call.id);
        let effect = call.effect_id();
        let step = effect.strip_prefix(&prefix).unwrap_or(&effect);
        locked(&self.attempts).push(step.to_owned());
        let mut steps = locked(&self.steps);
        let scripted = steps.get_mut(step)?;
        if scripted.failures > 0 {
            scripted.failures -= 1;
            return Some(Attempt::Failed(StepError::retryable("as the test says")));
        }
        Some(match &scripted.rest {
            Rest::Own => return None,
            Rest::Succeed => Attempt::Done(None),
            Rest::Reject(reason) => Attempt::Failed(StepError::rejected(reason.as_str())),
            Rest::Hang => {
                let deadline = deadline.unwrap_or_else(|| panic!("{step} has no timeout"));
                self.clock.set(deadline);
                Attempt::TimedOut
            }
        })
    }
}

/// A test that has failed may still look.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
