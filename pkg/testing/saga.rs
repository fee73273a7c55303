//! Given, when, then for sagas: a definition rehearsed in memory, without a store.

mod rehearsal;
mod script;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use bson::DateTime;
use serde::Serialize;
use serde::de::DeserializeOwned;

use self::rehearsal::Rehearsal;
use self::script::{Rest, Scripted};
use crate::event::json;
use crate::saga::{Saga, SagaFailure, SagaStatus, SignalOutcome, data};

/// Rehearses one saga of a definition in memory: with its own actions, or with outcomes that the test
/// prescribes, on a clock that stands still unless the saga waits for its next attempt or the test lets time
/// pass.
///
/// Steps are named as in the definition, their compensations `step/compensate`.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use nodestorage::saga::{Saga, SagaStatus, Step, StepContext};
/// use nodestorage::testing::SagaTest;
///
/// let trip = Saga::new("trip")
///     .step(
///         Step::new("book_hotel", async |ctx: StepContext<Vec<String>>| {
///             ctx.change(|booked| booked.push("hotel".into()));
///             Ok(())
///         })
///         .compensate_with(async |ctx: StepContext<Vec<String>>| {
///             ctx.change(|booked| booked.clear());
///             Ok(())
///         }),
///     )
///     .step(Step::new("book_flight", async |_: StepContext<Vec<String>>| Ok(())));
///
/// SagaTest::given(trip, "T-1", Vec::new())
///     .rejecting("book_flight", "no seat is left")
///     .when_started()
///     .await
///     .then_ran(["book_hotel", "book_flight", "book_hotel/compensate"])
///     .then_status(SagaStatus::Compensated)
///     .then_data(|booked| assert!(booked.is_empty()));
/// # }
/// ```
#[derive(Debug)]
pub struct SagaTest<D> {
    rehearsal: Rehearsal,
    data: std::marker::PhantomData<fn() -> D>,
}

