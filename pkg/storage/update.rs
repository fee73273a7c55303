//! One update: a state to run on, a decision, its commit, and again if something else was faster.

use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bson::RawDocumentBuf;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::backend::{LogEntry, Position};
use super::base::Base;
use super::codec::Codec;
use super::engine::{Answer, LaneUse, Part, Place, Proposal, Tick, View, Want, closed};
use super::plan::{Decision, Planned, Stamp};
use super::retry::Attempts;
use super::turns::Turn;
use super::wait::before;
use super::{Change, CollectionSpec, Inner, UpdateContext, UpdateOptions};
use crate::document::{Diff, DocumentKey, Version, VersionConflict};
use crate::error::{Error, ErrorKind, Result};
use crate::event::ChangeKind;

/// After so many runs for nothing a synchronous update lines up for the document instead of racing.
pub(super) const MISSES: u32 = 3;

/// The runs of one update call.
pub(super) struct Update<'a> {
    storage: &'a Inner,
    key: DocumentKey,
    spec: Arc<CollectionSpec>,
    options: UpdateOptions,
    attempts: Attempts,
    /// When the call began.
    since: Tick,
    /// Whether the closure awaits. Such a run may take as long as it likes, so it starts only from what
    /// is committed.
    awaits: bool,
    runs: u32,
    conflicts: u32,
    misses: u32,
    /// What the next run starts from, if that is settled already.
    next: Option<(LaneUse, View)>,
    _place: Option<Place>,
}

/// One run: the state it is decided on, before the closure sees it.
pub(super) struct Run {
    view: View,
    lane: LaneUse,
    turn: Option<Turn>,
    /// The caller's value as it was before the closure, in its own form.
    before: Option<RawDocumentBuf>,
    pub(super) context: UpdateContext,
}

/// What became of a run.
pub(super) enum Ran<T> {
    Done(Change<T>),
    /// The state it was decided on has gone: the closure runs again.
    Again,
}

impl<'a> Update<'a> {
    pub(super) async fn new(
        storage: &'a Inner,
        key: DocumentKey,
        options: UpdateOptions,
        awaits: bool,
    ) -> Result<Self> {
        storage.check_open()?;
        key.id().validate()?;
        tracing::Span::current().record("document", tracing::field::display(&key));
        let mut attempts = Attempts::new(options.retry.as_ref().unwrap_or(&storage.options.retry));
        let spec = loop {
            match storage.open_collection(key.collection()).await {
                Ok(spec) => break spec,
                Err(error) => attempts.after_failure(error).await?,
            }
        };
        // A closure that awaits may call the storage itself, and must not wait there for a place that
        // its own kind has taken.
        let place = match awaits {
            true => None,
            false => Some(storage.engine.admit(attempts.deadline()).await?),
        };
        Ok(Self {
            storage,
            since: storage.engine.tick(),
            key,
            spec,
            options,
            attempts,
            awaits,
            runs: 0,
            conflicts: 0,
            misses: 0,
            next: None,
            _place: place,
        })
    }

