//! How a saga goes from one state to the next, purely: what to store and which events tell of it.

use std::time::Duration;

use bson::{Bson, DateTime};
use serde_json::{Value, json};

use super::context::effect_id;
use super::definition::Definition;
use super::outcome::SignalOutcome;
use super::state::{
    CompletedStep, FailureKind, Received, SagaFailure, SagaState, SagaStatus, Signal,
};
use super::step::Work;
use crate::error::{Error, ErrorKind, Result};
use crate::event::NewEvent;

/// The most signals that one saga takes; more are a sender gone wild.
const MAX_SIGNALS: usize = 1_000;

/// What became of the current step.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Transition {
    /// It is begun, or begun anew after the definition changed its nature.
    Enter,
    /// Done; the next one's turn.
    Completed { data: Option<Bson> },
    /// The action or compensation failed, and is tried again.
    TryAgain { reason: String, due: DateTime },
    /// The way forward has ended. `in_doubt`: it may have had its effect.
    Failed {
        kind: FailureKind,
        reason: String,
        in_doubt: bool,
    },
    /// Its compensation is done.
    Compensated { data: Option<Bson> },
    /// Nothing more can be done.
    Stuck { reason: String },
}

/// A time, later by a duration; as late as times go.
pub(crate) fn later(at: DateTime, by: Duration) -> DateTime {
    let millis = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
    DateTime::from_millis(at.timestamp_millis().saturating_add(millis))
}

impl SagaState {
    /// A new saga, before its first step.
    pub(crate) fn start(
        definition: &Definition,
        id: &str,
        data: Bson,
        now: DateTime,
    ) -> Result<(Self, Vec<NewEvent>)> {
        let mut state = Self {
            saga: definition.name.to_string(),
            id: id.to_owned(),
            status: SagaStatus::Running,
            step: definition.steps.first().map(|step| step.name.to_string()),
            backward: false,
            attempts: 0,
            deadline: None,
            due: None,
            completed: Vec::new(),
            failure: None,
            last_error: None,
            received: None,
            signals: Vec::new(),
            input: data.clone(),
            data,
            started_at: now,
            ended_at: None,
            turn: 1,
            fence: 0,
        };
        let events = vec![state.event("SagaStarted", json!({}))?];
        state.enter(definition, now);
        Ok((state, events))
    }

    /// Applies what became of the current step.
    pub(crate) fn apply(
        &mut self,
        definition: &Definition,
        transition: Transition,
        now: DateTime,
    ) -> Result<Vec<NewEvent>> {
        let mut events = Vec::new();
        let step = self.step.clone().unwrap_or_default();
        match transition {
            Transition::Enter => self.enter(definition, now),
            Transition::TryAgain { reason, due } => {
                self.attempts = self.attempts.saturating_add(1);
                self.last_error = Some(reason);
                self.due = Some(due);
            }
            Transition::Completed { data } => {
                self.set_data(data);
                self.completed.push(CompletedStep {
                    step: step.clone(),
                    at: now,
                    in_doubt: false,
                    compensated_at: None,
                });
                events.push(self.step_event("SagaStepCompleted", &step, false)?);
                let place = definition.find(&step).map(|(place, _)| place);
                let next = place.and_then(|place| definition.steps.get(place + 1));
                match next {
                    Some(next) => {
                        self.step = Some(next.name.to_string());
                        self.enter(definition, now);
                    }
                    None => {
                        self.end(SagaStatus::Completed, now);
                        events.push(self.event("SagaCompleted", json!({}))?);
                    }
                }
            }
            Transition::Failed {
                kind,
                reason,
                in_doubt,
            } => {
                if in_doubt {
                    self.completed.push(CompletedStep {
                        step: step.clone(),
                        at: now,
                        in_doubt,
                        compensated_at: None,
                    });
                }
                self.backward = true;
                let about = json!({ "step": step, "failure": kind.as_str() });
                events.push(self.event("SagaCompensating", about)?);
                self.last_error = Some(reason.clone());
                self.failure = Some(SagaFailure { step, kind, reason });
                events.extend(self.compensate_next(definition, now)?);
            }
            Transition::Compensated { data } => {
                self.set_data(data);
                let mut open = self.completed.iter_mut().rev();
                if let Some(done) =
                    open.find(|done| done.step == step && done.compensated_at.is_none())
                {
                    done.compensated_at = Some(now);
                }
                events.push(self.step_event("SagaStepCompensated", &step, true)?);
                events.extend(self.compensate_next(definition, now)?);
            }
            Transition::Stuck { reason } => {
                self.status = SagaStatus::Stuck;
                self.due = None;
                self.last_error = Some(reason);
                events.push(self.event("SagaStuck", json!({ "step": step }))?);
            }
        }
        self.turn += 1;
        Ok(events)
    }