impl<D: Serialize + DeserializeOwned + Clone + Send + Sync + 'static> SagaTest<D> {
    /// A saga of this id, about to be started with these data, at the beginning of 2026.
    ///
    /// # Panics
    /// For a definition that is none.
    #[must_use]
    pub fn given(saga: Saga<D>, id: &str, data: D) -> Self {
        let definition = Arc::new(saga.into_definition().expect("the definition is valid"));
        let data = data::encode(&data).expect("the data have a stored form");
        Self {
            rehearsal: Rehearsal::new(definition, id, data),
            data: std::marker::PhantomData,
        }
    }

    /// Sets the time that it is started at.
    #[must_use]
    pub fn at(self, time: DateTime) -> Self {
        self.rehearsal.clock.set(time);
        self
    }

    /// The step succeeds without its action.
    #[must_use]
    pub fn succeeding(self, step: &str) -> Self {
        self.script(step, |scripted| scripted.rest = Rest::Succeed)
    }

    /// The step is rejected instead of its action.
    #[must_use]
    pub fn rejecting(self, step: &str, reason: &str) -> Self {
        self.script(step, |scripted| scripted.rest = Rest::Reject(reason.into()))
    }

    /// The step's first attempts fail in a way that may pass; what comes after them is as otherwise said.
    #[must_use]
    pub fn failing(self, step: &str, attempts: u32) -> Self {
        self.script(step, |scripted| scripted.failures = attempts)
    }

    /// The step does not come to an end: time passes until its deadline.
    #[must_use]
    pub fn hanging(self, step: &str) -> Self {
        self.script(step, |scripted| scripted.rest = Rest::Hang)
    }

    fn script(self, step: &str, change: impl FnOnce(&mut Scripted)) -> Self {
        self.rehearsal.script.of(step, change);
        self
    }

    /// Starts the saga and lets it run until it waits or ends.
    ///
    /// # Panics
    /// When it was started already.
    pub async fn when_started(self) -> Self {
        self.rehearsal.start();
        self.run().await
    }

    /// Hands it a signal, and lets it run on.
    ///
    /// # Panics
    /// When it was not started, or the payload has no JSON form.
    pub async fn when_signalled(self, name: &str, payload: impl Serialize) -> Self {
        let payload = serde_json::to_value(payload).expect("the payload has a JSON form");
        let payload = json::to_bson(&payload).expect("the payload fits BSON");
        self.rehearsal.signal(name, payload);
        self.run().await
    }

    /// Lets time pass, and the saga run on.
    pub async fn when_time_passes(self, time: Duration) -> Self {
        self.rehearsal.clock.advance(time);
        self.run().await
    }

    /// Sets it going again after it was stuck, with what is scripted from here on.
    ///
    /// # Panics
    /// When it is not stuck.
    pub async fn when_retried(self) -> Self {
        assert_eq!(self.rehearsal.state().status, SagaStatus::Stuck, "status");
        self.rehearsal.unstick();
        self.run().await
    }

    async fn run(self) -> Self {
        self.rehearsal.run().await;
        self
    }

    /// The attempts at actions and compensations so far, in their order, each by its name.
    ///
    /// # Panics
    /// When they are others.
    #[track_caller]
    pub fn then_ran<S: AsRef<str>>(self, steps: impl IntoIterator<Item = S>) -> Self {
        let steps: Vec<String> = steps.into_iter().map(|s| s.as_ref().to_owned()).collect();
        let ran: Vec<String> = self.rehearsal.script.attempts();
        assert_eq!(ran, steps, "attempts");
        self
    }

    /// The types of its events so far.
    ///
    /// # Panics
    /// When they are others.
    #[track_caller]
    pub fn then_events<S: AsRef<str>>(self, types: impl IntoIterator<Item = S>) -> Self {
        let types: Vec<String> = types.into_iter().map(|s| s.as_ref().to_owned()).collect();
        assert_eq!(self.rehearsal.events(), types, "events");
        self
    }

    /// How it is.
    ///
    /// # Panics
    /// When it is otherwise.
    #[track_caller]
    pub fn then_status(self, status: SagaStatus) -> Self {
        let state = self.rehearsal.state();
        assert_eq!(state.status, status, "last error: {:?}", state.last_error);
        self
    }

    /// The step that it is at; `None` once it has ended.
    ///
    /// # Panics
    /// When it is at another.
    #[track_caller]
    pub fn then_at<'a>(self, step: impl Into<Option<&'a str>>) -> Self {
        assert_eq!(self.rehearsal.state().step.as_deref(), step.into(), "step");
        self
    }

    /// Looks at the failure that it is compensated for.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn then_failure(self, look: impl FnOnce(&SagaFailure)) -> Self {
        let state = self.rehearsal.state();
        look(state.failure.as_ref().expect("no step failed for good"));
        self
    }

    /// Looks at its data.
    ///
    /// # Panics
    /// When they do not fit their type.
    #[track_caller]
    pub fn then_data(self, look: impl FnOnce(&D)) -> Self {
        let data: D = data::decode(&self.rehearsal.state().data).expect("the data fit their type");
        look(&data);
        self
    }

    /// What became of the last signal.
    ///
    /// # Panics
    /// When it is something else.
    #[track_caller]
    pub fn then_signal(self, outcome: SignalOutcome) -> Self {
        assert_eq!(self.rehearsal.signalled(), Some(outcome), "signal");
        self
    }

    /// The time by the rehearsal's clock.
    #[must_use]
    pub fn now(&self) -> DateTime {
        crate::clock::Clock::now(&*self.rehearsal.clock)
    }
}

impl<D: DeserializeOwned + PartialEq + Debug> SagaTest<D> {
    /// Its data equal these.
    ///
    /// # Panics
    /// When they do not.
    #[track_caller]
    pub fn then_data_is(self, expected: D) -> Self {
        let found: D = data::decode(&self.rehearsal.state().data).expect("the data fit their type");
        assert_eq!(found, expected, "data");
        self
    }
}