    fn codec(&self) -> Codec<'_> {
        Codec {
            key: &self.key,
            version_field: &self.spec.version_field,
        }
    }

    /// Finds a state to run on, and decodes it.
    pub(super) async fn start<T>(&mut self) -> Result<(Option<T>, Run)>
    where
        T: Serialize + DeserializeOwned,
    {
        loop {
            let (turn, (lane, view)) = self.enter().await?;
            self.storage.check_open()?;
            self.runs += 1;
            match self.prepare::<T>(&view.base) {
                Ok((value, before)) => {
                    let context = UpdateContext::new(
                        self.key.clone(),
                        (view.base.version, view.base.next),
                        (self.runs, self.conflicts),
                        self.options.metadata.clone(),
                    );
                    let run = Run {
                        view,
                        lane,
                        turn,
                        before,
                        context,
                    };
                    return Ok((value, run));
                }
                Err(error) => {
                    if self.confirm(&view, lane).await? {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// A state to run on: the newest there is, or for closures that await the newest committed one.
    async fn enter(&mut self) -> Result<(Option<Turn>, (LaneUse, View))> {
        if let Some(next) = self.next.take() {
            return Ok((None, next));
        }
        let storage = self.storage;
        let deadline = self.attempts.deadline();
        let insists = self.misses >= if self.awaits { 1 } else { MISSES };
        let turn = match insists || storage.turns.is_taken(&self.key) {
            true => Some(storage.turns.take(&self.key).await),
            false => None,
        };
        loop {
            let entered = match (self.awaits, &turn) {
                (true, Some(turn)) => {
                    let want = Want::Committed;
                    storage
                        .enter_at_rest(&self.key, &self.spec, want, turn, deadline)
                        .await
                }
                (true, None) => {
                    let want = Want::Committed;
                    let engine = &storage.engine;
                    engine.begin(&self.key, &self.spec, want, deadline).await
                }
                (false, _) => {
                    let engine = &storage.engine;
                    engine
                        .begin(&self.key, &self.spec, Want::Newest, deadline)
                        .await
                }
            };
            match entered {
                Ok(entered) => return Ok((turn, entered)),
                Err(error) => self.attempts.after_failure(error).await?,
            }
        }
    }

    /// Checks the expected version and decodes the document.
    #[allow(clippy::type_complexity)]
    fn prepare<T>(&self, base: &Base) -> Result<(Option<T>, Option<RawDocumentBuf>)>
    where
        T: Serialize + DeserializeOwned,
    {
        if !self.options.expected.accepts(base.version) {
            let conflict = VersionConflict::new(self.options.expected, base.version);
            return Err(conflict.into_error(&self.key));
        }
        let codec = self.codec();
        let document = base.document.as_ref();
        let value: Option<T> = document.map(|raw| codec.decode(raw)).transpose()?;
        let before = value.as_ref().map(|value| codec.encode_before(value));
        Ok((value, before.transpose()?))
    }

    /// Whether a result that writes nothing may be handed out: the state it was decided on was current
    /// at some moment since the call began. If it was not, the closure runs again on what is.
    pub(super) async fn stands(&mut self, run: Run) -> Result<bool> {
        drop(run.turn);
        self.confirm(&run.view, run.lane).await
    }

    async fn confirm(&mut self, view: &View, lane: LaneUse) -> Result<bool> {
        if view.seen > Some(self.since) {
            return Ok(true);
        }
        loop {
            let want = Want::Since(self.since);
            let deadline = self.attempts.deadline();
            let engine = &self.storage.engine;
            match engine.begin(&self.key, &self.spec, want, deadline).await {
                Ok((_, found)) if found.base.is_same(&view.base) => return Ok(true),
                Ok(found) => {
                    self.next = Some(found);
                    drop(lane);
                    return Ok(false);
                }
                Err(error) => self.attempts.after_failure(error).await?,
            }
        }
    }

    /// Commits what the closure decided.
    pub(super) async fn finish<T>(&mut self, run: Run, value: Option<T>) -> Result<Ran<T>>
    where
        T: Serialize + DeserializeOwned,
    {
        let planned = match self.plan(&run, value) {
            Ok(Some(planned)) => planned,
            Ok(None) => {
                let base = run.view.base.clone();
                return match self.stands(run).await? {
                    true => Ok(Ran::Done(self.unchanged(base)?)),
                    false => Ok(Ran::Again),
                };
            }
            Err(error) => {
                return match self.stands(run).await? {
                    true => Err(error),
                    false => Ok(Ran::Again),
                };
            }
        };
        let Run {
            view, lane, turn, ..
        } = run;
        let Planned {
            kind,
            diff,
            after,
            writes,
            entries,
            records,
        } = planned;
        let next = view.base.next;
        let is_beside = view.generation.is_none();
        let proposal = Proposal {
            parts: vec![Part {
                key: self.key.clone(),
                generation: view.generation,
                seen: view.seen,
                after: view.base.after(after),
                before: view.base,
                writes,
            }],
            entries,
            checks: Vec::new(),
            records,
            deadline: self.attempts.deadline(),
        };
        // Whoever has a turn has the others wait for it, so it must not wait for a place of theirs.
        let _place = match self.awaits && turn.is_none() {
            true => Some(self.storage.engine.admit(self.attempts.deadline()).await?),
            false => None,
        };
        let proposing = self.storage.engine.propose(proposal, turn);
        let answer = proposing.await;
        drop(lane);
        let answer = match answer {
            Ok(answer) => answer,
            // At the deadline: says how often it was tried.
            Err(error) if error.kind() == ErrorKind::Timeout => {
                self.attempts.after_failure(error).await?;
                return Ok(Ran::Again);
            }
            Err(error) => return Err(error),
        };
        match answer {
            None => {
                self.misses += 1;
                let source = moved(&self.key);
                // One that awaits may take long, and lose again and again: that has to end some time.
                match self.awaits {
                    true => self.attempts.after_conflict(source).await?,
                    false if is_beside => self.attempts.after_commit(source).await?,
                    false => self.attempts.again(source).await?,
                }
                Ok(Ran::Again)
            }
            Some(Answer::Committed { position, entries }) => {
                super::engine::meter::attempts(self.runs);
                Ok(Ran::Done(self.changed(kind, next, diff, entries, position)))
            }
            Some(Answer::Again { own: true, source }) => {
                super::engine::meter::conflict();
                self.conflicts += 1;
                self.attempts.after_conflict(source).await?;
                Ok(Ran::Again)
            }
            Some(Answer::Again { own: false, source }) => {
                self.attempts.again(source).await?;
                Ok(Ran::Again)
            }
            Some(Answer::Failed(error)) => {
                self.attempts.after_failure(error).await?;
                Ok(Ran::Again)
            }
            Some(Answer::Unknown(error)) => Err(error),
        }
    }

    fn plan<T>(&self, run: &Run, value: Option<T>) -> Result<Option<Planned>>
    where
        T: Serialize + DeserializeOwned,
    {
        let before = run.before.as_ref().filter(|_| !self.options.whole_document);
        let base = &run.view.base;
        let (after, changed) = decide(self.codec(), base, before, value)?;
        let decision = Decision {
            after,
            changed,
            collected: run.context.take(),
        };
        let stamp = Stamp::new(self.storage);
        Planned::new(self.storage, self.codec(), base, decision, stamp)
    }

    fn changed<T>(
        &self,
        kind: ChangeKind,
        version: Version,
        diff: Diff,
        mut entries: Vec<LogEntry>,
        position: Position,
    ) -> Change<T> {
        let committed = entries.pop().map(|entry| (Arc::new(entry), position));
        let has_events = committed
            .as_ref()
            .is_some_and(|(entry, _)| !entry.events.is_empty());
        self.storage.note_commit(position, has_events);
        self.change(kind, version, diff, committed)
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
        version: Version,
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

impl Inner {
    /// A committed state of a document on which nothing is queued, for whoever has the turn, which is
    /// kept meanwhile however long it takes.
    pub(super) async fn enter_at_rest(
        &self,
        key: &DocumentKey,
        spec: &Arc<CollectionSpec>,
        want: Want,
        turn: &Turn,
        deadline: Instant,
    ) -> Result<(LaneUse, View)> {
        let (engine, key, spec) = (self.engine.clone(), key.clone(), Arc::clone(spec));
        // In a task, which ends by itself, so that patience need not run meanwhile.
        let entrusted = turn.entrust();
        let entering = self.engine.spawn(async move {
            let _ = before(deadline, engine.idle(&key)).await;
            let entered = engine.begin(&key, &spec, want, deadline).await;
            drop(entrusted);
            entered
        });
        entering.await.map_err(|_| closed())?
    }
}

pub(super) fn moved(key: &DocumentKey) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!("other updates of {key} kept being faster"),
    )
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