    /// Takes a signal in. One that a step waits for sets the saga going.
    pub(crate) fn signal(
        &mut self,
        definition: &Definition,
        (signal, name): (&str, &str),
        payload: Bson,
        now: DateTime,
    ) -> Result<(SignalOutcome, Vec<NewEvent>)> {
        if self.signals.iter().any(|known| known.id == signal) {
            return Ok((SignalOutcome::Repeated, Vec::new()));
        }
        if self.backward || self.status.is_ended() {
            return Ok((SignalOutcome::TooLate, Vec::new()));
        }
        if self.signals.len() >= MAX_SIGNALS {
            let what = format!(
                "saga {}/{} has got {MAX_SIGNALS} signals, the most it takes",
                self.saga, self.id
            );
            return Err(Error::new(ErrorKind::TooLarge, what));
        }
        self.signals.push(Signal {
            id: signal.to_owned(),
            name: name.to_owned(),
            payload,
            taken: false,
        });
        let events = vec![self.event("SagaSignalled", json!({ "signal": name }))?];
        if self.status == SagaStatus::Waiting && self.receive(definition, now) {
            // What was decided on the waiting saga, that its time is up, is to be decided anew.
            self.turn += 1;
            return Ok((SignalOutcome::Delivered, events));
        }
        Ok((SignalOutcome::Kept, events))
    }

    /// Sets a stuck saga going again, where it was, with all its attempts and all its time.
    pub(crate) fn unstick(&mut self, definition: &Definition, now: DateTime) {
        // What a step has waited for is not waited for again.
        if self.backward || self.received.is_some() {
            self.status = match self.backward {
                true => SagaStatus::Compensating,
                false => SagaStatus::Running,
            };
            self.attempts = 0;
            self.due = Some(now);
        } else {
            self.enter(definition, now);
        }
        self.turn += 1;
    }

    /// Begins the current step.
    fn enter(&mut self, definition: &Definition, now: DateTime) {
        let step = self.step.as_deref().and_then(|name| definition.find(name));
        let timeout = step.and_then(|(_, step)| step.timeout);
        let waits = step.is_some_and(|(_, step)| matches!(step.work, Work::Wait { .. }));
        self.attempts = 0;
        self.received = None;
        self.deadline = timeout.map(|timeout| later(now, timeout));
        if !waits {
            self.status = SagaStatus::Running;
            self.due = Some(now);
        } else if !self.receive(definition, now) {
            self.status = SagaStatus::Waiting;
            self.due = self.deadline;
        }
    }

    /// Takes the oldest signal that the current step waits for, if it has come.
    fn receive(&mut self, definition: &Definition, now: DateTime) -> bool {
        let step = self.step.as_deref().and_then(|name| definition.find(name));
        let Some(Work::Wait { signal, .. }) = step.map(|(_, step)| &step.work) else {
            return false;
        };
        let mut signals = self.signals.iter_mut();
        let Some(came) = signals.find(|came| !came.taken && came.name == **signal) else {
            return false;
        };
        came.taken = true;
        let payload = std::mem::replace(&mut came.payload, Bson::Null);
        self.received = Some(Received { payload });
        self.status = SagaStatus::Running;
        self.due = Some(now);
        true
    }

    fn compensate_next(
        &mut self,
        definition: &Definition,
        now: DateTime,
    ) -> Result<Option<NewEvent>> {
        self.attempts = 0;
        self.deadline = None;
        self.received = None;
        let next = self.to_compensate(|step| definition.must_compensate(step));
        if let Some(next) = next {
            self.step = Some(next.step.clone());
            self.status = SagaStatus::Compensating;
            self.due = Some(now);
            return Ok(None);
        }
        self.end(SagaStatus::Compensated, now);
        self.event("SagaCompensated", json!({})).map(Some)
    }

    fn end(&mut self, status: SagaStatus, now: DateTime) {
        self.status = status;
        self.step = None;
        self.attempts = 0;
        self.deadline = None;
        self.due = None;
        self.ended_at = Some(now);
    }

    fn set_data(&mut self, data: Option<Bson>) {
        if let Some(data) = data {
            self.data = data;
        }
    }

    fn step_event(&self, event_type: &str, step: &str, compensates: bool) -> Result<NewEvent> {
        let effect = effect_id(&self.saga, &self.id, step, compensates);
        self.event(event_type, json!({ "step": step, "effect": effect }))
    }

    fn event(&self, event_type: &str, mut about: Value) -> Result<NewEvent> {
        about["saga"] = self.saga.as_str().into();
        about["id"] = self.id.as_str().into();
        NewEvent::new(event_type, about)
    }
}
