use std::fmt;
use std::marker::PhantomData;

use bson::DateTime;
use serde::de::DeserializeOwned;

use super::data;
use super::state::{CompletedStep, SagaFailure, SagaState, SagaStatus};
use crate::document::Version;
use crate::error::Result;

/// A saga as it was read: where it is, what is behind it, and why it does not go on.
///
/// # Examples
/// ```
/// # use nodestorage::Result;
/// # use nodestorage::saga::Sagas;
/// # async fn example(transfers: Sagas<String>) -> Result<()> {
/// for saga in transfers.stuck(None, 100).await? {
///     println!("{} at {:?}: {}", saga.id(), saga.step(), saga.last_error().unwrap_or_default());
/// }
/// # Ok(())
/// # }
/// ```
pub struct SagaInstance<D> {
    state: SagaState,
    version: Version,
    data: PhantomData<fn() -> D>,
}

impl<D> SagaInstance<D> {
    pub(super) fn new(state: SagaState, version: Version) -> Self {
        Self {
            state,
            version,
            data: PhantomData,
        }
    }

    /// The saga's name.
    #[must_use]
    pub fn saga(&self) -> &str {
        &self.state.saga
    }

    /// The saga's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.state.id
    }

    /// The version of the saga's document; its history is in the log.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// How it is.
    #[must_use]
    pub fn status(&self) -> SagaStatus {
        self.state.status
    }

    /// The step that is in work, waiting, or being compensated; `None` once it has ended.
    #[must_use]
    pub fn step(&self) -> Option<&str> {
        self.state.step.as_deref()
    }

    /// How often the step has failed.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.state.attempts
    }

    /// When the step is given up.
    #[must_use]
    pub fn deadline(&self) -> Option<DateTime> {
        self.state.deadline
    }

    /// When something is to be done next; in the past while it is in work or in line.
    #[must_use]
    pub fn due(&self) -> Option<DateTime> {
        self.state.due
    }

    /// The steps that are behind, in the order of their completion.
    #[must_use]
    pub fn completed(&self) -> &[CompletedStep] {
        &self.state.completed
    }

    /// Why it is being compensated, or was.
    #[must_use]
    pub fn failure(&self) -> Option<&SagaFailure> {
        self.state.failure.as_ref()
    }

    /// What the last failed attempt said.
    #[must_use]
    pub fn last_error(&self) -> Option<&str> {
        self.state.last_error.as_deref()
    }

    /// When it was started.
    #[must_use]
    pub fn started_at(&self) -> DateTime {
        self.state.started_at
    }

    /// When it ended.
    #[must_use]
    pub fn ended_at(&self) -> Option<DateTime> {
        self.state.ended_at
    }
}

impl<D: DeserializeOwned> SagaInstance<D> {
    /// The data, as the completed steps left them.
    ///
    /// # Errors
    /// `Serialization` if they are no `D`.
    pub fn data(&self) -> Result<D> {
        data::decode(&self.state.data).map_err(|e| e.context(format_args!("saga {}", self.id())))
    }
}

impl<D> fmt::Debug for SagaInstance<D> {
    /// Shows no data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SagaInstance")
            .field("saga", &self.state.saga)
            .field("id", &self.state.id)
            .field("status", &self.state.status)
            .field("step", &self.state.step)
            .field("completed", &self.state.completed)
            .field("failure", &self.state.failure)
            .field("last_error", &self.state.last_error)
            .finish_non_exhaustive()
    }
}
