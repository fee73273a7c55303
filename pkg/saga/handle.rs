use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use super::data;
use super::definition::Saga;
use super::instance::SagaInstance;
use super::journal::{emit, not_found, options};
use super::options::SagaOptions;
use super::outcome::{SignalOutcome, StartOutcome};
use super::runner;
use super::runner_handle::SagaRunner;
use super::shared::Shared;
use super::state::{SagaState, SagaStatus};
use crate::error::{Error, ErrorKind, Result};
use crate::event::json;
use crate::storage::{Query, Storage, Stored, UpdateContext};

/// The sagas of one definition in one storage: starts them, hands signals to them, and tells how they are.
/// Cheap to clone.
///
/// Any process may do so; a [runner](Self::run) must be somewhere for them to go on.
///
/// # Examples
/// ```
/// # use std::time::Duration;
/// # use nodestorage::{Result, Storage};
/// # use nodestorage::saga::{Saga, SagaOptions, Sagas, Step, StepContext};
/// # async fn example(storage: Storage) -> Result<()> {
/// let greeting = Saga::new("greeting").step(Step::new("greet", async |ctx: StepContext<String>| {
///     println!("hello, {}", ctx.data());
///     Ok(())
/// }));
/// let greetings = Sagas::new(&storage, greeting)?;
/// let runner = greetings.run(SagaOptions::new())?;
/// greetings.start("G-1", "world".to_owned()).await?;
/// greetings.wait("G-1", Duration::from_secs(5)).await?;
/// runner.shutdown().await;
/// # Ok(())
/// # }
/// ```
pub struct Sagas<D> {
    shared: Arc<Shared>,
    data: PhantomData<fn() -> D>,
}

