use std::fmt;
use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use bson::Bson;
use futures_core::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::context::{Call, StepContext};
use super::data;
use super::step_error::StepError;
use crate::event::json::from_bson;

/// An action or compensation without its types: the changed data, if they were changed.
pub(crate) type Run =
    Arc<dyn Fn(Call) -> BoxFuture<'static, Result<Option<Bson>, StepError>> + Send + Sync>;

/// What a waiting step does with the payload it waited for: the changed data.
pub(crate) type Take = Arc<dyn Fn(&Bson, Bson) -> Result<Bson, StepError> + Send + Sync>;

/// How often and how fast a failing step is tried again. Rejections are never tried again.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use nodestorage::saga::StepRetry;
///
/// let retry = StepRetry::new().with_attempts(3).with_delays(Duration::from_millis(50), Duration::from_secs(1));
/// assert_eq!(retry.attempts, 3);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StepRetry {
    /// How often it is tried in all. Default 10: with the pauses below about two minutes, longer than an
    /// election or a restart takes.
    pub attempts: u32,
    /// The pause after the first failure; each further one is twice as long. Default 200 ms.
    pub base_delay: Duration,
    /// The longest pause. Default 30 s.
    pub max_delay: Duration,
}

impl Default for StepRetry {
    fn default() -> Self {
        Self {
            attempts: 10,
            base_delay: Duration::from_millis(200),
            max_delay: Duration::from_secs(30),
        }
    }
}

impl StepRetry {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One attempt.
    #[must_use]
    pub fn never() -> Self {
        Self::default().with_attempts(1)
    }

    /// Sets how often it is tried in all; at least once.
    #[must_use]
    pub fn with_attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// Sets the first and the longest pause.
    #[must_use]
    pub fn with_delays(mut self, base: Duration, max: Duration) -> Self {
        self.base_delay = base;
        self.max_delay = max;
        self
    }

    /// The pause after so many failures; `None` when it is not tried again. Up to an eighth longer, by
    /// effect, so that sagas that failed together do not come back together.
    pub(super) fn delay(&self, failures: u32, effect: &str) -> Option<Duration> {
        if failures >= self.attempts {
            return None;
        }
        let factor = 2_u32.saturating_pow(failures.saturating_sub(1));
        let delay = self.base_delay.saturating_mul(factor).min(self.max_delay);
        let mut hasher = DefaultHasher::new();
        (effect, failures).hash(&mut hasher);
        let share = u32::try_from(hasher.finish() % 128).unwrap_or_default();
        Some(delay.saturating_add(delay / 1_024 * share))
    }
}

/// What a step is made of, without its types.
#[derive(Clone)]
pub(crate) struct StepDefinition {
    pub(crate) name: Arc<str>,
    pub(crate) work: Work,
    pub(crate) compensation: Option<Run>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) retry: StepRetry,
    pub(crate) compensation_retry: StepRetry,
}

/// What a step does.
#[derive(Clone)]
pub(crate) enum Work {
    Act(Run),
    Wait { signal: Arc<str>, take: Take },
}

/// One step of a [`Saga`](super::Saga): an action that can be compensated, or waiting for a signal.
///
/// # What a step must guarantee
/// * A repetition with the same [effect id](StepContext::effect_id) has no further effect, and *succeeds* if
///   an earlier attempt did: a step is repeated when its process died before the completion was stored.
/// * What it rejects has had no effect.
/// * It may be dropped at any `await`.
/// * Its compensation undoes the effect if there was one, *prevents* it if there was none yet (an attempt
///   that was broken off may still arrive), and can be repeated.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use nodestorage::Storage;
/// use nodestorage::saga::{Step, StepContext, StepRetry};
/// use nodestorage::bson::Document;
///
/// # fn example(storage: Storage) -> Step<String> {
/// let undo = storage.clone();
/// Step::new("reserve", move |ctx: StepContext<String>| {
///     let storage = storage.clone();
///     async move {
///         let reservation = ctx.new_id("reservation").to_string();
///         storage
///             .update("reservations", reservation.as_str(), |found: Option<Document>| found.unwrap_or_default())
///             .await?;
///         Ok(())
///     }
/// })
/// .compensate_with(move |ctx: StepContext<String>| {
///     let storage = undo.clone();
///     async move {
///         storage.delete("reservations", ctx.new_id("reservation").to_string().as_str()).await?;
///         Ok(())
///     }
/// })
/// .with_timeout(Duration::from_secs(60))
/// .with_retry(StepRetry::new().with_attempts(5))
/// # }
/// ```
pub struct Step<D> {
    pub(super) definition: StepDefinition,
    data: PhantomData<fn() -> D>,
}

