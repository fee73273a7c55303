//! Carrying out commands.

use bson::DateTime;

use super::fold::{Fold, applied, guarded};
use super::{Aggregate, CommandOptions, CommandResult, DecideContext, Repository, duplicate};
use crate::document::{DocumentId, DocumentKey, ExpectedVersion, Version, VersionConflict};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Metadata;
use crate::storage::{Change, Transaction, UpdateContext, UpdateError, UpdateOptions};

/// How often a command on an event-sourced aggregate is decided again at most, unless the options say
/// otherwise; the same as for documents.
const CONFLICT_ATTEMPTS: u32 = 100;

/// Why a run came to no result.
enum Refusal<E> {
    Rejected(E),
    Failed(Error),
    /// The command may have been carried out by now, or the state is not the newest: look again.
    Again,
}

impl<E> From<Error> for Refusal<E> {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// One command on its way.
struct Task<'a, A: Aggregate> {
    repository: &'a Repository<A>,
    key: &'a DocumentKey,
    command: &'a A::Command,
    command_id: Option<&'a str>,
    now: DateTime,
}

impl<A: Aggregate> Repository<A> {
    /// Has a command decided on the newest state, and stores state and events in one atomic step.
    ///
    /// When another writer was faster the command is decided again on the new state, as often as the
    /// [retry policy](crate::RetryPolicy::conflict_attempts) allows; one that [creates](Aggregate::creates)
    /// is not. Dropping the future either leaves everything as it was or lets a commit that has
    /// begun go to its end.
    ///
    /// # Errors
    /// [`UpdateError::Rejected`] with the aggregate's own error; nothing was written. `VersionConflict` for a
    /// creating command if there is an aggregate already, and if the version is not the expected one. `Panicked` if `decide` or `apply` did.
    /// `Constraint` if the command id was used for an aggregate of another type. Else those of
    /// [`Storage::update_with`](crate::Storage::update_with).
    #[tracing::instrument(level = "debug", name = "command", skip_all, fields(aggregate = A::TYPE))]
    pub async fn execute(
        &self,
        id: impl Into<DocumentId>,
        command: &A::Command,
        options: CommandOptions,
    ) -> Result<CommandResult, UpdateError<A::Error>> {
        let key = self.key(id)?;
        self.codec.types()?;
        let command_id = options.command_id.clone();
        if let Some(id) = &command_id {
            duplicate::validate_id(id)?;
        }
        let creates = guarded(&key, "creates", || A::creates(command))?;
        let options = self.settled(options, creates, command_id.as_deref());
        let task = Task {
            repository: self,
            key: &key,
            command,
            command_id: command_id.as_deref(),
            now: self.storage.now(),
        };
        // Two deliveries of one command in one batch would only make it fail. A collection of this name
        // cannot be opened.
        let _once = match task.command_id {
            Some(id) => Some(
                self.storage
                    .line_up(&DocumentKey::new("nodestorage.commands", id))
                    .await,
            ),
            None => None,
        };
        let mut looks = 0;
        loop {
            if let Some(id) = task.command_id
                && let Some(result) = duplicate::find(&self.storage, id, &key).await?
            {
                return Ok(result);
            }
            looks += 1;
            let done = match self.sourced {
                false => task
                    .on_document(options.clone())
                    .await
                    .map(CommandResult::now),
                true => {
                    // One after the other: whoever replays while others add loses to them.
                    let _turn = self.storage.line_up(&key).await;
                    task.on_events(&options).await
                }
            };
            let error = match done {
                Ok(result) => return Ok(result),
                Err(UpdateError::Rejected(Refusal::Again)) => {
                    let most = options.retry.as_ref();
                    let most = most.map_or(CONFLICT_ATTEMPTS, |retry| retry.conflict_attempts);
                    if looks < most.max(1) {
                        continue;
                    }
                    let what = format!("other updates of {key} kept being faster");
                    let attempts = looks;
                    let kind = ErrorKind::RetriesExhausted { attempts };
                    return Err(Error::new(kind, what).into());
                }
                Err(UpdateError::Rejected(Refusal::Rejected(error))) => {
                    UpdateError::Rejected(error)
                }
                Err(UpdateError::Rejected(Refusal::Failed(error)))
                | Err(UpdateError::Storage(error)) => UpdateError::Storage(error),
            };
            // Perhaps because the same command has been carried out meanwhile.
            let is_verdict = error
                .kind()
                .is_none_or(|kind| kind == ErrorKind::VersionConflict);
            if is_verdict
                && let Some(id) = task.command_id
                && let Some(result) = duplicate::find(&self.storage, id, &key).await?
            {
                return Ok(result);
            }
            return Err(error);
        }
    }

