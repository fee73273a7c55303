//! What handles, runners and the subscription to events have in common.

use std::sync::Arc;

use bson::Bson;
use tokio::sync::{Notify, OnceCell, broadcast};

use super::definition::{Definition, validate_id};
use super::journal::{Refused, emit, not_found, options};
use super::outcome::{SignalOutcome, StartOutcome};
use super::state::SagaState;
use crate::document::Version;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{
    CollectionSpec, Index, Storage, Stored, UpdateContext, UpdateError, UpdateOptions,
};

/// A waiter that missed so many ends looks for itself.
const ENDED: usize = 256;

/// What handles, runners and the subscription to events share.
pub(super) struct Shared {
    pub(super) storage: Storage,
    pub(super) definition: Arc<Definition>,
    /// Wakes a runner of this process.
    pub(super) poke: Notify,
    /// Tells who waits here which sagas a runner of this process has left for good.
    pub(super) ended: broadcast::Sender<Arc<str>>,
    opened: OnceCell<()>,
}

impl Shared {
    pub(super) fn new(storage: &Storage, definition: Definition) -> Self {
        Self {
            storage: storage.clone(),
            definition: Arc::new(definition),
            poke: Notify::new(),
            ended: broadcast::Sender::new(ENDED),
            opened: OnceCell::new(),
        }
    }

    /// The lease's name, and that of the subscription to events.
    pub(super) fn lease(&self) -> String {
        format!("saga/{}", self.definition.name)
    }

    /// Sees to it that the collection has its indexes.
    pub(super) async fn open(&self) -> Result<()> {
        let open = || async {
            let name = &self.definition.collection;
            let spec = self.storage.open_collection(name).await?;
            let mut spec = CollectionSpec::clone(&spec);
            for path in ["due", "status"] {
                let index = Index::on("saga").then(path);
                if !spec.indexes.contains(&index) {
                    spec.indexes.push(index);
                }
            }
            self.storage.backend().open_collection(&spec).await
        };
        self.opened.get_or_try_init(open).await.copied()
    }

    pub(super) async fn start(
        &self,
        id: &str,
        data: Bson,
        causation: Option<String>,
    ) -> Result<StartOutcome> {
        let definition = &self.definition;
        validate_id(&definition.name, id)?;
        let now = self.storage.clock().now();
        let change = |found: Option<SagaState>, context: &mut UpdateContext| match found {
            None => {
                let (state, events) = SagaState::start(definition, id, data.clone(), now)?;
                emit(context, events);
                Ok(state)
            }
            Some(state) if state.input == data => Err(Refused::Stale),
            Some(_) => {
                let what = format!("saga {}/{id} was started with other data", definition.name);
                Err(Refused::Broken(Error::new(
                    ErrorKind::AlreadyRegistered,
                    what,
                )))
            }
        };
        let options = options(&definition.name, id, causation);
        match self.update(id, options, change).await {
            Ok(()) => Ok(StartOutcome::Started),
            Err(Refused::Stale) => Ok(StartOutcome::Existing),
            Err(Refused::Broken(error)) => Err(error),
        }
    }

    pub(super) async fn signal(
        &self,
        id: &str,
        signal: (&str, &str),
        payload: Bson,
        causation: Option<String>,
    ) -> Result<SignalOutcome> {
        let definition = &self.definition;
        validate_id(&definition.name, id)?;
        let now = self.storage.clock().now();
        let mut outcome = SignalOutcome::Kept;
        let change = |found: Option<SagaState>, context: &mut UpdateContext| {
            let mut state = found.ok_or_else(|| not_found(definition, id))?;
            let (came, events) = state.signal(definition, signal, payload.clone(), now)?;
            outcome = came;
            emit(context, events);
            Ok::<_, Error>(state)
        };
        let options = options(&definition.name, id, causation);
        self.update(id, options, change).await?;
        Ok(outcome)
    }

    /// Changes a saga, and wakes the runner.
    pub(super) async fn update<E: From<Error>>(
        &self,
        id: &str,
        options: UpdateOptions,
        change: impl FnMut(Option<SagaState>, &mut UpdateContext) -> Result<SagaState, E>,
    ) -> Result<(), E> {
        let key = SagaState::document_id(&self.definition.name, id);
        let collection = &self.definition.collection;
        let updated = self.storage.update_with(collection, key, options, change);
        updated.await.map_err(UpdateError::flatten)?;
        self.poke.notify_one();
        Ok(())
    }

    pub(super) async fn find(&self, id: &str) -> Result<Option<(SagaState, Version)>> {
        validate_id(&self.definition.name, id)?;
        let key = SagaState::document_id(&self.definition.name, id);
        let found = self.storage.find(&self.definition.collection, key).await?;
        Ok(found.map(|stored: Stored<SagaState>| {
            let version = stored.version();
            (stored.into_inner(), version)
        }))
    }
}
