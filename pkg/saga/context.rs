use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bson::{Bson, DateTime};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::data;
use super::step_error::StepError;
use crate::clock::Clock;
use crate::error::Result;
use crate::event::Metadata;

/// The name that is appended to the effect ids of compensations; no step may have it.
pub(super) const COMPENSATE: &str = "compensate";

/// The namespace of the ids that steps derive, drawn once for this purpose.
const IDS: Uuid = Uuid::from_u128(0x4d0b_6f0e_30a7_4a5c_9a1e_7c52_0f3b_88d1);

/// The id of a step's action, or of its compensation.
pub(super) fn effect_id(saga: &str, id: &str, step: &str, compensates: bool) -> String {
    match compensates {
        false => format!("{saga}/{id}/{step}"),
        true => format!("{saga}/{id}/{step}/{COMPENSATE}"),
    }
}

/// One attempt at an action or a compensation, before the user's types.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) saga: Arc<str>,
    pub(crate) id: Arc<str>,
    pub(crate) step: Arc<str>,
    pub(crate) compensates: bool,
    pub(crate) in_doubt: bool,
    pub(crate) attempt: u32,
    pub(crate) data: Bson,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Call {
    pub(crate) fn effect_id(&self) -> String {
        effect_id(&self.saga, &self.id, &self.step, self.compensates)
    }
}

/// What a step's action or compensation knows: the saga, its data, and the id of its effect.
///
/// A clone is the same context.
///
/// # Examples
/// ```
/// use nodestorage::saga::{Step, StepContext};
///
/// let ship = Step::new("ship", async |ctx: StepContext<Vec<String>>| {
///     // The same in every attempt, also after a crash: `orders/O-7/ship`.
///     let command_id = ctx.effect_id().to_owned();
///     println!("{command_id} at {}", ctx.now());
///     ctx.change(|notes| notes.push(command_id));
///     Ok(())
/// });
/// ```
pub struct StepContext<D>(Arc<Inner<D>>);

struct Inner<D> {
    call: Call,
    effect: String,
    action: String,
    data: D,
    changed: Mutex<Option<D>>,
}

impl<D> StepContext<D> {
    /// The saga's name.
    #[must_use]
    pub fn saga(&self) -> &str {
        &self.0.call.saga
    }

    /// The saga's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.0.call.id
    }

    /// The step's name.
    #[must_use]
    pub fn step(&self) -> &str {
        &self.0.call.step
    }

    /// Whether the step is being compensated.
    #[must_use]
    pub fn is_compensation(&self) -> bool {
        self.0.call.compensates
    }

    /// In a compensation, whether the step failed without its being known whether it had its effect. False if
    /// it was completed.
    #[must_use]
    pub fn is_in_doubt(&self) -> bool {
        self.0.call.in_doubt
    }

    /// The how-manieth attempt this is, from 1. One that was broken off by a crash does not count.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.0.call.attempt
    }

    /// The id of what the step does: `saga/id/step`, of a compensation `saga/id/step/compensate`. It is the
    /// same in every attempt, in any process. To be used as command id, or remembered with the effect, so
    /// that a repetition has none.
    #[must_use]
    pub fn effect_id(&self) -> &str {
        &self.0.effect
    }

    /// The effect id of the step's action, also in its compensation: what is to be undone.
    #[must_use]
    pub fn action_id(&self) -> &str {
        &self.0.action
    }

    /// An id for something that the step makes, the same in every attempt; another one for each label.
    #[must_use]
    pub fn new_id(&self, label: &str) -> Uuid {
        Uuid::new_v5(&IDS, format!("{}\0{label}", self.0.action).as_bytes())
    }

    /// The saga's data when the attempt began.
    #[must_use]
    pub fn data(&self) -> &D {
        &self.0.data
    }

    /// The time, by the clock of the storage.
    #[must_use]
    pub fn now(&self) -> DateTime {
        self.0.call.clock.now()
    }

    /// Metadata for what the step writes or sends: the saga as correlation, the effect as causation.
    #[must_use]
    pub fn metadata(&self) -> Metadata {
        Metadata::new()
            .with_correlation(format!("{}/{}", self.saga(), self.id()))
            .with_causation(self.effect_id())
    }
}

impl<D: Clone> StepContext<D> {
    /// Changes the saga's data. Stored together with the step's completion, so that it is without effect if
    /// the attempt fails; later calls go on from the earlier ones' result.
    pub fn change(&self, change: impl FnOnce(&mut D)) {
        let mut changed = self
            .0
            .changed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        change(changed.get_or_insert_with(|| self.0.data.clone()));
    }
}

impl<D: Serialize + DeserializeOwned> StepContext<D> {
    pub(super) fn new(call: Call) -> Result<Self, StepError> {
        let data = data::decode(&call.data).map_err(StepError::unreadable)?;
        Ok(Self(Arc::new(Inner {
            effect: call.effect_id(),
            action: effect_id(&call.saga, &call.id, &call.step, false),
            call,
            data,
            changed: Mutex::new(None),
        })))
    }

    /// The data as the step changed them.
    pub(super) fn changed(&self) -> Result<Option<Bson>> {
        let changed = self.0.changed.lock();
        let changed = changed.unwrap_or_else(PoisonError::into_inner);
        changed.as_ref().map(data::encode).transpose()
    }
}

impl<D> Clone for StepContext<D> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<D> fmt::Debug for StepContext<D> {
    /// Shows no data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StepContext")
            .field("effect_id", &self.0.effect)
            .field("attempt", &self.0.call.attempt)
            .finish_non_exhaustive()
    }
}
