//! Where the states of sagas are kept.

use std::sync::Arc;

use async_trait::async_trait;
use bson::DateTime;

use super::context::effect_id;
use super::definition::Definition;
use super::state::SagaState;
use super::transition::Transition;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Metadata, NewEvent};
use crate::storage::{LogForm, Storage, Stored, UpdateContext, UpdateError, UpdateOptions};

/// What became of a transition.
#[derive(Debug)]
pub(crate) enum Written {
    Done(Box<SagaState>),
    /// The saga has moved on, or another runner has it.
    Stale,
}

/// Keeps the states of sagas of one definition.
#[async_trait]
pub(crate) trait Journal: Send + Sync {
    async fn load(&self, id: &str) -> Result<Option<SagaState>>;

    /// Applies a transition to the state that it was decided on.
    async fn write(
        &self,
        decided_on: &SagaState,
        transition: Transition,
        now: DateTime,
    ) -> Result<Written>;

    /// Whether another runner has written since.
    fn is_overtaken(&self, state: &SagaState) -> bool;
}

/// The journal in a storage, under a lease's fence.
pub(super) struct StoredJournal {
    pub(super) storage: Storage,
    pub(super) definition: Arc<Definition>,
    pub(super) fence: i64,
}

/// Why a state is not written.
#[derive(Debug)]
pub(super) enum Refused {
    Stale,
    Broken(Error),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Broken(error)
    }
}

/// Logs the change as the saga's own events.
pub(super) fn emit(context: &UpdateContext, events: Vec<NewEvent>) {
    context.log_as(LogForm {
        mapped: false,
        aggregate_type: Some("Saga".into()),
        ..LogForm::default()
    });
    for event in events {
        context.emit(event);
    }
}

/// Options of every write: the saga as correlation, and what set the change off.
pub(super) fn options(saga: &str, id: &str, causation: Option<String>) -> UpdateOptions {
    let mut metadata = Metadata::new().with_correlation(SagaState::document_id(saga, id));
    metadata.causation = causation;
    UpdateOptions::new()
        .with_metadata(metadata)
        .with_whole_document()
}

pub(super) fn not_found(definition: &Definition, id: &str) -> Error {
    let what = format!("saga {}/{id} not found", definition.name);
    Error::new(ErrorKind::NotFound, what)
}

#[async_trait]
impl Journal for StoredJournal {
    async fn load(&self, id: &str) -> Result<Option<SagaState>> {
        let key = SagaState::document_id(&self.definition.name, id);
        let found = self.storage.find(&self.definition.collection, key).await?;
        Ok(found.map(Stored::into_inner))
    }

    async fn write(
        &self,
        decided_on: &SagaState,
        transition: Transition,
        now: DateTime,
    ) -> Result<Written> {
        let (definition, fence, turn) = (&*self.definition, self.fence, decided_on.turn);
        let step = decided_on.step.as_deref();
        let cause =
            step.map(|step| effect_id(&definition.name, &decided_on.id, step, decided_on.backward));
        let change = |found: Option<SagaState>, context: &mut UpdateContext| {
            let mut state = found.ok_or(Refused::Stale)?;
            if state.turn != turn || state.fence > fence {
                return Err(Refused::Stale);
            }
            state.fence = fence;
            emit(context, state.apply(definition, transition.clone(), now)?);
            Ok(state)
        };
        let key = SagaState::document_id(&definition.name, &decided_on.id);
        let options = options(&definition.name, &decided_on.id, cause);
        let written = self
            .storage
            .update_with(&definition.collection, key, options, change)
            .await;
        match written {
            Ok(change) => match change.after()? {
                Some(state) => Ok(Written::Done(Box::new(state))),
                None => Ok(Written::Stale),
            },
            Err(UpdateError::Rejected(Refused::Stale)) => Ok(Written::Stale),
            Err(UpdateError::Rejected(Refused::Broken(error)) | UpdateError::Storage(error)) => {
                Err(error)
            }
        }
    }

    fn is_overtaken(&self, state: &SagaState) -> bool {
        state.fence > self.fence
    }
}
