//! One update: read, decide, commit, and again if another writer was faster.

use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};

use bson::RawDocumentBuf;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::backend::{CommitFailure, LogEntry, Position, Unit};
use super::base::Base;
use super::codec::Codec;
use super::plan::{Decision, Planned, Stamp};
use super::retry::Attempts;
use super::turns::Turn;
use super::{Change, CollectionSpec, Inner, UpdateContext, UpdateOptions};
use crate::document::{Diff, DocumentKey, VersionConflict};
use crate::error::Result;
use crate::event::ChangeKind;

/// The runs of one update call.
pub(super) struct Update<'a> {
    storage: &'a Inner,
    key: DocumentKey,
    spec: Arc<CollectionSpec>,
    options: UpdateOptions,
    attempts: Attempts,
    runs: u32,
    /// The turn of a run that lost its race, for the next one.
    turn: Option<Turn>,
}

/// One run: the state it is decided on, before the closure sees it.
pub(super) struct Run {
    base: Base,
    /// The caller's value as it was before the closure, in its own form.
    before: Option<RawDocumentBuf>,
    turn: Turn,
    pub(super) context: UpdateContext,
}

/// What became of a run.
pub(super) enum Ran<T> {
    Done(Change<T>),
    /// Another writer was faster, or the database did not answer: the closure runs again.
    Again,
}

impl<'a> Update<'a> {
    pub(super) async fn new(
        storage: &'a Inner,
        key: DocumentKey,
        options: UpdateOptions,
    ) -> Result<Self> {
        storage.check_open()?;
        key.id().validate()?;
        let mut attempts = Attempts::new(options.retry.as_ref().unwrap_or(&storage.options.retry));
        let spec = loop {
            match storage.open_collection(key.collection()).await {
                Ok(spec) => break spec,
                Err(error) => attempts.after_failure(error).await?,
            }
        };
        Ok(Self {
            storage,
            key,
            spec,
            options,
            attempts,
            runs: 0,
            turn: None,
        })
    }

    fn codec(&self) -> Codec<'_> {
        Codec {
            key: &self.key,
            version_field: &self.spec.version_field,
        }
    }

    /// Waits for the turn, reads the newest committed document and decodes it.
    pub(super) async fn start<T>(&mut self) -> Result<(Option<T>, Run)>
    where
        T: Serialize + DeserializeOwned,
    {
        let mut turn = match self.turn.take() {
            Some(turn) => turn.resume().await,
            None => self.storage.turns.take(&self.key).await,
        };
        let loaded = loop {
            let loaded;
            (turn, loaded) = self.storage.load_in_turn(&self.key, turn).await?;
            match loaded {
                Ok(loaded) => break loaded,
                Err(error) => self.attempts.after_failure(error).await?,
            }
        };
        self.storage.check_open()?;
        let base = Base::new(self.codec(), loaded)?;
        if !self.options.expected.accepts(base.version) {
            let conflict = VersionConflict::new(self.options.expected, base.version);
            return Err(conflict.into_error(&self.key));
        }
        let value: Option<T> = base
            .document
            .as_ref()
            .map(|document| self.codec().decode(document))
            .transpose()?;
        let before = value
            .as_ref()
            .map(|value| self.codec().encode(value))
            .transpose()?;
        self.runs += 1;
        let context = UpdateContext::new(
            self.key.clone(),
            base.version,
            self.runs,
            self.options.metadata.clone(),
        );
        let run = Run {
            base,
            before,
            turn,
            context,
        };
        Ok((value, run))
    }

    /// Commits what the closure decided.
    pub(super) async fn finish<T>(&mut self, run: Run, value: Option<T>) -> Result<Ran<T>>
    where
        T: Serialize + DeserializeOwned,
    {
        let Run {
            base,
            before,
            turn,
            context,
        } = run;
        let before = before.as_ref().filter(|_| !self.options.whole_document);
        let (after, changed) = decide(self.codec(), &base, before, value)?;
        let (emitted, metadata) = context.take();
        let decision = Decision {
            after,
            changed,
            emitted,
            metadata,
        };
        let stamp = Stamp::new(self.storage);
        let planned = Planned::new(self.storage, self.codec(), &base, decision, stamp)?;
        let Some(mut planned) = planned else {
            return Ok(Ran::Done(self.unchanged(base)?));
        };
        let mut unit = Unit::default();
        planned.add_to(&mut unit);
        let deadline = self.attempts.deadline();
        let mut committed = self
            .storage
            .engine
            .commit(unit, vec![turn], deadline)
            .await?;
        match committed.result {
            Ok(receipt) => Ok(Ran::Done(self.changed(base, planned, receipt.position))),
            Err(CommitFailure::Conflict { source, .. }) => {
                self.turn = committed.turns.pop();
                self.attempts.after_conflict(source).await?;
                Ok(Ran::Again)
            }
            Err(failure @ CommitFailure::Failed(_)) => {
                self.attempts.after_failure(failure.into_error()).await?;
                Ok(Ran::Again)
            }
            Err(failure) => Err(failure.into_error()),
        }
    }

    fn changed<T>(&self, base: Base, planned: Planned, position: Position) -> Change<T> {
        let has_events = !planned.entry.events.is_empty();
        self.storage.note_commit(position, has_events);
        let Planned {
            kind, diff, entry, ..
        } = planned;
        let committed = Some((entry, position));
        self.change(kind, base.next, diff, committed)
    }

    fn unchanged<T>(&self, base: Base) -> Result<Change<T>> {
        let own = self.codec().own_fields();
        let diff = Diff::between(base.document.clone(), base.document.clone(), &own)?;
        let version = base.version.unwrap_or_default();
        Ok(self.change(ChangeKind::Unchanged, version, diff, None))
    }

    fn change<T>(
        &self,
        kind: ChangeKind,
        version: crate::document::Version,
        diff: Diff,
        committed: Option<(Arc<LogEntry>, Position)>,
    ) -> Change<T> {
        Change {
            key: self.key.clone(),
            version_field: self.spec.version_field.as_str().into(),
            kind,
            version,
            diff,
            committed,
            delivery: self.storage.delivery().cloned(),
            events: OnceLock::new(),
            document: PhantomData,
        }
    }
}

/// The document to store for a closure's value, and whether it differs from what is stored. Without
/// `before` the value is the whole document.
pub(super) fn decide<T>(
    codec: Codec<'_>,
    base: &Base,
    before: Option<&RawDocumentBuf>,
    value: Option<T>,
) -> Result<(Option<RawDocumentBuf>, bool)>
where
    T: Serialize + DeserializeOwned,
{
    let Some(value) = value else {
        return Ok((None, base.document.is_some()));
    };
    let after = codec.encode(&value)?;
    match (&base.document, before) {
        (Some(stored), Some(before)) => match codec.merged::<T>(stored, before, &after)? {
            Some(merged) => Ok((Some(merged), true)),
            None => Ok((Some(stored.as_ref().clone()), false)),
        },
        (Some(stored), None) => {
            let version = base.version.unwrap_or_default();
            let after = codec.stored_form(&after, version)?;
            // The version is the storage's own field: where it stands is no difference.
            let same = codec.with_version(stored, version)? == after;
            Ok((Some(after), !same))
        }
        (None, _) => Ok((Some(codec.stored_form(&after, base.next)?), true)),
    }
}