impl<D: Serialize + DeserializeOwned + Clone + Send + Sync + 'static> Step<D> {
    /// A step with this action. Its name is part of the effect ids and of the stored sagas, so that it must
    /// not change while sagas are under way; it may not contain `/`, and not be `compensate`.
    pub fn new<F, Fut>(name: impl Into<Arc<str>>, action: F) -> Self
    where
        F: Fn(StepContext<D>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), StepError>> + Send + 'static,
    {
        Self::of(name.into(), Work::Act(run(action)))
    }

    /// A step that waits until a [signal](super::Sagas::signal) of this name comes, or has come. `take` puts
    /// its payload into the saga's data, or rejects it, upon which the saga is compensated.
    ///
    /// Each signal goes to one step, once. Events come as signals named like their type, see
    /// [`Saga::signalled_by`](super::Saga::signalled_by). Without a [timeout](Self::with_timeout) it waits for
    /// ever.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use nodestorage::saga::{Step, StepError};
    ///
    /// let approval = Step::wait_for("approval", "Answered", |notes: &mut Vec<String>, yes: bool| {
    ///     match yes {
    ///         true => Ok(notes.push("approved".into())),
    ///         false => Err(StepError::rejected("was not approved")),
    ///     }
    /// })
    /// .with_timeout(Duration::from_secs(24 * 3_600));
    /// ```
    pub fn wait_for<P, F>(name: impl Into<Arc<str>>, signal: impl Into<Arc<str>>, take: F) -> Self
    where
        P: DeserializeOwned,
        F: Fn(&mut D, P) -> Result<(), StepError> + Send + Sync + 'static,
    {
        let take: Take = Arc::new(move |stored, payload| {
            let mut value: D = data::decode(stored).map_err(StepError::unreadable)?;
            // Without the cause, which may quote the payload.
            let payload = serde_json::from_value(from_bson(payload)).map_err(|_| {
                let wanted = std::any::type_name::<P>();
                StepError::rejected(format!("the signal's payload is no {wanted}"))
            })?;
            take(&mut value, payload)?;
            Ok(data::encode(&value)?)
        });
        let signal = signal.into();
        Self::of(name.into(), Work::Wait { signal, take })
    }

    fn of(name: Arc<str>, work: Work) -> Self {
        Self {
            definition: StepDefinition {
                name,
                work,
                compensation: None,
                timeout: None,
                retry: StepRetry::default(),
                compensation_retry: StepRetry::default(),
            },
            data: PhantomData,
        }
    }

    /// Sets what undoes the step. Runs when a later step failed, and when it is not known whether the step
    /// itself had its effect: when it ran out of time or attempts.
    #[must_use]
    pub fn compensate_with<F, Fut>(mut self, compensation: F) -> Self
    where
        F: Fn(StepContext<D>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), StepError>> + Send + 'static,
    {
        self.definition.compensation = Some(run(compensation));
        self
    }

    /// Sets how long the step may take, all attempts and pauses included, from the completion of the step
    /// before it. The deadline is stored: it passes also while no process runs. Then the saga is compensated.
    /// Default: without an end; an action that never returns then keeps one of the runner's places.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.definition.timeout = Some(timeout);
        self
    }

    /// Sets how the action is tried again.
    #[must_use]
    pub fn with_retry(mut self, retry: StepRetry) -> Self {
        self.definition.retry = retry;
        self
    }

    /// Sets how the compensation is tried again, before the saga is stuck.
    #[must_use]
    pub fn with_compensation_retry(mut self, retry: StepRetry) -> Self {
        self.definition.compensation_retry = retry;
        self
    }
}

pub(super) fn run<D, F, Fut>(work: F) -> Run
where
    D: Serialize + DeserializeOwned + Send + Sync + 'static,
    F: Fn(StepContext<D>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), StepError>> + Send + 'static,
{
    let work = Arc::new(work);
    Arc::new(move |call| {
        let work = Arc::clone(&work);
        Box::pin(async move {
            let context = StepContext::new(call)?;
            work(context.clone()).await?;
            Ok(context.changed()?)
        })
    })
}

impl<D> fmt::Debug for Step<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Step")
            .field("definition", &self.definition)
            .finish()
    }
}

impl fmt::Debug for StepDefinition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StepDefinition")
            .field("name", &self.name)
            .field("waits", &matches!(self.work, Work::Wait { .. }))
            .field("has_compensation", &self.compensation.is_some())
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}