    /// As [`execute`](Self::execute), as a part of a [transaction](crate::Storage::transaction): committed
    /// with everything else in it, or not at all. The options' expected version, retry policy and command id
    /// do not apply; a creating command requires that there is no aggregate.
    ///
    /// # Errors
    /// As for [`execute`](Self::execute); `Unsupported` for aggregates that are events alone.
    pub async fn execute_in(
        &self,
        transaction: &Transaction,
        id: impl Into<DocumentId>,
        command: &A::Command,
        metadata: Metadata,
    ) -> Result<(), UpdateError<A::Error>> {
        let key = self.key(id)?;
        self.codec.types()?;
        if self.sourced {
            let what = format!("{key} is events alone, and has no document to take part");
            return Err(Error::new(ErrorKind::Unsupported, what).into());
        }
        let creates = guarded(&key, "creates", || A::creates(command))?;
        let task = Task {
            repository: self,
            key: &key,
            command,
            command_id: None,
            now: self.storage.now(),
        };
        let update = |state: Option<A>, ctx: &mut UpdateContext| {
            if creates && state.is_some() {
                let expected = ExpectedVersion::MustNotExist;
                let conflict = VersionConflict::new(expected, ctx.version());
                return Err(Refusal::Failed(conflict.into_error(&key)));
            }
            ctx.set_metadata(|current| {
                if !metadata.is_empty() {
                    *current = metadata.clone();
                }
            });
            task.run(state, ctx)
        };
        let done = transaction.update_with(A::COLLECTION, key.id(), update);
        done.await.map_err(|error| match error {
            UpdateError::Rejected(Refusal::Rejected(error)) => UpdateError::Rejected(error),
            UpdateError::Rejected(Refusal::Failed(error)) | UpdateError::Storage(error) => {
                UpdateError::Storage(error)
            }
            UpdateError::Rejected(Refusal::Again) => {
                let what = format!("other updates of {key} kept being faster");
                UpdateError::Storage(Error::new(ErrorKind::Unavailable, what))
            }
        })
    }

    fn settled(
        &self,
        options: CommandOptions,
        creates: bool,
        command_id: Option<&str>,
    ) -> UpdateOptions {
        let mut metadata = options.metadata;
        if metadata.causation.is_none() {
            metadata.causation = command_id.map(str::to_owned);
        }
        let mut update = UpdateOptions::new().with_metadata(metadata);
        update.retry = options.retry;
        update.expected = match (options.expected, creates) {
            (ExpectedVersion::Any, true) => ExpectedVersion::MustNotExist,
            (expected, _) => expected,
        };
        update
    }
}

impl<A: Aggregate> Task<'_, A> {
    /// The state is the document.
    async fn on_document(
        &self,
        options: UpdateOptions,
    ) -> Result<Change<A>, UpdateError<Refusal<A::Error>>> {
        let update = |state: Option<A>, ctx: &mut UpdateContext| {
            // What was in the way may have been the same command.
            if self.command_id.is_some() && ctx.conflicts() > 0 {
                return Err(Refusal::Again);
            }
            self.run(state, ctx)
        };
        let storage = &self.repository.storage;
        let id = self.key.id();
        storage
            .update_with(A::COLLECTION, id, options, update)
            .await
    }

    /// There is no document: the state is replayed before, and must be the newest when the events are
    /// added.
    async fn on_events(
        &self,
        options: &UpdateOptions,
    ) -> Result<CommandResult, UpdateError<Refusal<A::Error>>> {
        let repository = self.repository;
        let Fold { version, state } = repository.sourced_at(self.key, Version::MAX, None).await?;
        let found = state.is_some().then_some(version);
        if !options.expected.accepts(found) {
            let conflict = VersionConflict::new(options.expected, found);
            return Err(conflict.into_error(self.key).into());
        }
        let mut state = Some(state);
        let update = |document: Option<A>, ctx: &mut UpdateContext| {
            if document.is_some() {
                let what = format!("{} is stored as a document, not as events alone", self.key);
                return Err(Error::new(ErrorKind::Unsupported, what).into());
            }
            // A second run has no state left, and is due to another writer.
            let Some(state) = state.take() else {
                return Err(Refusal::Again);
            };
            if ctx.next_version() != version.next() {
                return Err(Refusal::Again);
            }
            let after = self.run_at(state, found, ctx)?;
            let snapshot = repository.snapshot_of(self.key, version.next(), after.as_ref())?;
            if let Some(snapshot) = snapshot {
                ctx.write_record(snapshot);
            }
            Ok(None)
        };
        let mut options = options.clone();
        options.expected = ExpectedVersion::Any;
        let id = self.key.id();
        let storage = &repository.storage;
        let change = storage
            .update_with(A::COLLECTION, id, options, update)
            .await?;
        Ok(match change.events().is_empty() {
            // Without a document, the change knows of no version.
            true => CommandResult::unchanged(self.key.clone(), version),
            false => CommandResult::now(change),
        })
    }

    fn run(
        &self,
        state: Option<A>,
        ctx: &mut UpdateContext,
    ) -> Result<Option<A>, Refusal<A::Error>> {
        let version = ctx.version();
        self.run_at(state, version, ctx)
    }

    fn run_at(
        &self,
        state: Option<A>,
        version: Option<Version>,
        ctx: &mut UpdateContext,
    ) -> Result<Option<A>, Refusal<A::Error>> {
        let mut metadata = Metadata::new();
        ctx.set_metadata(|current| metadata = current.clone());
        let storage = &self.repository.storage;
        let deciding = DecideContext {
            key: self.key.clone(),
            version,
            next: ctx.next_version(),
            now: self.now,
            metadata,
            command_id: self.command_id.map(str::to_owned),
            store: storage.backend().store_id(),
        };
        let decided = guarded(self.key, "decide", || match &state {
            Some(state) => state.decide(self.command, &deciding),
            None => A::default().decide(self.command, &deciding),
        })?;
        let events = decided.map_err(Refusal::Rejected)?;
        if events.is_empty() {
            return Ok(state);
        }
        let after = applied(self.key, state, &events)?;
        for event in &events {
            ctx.emit(self.repository.codec.encode(event)?);
        }
        if let Some(id) = self.command_id {
            let version = ctx.next_version();
            ctx.write_record(duplicate::record(id, self.key, version, self.now));
        }
        for inline in &self.repository.inline {
            let write = guarded(self.key, "project", || {
                inline.write(self.key, after.as_ref())
            })??;
            ctx.write_record(write);
        }
        ctx.log_as(self.repository.form.clone());
        Ok(after)
    }
}
