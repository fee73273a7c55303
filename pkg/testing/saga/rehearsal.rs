//! A saga driven in memory.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bson::{Bson, DateTime};
use tokio_util::sync::CancellationToken;

use super::script::{Scripts, locked};
use crate::clock::Clock;
use crate::error::Result;
use crate::event::NewEvent;
use crate::saga::definition::Definition;
use crate::saga::drive::{Driver, Left};
use crate::saga::journal::{Journal, Written};
use crate::saga::state::SagaState;
use crate::saga::transition::Transition;
use crate::saga::validity::Validity;
use crate::saga::{SagaStatus, SignalOutcome};
use crate::testing::FixedClock;

/// The beginning of 2026, in milliseconds.
const BEGINNING: i64 = 1_767_225_600_000;

#[derive(Debug, Default)]
struct Kept {
    state: Option<SagaState>,
    events: Vec<String>,
    signals: u64,
    signalled: Option<SignalOutcome>,
}

impl Kept {
    fn tell(&mut self, events: &[NewEvent]) {
        let types = events.iter().map(|event| event.event_type().to_owned());
        self.events.extend(types);
    }
}

/// The journal of one saga.
struct Memory {
    kept: Arc<Mutex<Kept>>,
    definition: Arc<Definition>,
}

#[async_trait]
impl Journal for Memory {
    async fn load(&self, _: &str) -> Result<Option<SagaState>> {
        Ok(locked(&self.kept).state.clone())
    }

    async fn write(
        &self,
        decided_on: &SagaState,
        transition: Transition,
        now: DateTime,
    ) -> Result<Written> {
        let mut kept = locked(&self.kept);
        let Some(mut state) = kept.state.clone() else {
            return Ok(Written::Stale);
        };
        if state.turn != decided_on.turn {
            return Ok(Written::Stale);
        }
        let events = state.apply(&self.definition, transition, now)?;
        kept.tell(&events);
        kept.state = Some(state.clone());
        Ok(Written::Done(Box::new(state)))
    }

    fn is_overtaken(&self, _: &SagaState) -> bool {
        false
    }
}

pub(super) struct Rehearsal {
    id: String,
    input: Bson,
    pub(super) clock: Arc<FixedClock>,
    pub(super) script: Arc<Scripts>,
    kept: Arc<Mutex<Kept>>,
    driver: Driver<Memory>,
}

impl Rehearsal {
    pub(super) fn new(definition: Arc<Definition>, id: &str, input: Bson) -> Self {
        let clock = Arc::new(FixedClock::at(DateTime::from_millis(BEGINNING)));
        let script = Arc::new(Scripts::new(Arc::clone(&clock)));
        let kept: Arc<Mutex<Kept>> = Arc::default();
        let driver = Driver {
            journal: Memory {
                kept: Arc::clone(&kept),
                definition: Arc::clone(&definition),
            },
            definition,
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            validity: Validity::new(CancellationToken::new()),
            script: Some(script.clone()),
        };
        Self {
            id: id.to_owned(),
            input,
            clock,
            script,
            kept,
            driver,
        }
    }

    pub(super) fn start(&self) {
        let (definition, now) = (&self.driver.definition, self.clock.now());
        let started = SagaState::start(definition, &self.id, self.input.clone(), now);
        let (state, events) = started.expect("the saga starts");
        let mut kept = locked(&self.kept);
        assert!(kept.state.is_none(), "the saga was started already");
        kept.tell(&events);
        kept.state = Some(state);
    }

    pub(super) fn signal(&self, name: &str, payload: Bson) {
        let (definition, now) = (&self.driver.definition, self.clock.now());
        let mut kept = locked(&self.kept);
        kept.signals += 1;
        let id = kept.signals.to_string();
        let state = kept.state.as_mut().expect("the saga was not started");
        let signalled = state.signal(definition, (&id, name), payload, now);
        let (outcome, events) = signalled.expect("the saga takes the signal");
        kept.tell(&events);
        kept.signalled = Some(outcome);
    }

    pub(super) fn unstick(&self) {
        let mut kept = locked(&self.kept);
        let state = kept.state.as_mut().expect("the saga was not started");
        state.unstick(&self.driver.definition, self.clock.now());
    }

    /// Lets it run; while it waits for its next attempt the clock is put forward.
    pub(super) async fn run(&self) {
        loop {
            let left = self.driver.drive(&self.id).await.expect("the saga runs");
            let tries_again = matches!(
                self.state().status,
                SagaStatus::Running | SagaStatus::Compensating
            );
            match left {
                Left::Resting(Some(due)) if tries_again => self.clock.set(due),
                _ => return,
            }
        }
    }

    pub(super) fn state(&self) -> SagaState {
        let state = locked(&self.kept).state.clone();
        state.expect("the saga was not started")
    }

    pub(super) fn events(&self) -> Vec<String> {
        locked(&self.kept).events.clone()
    }

    pub(super) fn signalled(&self) -> Option<SignalOutcome> {
        locked(&self.kept).signalled
    }
}

impl std::fmt::Debug for Rehearsal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rehearsal")
            .field("id", &self.id)
            .field("kept", &self.kept)
            .finish_non_exhaustive()
    }
}