impl<D: Serialize + DeserializeOwned + Clone + Send + Sync + 'static> Sagas<D> {
    /// The sagas of this definition. Reads and writes nothing yet.
    ///
    /// # Errors
    /// `InvalidName` for names that are none, `InvalidConfig` for a definition without steps, or with two of
    /// one name.
    pub fn new(storage: &Storage, saga: Saga<D>) -> Result<Self> {
        Ok(Self {
            shared: Arc::new(Shared::new(storage, saga.into_definition()?)),
            data: PhantomData,
        })
    }

    /// Starts a saga, once: a second start with the same id and equal data finds the first.
    ///
    /// Data are compared in their stored form, in which the order of a map's keys does not count.
    ///
    /// # Errors
    /// `AlreadyRegistered` if there is a saga of that id that was started with other data. Else those of
    /// [`Storage::update`]; after `CommitUnknown` start it again.
    pub async fn start(&self, id: &str, data: D) -> Result<StartOutcome> {
        self.shared.start(id, data::encode(&data)?, None).await
    }

    /// Hands a signal to a saga: to the step that waits for one of this name, or else to the first one that
    /// will.
    ///
    /// After `CommitUnknown` it may have been taken in; who wants to repeat it uses
    /// [`signal_once`](Self::signal_once).
    ///
    /// # Errors
    /// `NotFound` if there is no saga of that id, `Serialization` for a payload without a JSON form, `TooLarge`
    /// for the thousand and first signal, and those of [`Storage::update`].
    pub async fn signal(
        &self,
        id: &str,
        name: &str,
        payload: impl Serialize,
    ) -> Result<SignalOutcome> {
        let signal = Uuid::now_v7().to_string();
        self.signal_once(id, &signal, name, payload).await
    }

    /// As [`signal`](Self::signal), with an id of its own: of several signals with one id the first counts.
    ///
    /// # Errors
    /// As for [`signal`](Self::signal).
    pub async fn signal_once(
        &self,
        id: &str,
        signal_id: &str,
        name: &str,
        payload: impl Serialize,
    ) -> Result<SignalOutcome> {
        let payload = serde_json::to_value(payload).map_err(|e| {
            let what = format!("the payload of signal {name} has no JSON form");
            Error::new(ErrorKind::Serialization, what).with_source(e)
        })?;
        let payload = json::to_bson(&payload)?;
        self.shared
            .signal(id, (signal_id, name), payload, None)
            .await
    }

    /// How a saga is; `None` if there is none of that id.
    ///
    /// # Errors
    /// Those of [`Storage::find`].
    pub async fn status(&self, id: &str) -> Result<Option<SagaInstance<D>>> {
        let found = self.shared.find(id).await?;
        Ok(found.map(|(state, version)| SagaInstance::new(state, version)))
    }

    /// Waits until a saga has ended or is stuck, wherever its runner is. Dropping the future gives up waiting
    /// and nothing else.
    ///
    /// # Examples
    /// ```
    /// # use std::time::Duration;
    /// # use nodestorage::Result;
    /// # use nodestorage::saga::{SagaStatus, Sagas};
    /// # async fn example(transfers: Sagas<String>) -> Result<()> {
    /// let ended = transfers.wait("T-1", Duration::from_secs(5)).await?;
    /// if ended.status() != SagaStatus::Completed {
    ///     println!("{:?}", ended.failure());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `NotFound` if there is no saga of that id, `Timeout` if it has not ended by then, and those of
    /// [`Storage::find`].
    pub async fn wait(&self, id: &str, timeout: Duration) -> Result<SagaInstance<D>> {
        /// How often it is looked at: soon at first, for runners in other processes.
        const LOOKS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));
        let late = || {
            let what = format!("saga {}/{id} has not ended in time", self.name());
            Error::new(ErrorKind::Timeout, what)
        };
        let deadline = Instant::now() + timeout;
        let mut ended = self.shared.ended.subscribe();
        let mut pause = LOOKS.0;
        loop {
            let found = timeout_at(deadline, self.status(id)).await;
            let found = found.map_err(|_| late())??;
            let found = found.ok_or_else(|| not_found(&self.shared.definition, id))?;
            if found.status().is_ended() || found.status() == SagaStatus::Stuck {
                return Ok(found);
            }
            let told = async {
                // Also one that lagged looks.
                while ended.recv().await.is_ok_and(|other| &*other != id) {}
            };
            let told = async {
                tokio::select! {
                    () = told => {}
                    () = sleep(pause) => {}
                }
            };
            timeout_at(deadline, told).await.map_err(|_| late())?;
            pause = (pause * 2).min(LOOKS.1);
        }
    }

    /// Sets a stuck saga going again where it was, with all its attempts and all its time anew.
    ///
    /// # Examples
    /// ```
    /// # use nodestorage::Result;
    /// # use nodestorage::saga::Sagas;
    /// # async fn example(transfers: Sagas<String>) -> Result<()> {
    /// for saga in transfers.stuck(None, 100).await? {
    ///     transfers.retry(saga.id()).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `NotFound` if there is no saga of that id, `InvalidConfig` if it is not stuck, and those of
    /// [`Storage::update`].
    pub async fn retry(&self, id: &str) -> Result<()> {
        let now = self.shared.storage.clock().now();
        let definition = &self.shared.definition;
        let name = &definition.name;
        let change = |found: Option<SagaState>, context: &mut UpdateContext| {
            let mut state = found.ok_or_else(|| not_found(definition, id))?;
            if state.status != SagaStatus::Stuck {
                let what = format!("saga {name}/{id} is {}, not stuck", state.status);
                return Err(Error::new(ErrorKind::InvalidConfig, what));
            }
            state.unstick(definition, now);
            emit(context, Vec::new());
            Ok(state)
        };
        self.shared
            .update(id, options(name, id, None), change)
            .await
    }

    /// The sagas that have not ended, stuck ones included, in order of their ids: at most `limit`, behind the
    /// id `after`.
    ///
    /// # Errors
    /// Those of [`Storage::find_many`].
    pub async fn unfinished(
        &self,
        after: Option<&str>,
        limit: u64,
    ) -> Result<Vec<SagaInstance<D>>> {
        const UNFINISHED: [SagaStatus; 4] = [
            SagaStatus::Running,
            SagaStatus::Waiting,
            SagaStatus::Compensating,
            SagaStatus::Stuck,
        ];
        self.list(&UNFINISHED, after, limit).await
    }

    /// The sagas that are stuck, in order of their ids: at most `limit`, behind the id `after`.
    ///
    /// # Errors
    /// Those of [`Storage::find_many`].
    pub async fn stuck(&self, after: Option<&str>, limit: u64) -> Result<Vec<SagaInstance<D>>> {
        self.list(&[SagaStatus::Stuck], after, limit).await
    }

    /// The sagas in one of these states, in order of their ids: at most `limit`, behind the id `after`.
    ///
    /// # Errors
    /// Those of [`Storage::find_many`].
    pub async fn list(
        &self,
        statuses: &[SagaStatus],
        after: Option<&str>,
        limit: u64,
    ) -> Result<Vec<SagaInstance<D>>> {
        let definition = &self.shared.definition;
        self.shared.open().await?;
        let mut query = Query::new()
            .equal("saga", &*definition.name)
            .is_in("status", statuses.iter().map(|status| status.as_str()))
            .limit(limit)
            .allow_scan();
        if let Some(after) = after {
            query = query.after(SagaState::document_id(&definition.name, after));
        }
        let storage = &self.shared.storage;
        let found = storage.find_many(&definition.collection, &query).await?;
        let found = found.into_iter().map(|stored: Stored<SagaState>| {
            let version = stored.version();
            SagaInstance::new(stored.into_inner(), version)
        });
        Ok(found.collect())
    }

    /// Carries the sagas out, in a task of the current tokio runtime, until the returned handle is dropped or
    /// shut down. Of several runners of one name, in any process, one works and the others wait for their turn.
    ///
    /// # Errors
    /// `InvalidConfig` for options that make no sense and without a runtime, `Closed`. What happens later is in
    /// the [state](SagaRunner::state).
    pub fn run(&self, options: SagaOptions) -> Result<SagaRunner> {
        runner::start(&self.shared, options)
    }
}

impl<D> Sagas<D> {
    /// The saga's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.definition.name
    }
}

impl<D> Clone for Sagas<D> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            data: PhantomData,
        }
    }
}

impl<D> fmt::Debug for Sagas<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sagas")
            .field("definition", &self.shared.definition)
            .finish_non_exhaustive()
    }
}
