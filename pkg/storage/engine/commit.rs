//! Committing batches, and finding out whom a failure concerns.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::Instrument as _;

use super::super::backend::{CommitFailure, PartialCommit};
use super::super::base::Base;
use super::super::wait::before;
use super::batch::{Batch, Group};
use super::read::is_outage;
use super::state::State;
use super::ticket::{Answer, Answers, give};
use super::{Shared, Tick, late, stopped};
use crate::document::DocumentKey;
use crate::error::{Error, ErrorKind};

/// A batch never gets smaller than this because of conflicts: halves of it find the one to blame.
const SMALLEST_BATCH: usize = 4;

/// By how many updates a batch grows after a success.
const GROWTH: usize = 8;

/// Before a batch is tried again in which nothing has moved: what was in its way, a transaction of
/// somebody else's, is over then as a rule.
const PAUSE: Duration = Duration::from_millis(2);

/// What documents of a failed batch were found to be, and when the read began.
type News = HashMap<DocumentKey, (Base, Tick)>;

/// A batch under way, and what it was divided into. Whatever has not been answered when it is dropped
/// is answered as unknown: a task that was aborted, or a backend that panicked.
pub(super) struct Flight {
    shared: Arc<Shared>,
    pub(super) batches: Vec<Batch>,
    began: Tick,
}

impl Flight {
    pub(super) fn new(shared: Arc<Shared>, batch: Batch, began: Tick) -> Self {
        Self {
            shared,
            batches: vec![batch],
            began,
        }
    }

    pub(super) async fn land(mut self) {
        while let Some(batch) = self.batches.last() {
            let deadline = batch.deadline().unwrap_or_else(Instant::now);
            let begun = Instant::now();
            let span = tracing::debug_span!("commit", units = batch.units.len());
            let committing = self
                .shared
                .backend
                .commit_what_holds(&batch.units, deadline);
            let result = committing.instrument(span).await;
            let units = batch.units.len();
            self.shared
                .telemetry
                .committed(&result, units, begun.elapsed());
            match result {
                Ok(committed) => self.succeeded(committed),
                Err(CommitFailure::Conflict { suspects, source }) => {
                    self.lost(suspects, source).await;
                }
                Err(CommitFailure::Refused { unit, error }) => self.refused(unit, error),
                Err(CommitFailure::Failed(error)) => self.failed(error),
                Err(CommitFailure::Unknown(error)) => {
                    self.end_all(|| Answer::Unknown(error.clone()))
                }
            }
            self.began = self.shared.tick();
        }
    }

    /// All is committed but what was lost, which is decided again.
    fn succeeded(&mut self, committed: PartialCommit) {
        let Some(batch) = self.batches.pop() else {
            return;
        };
        let now = self.shared.tick();
        let mut answers = Answers::new();
        let mut state = self.shared.lock();
        state.batch_updates = (state.batch_updates + GROWTH).min(self.shared.options.batch_updates);
        for (index, (unit, group)) in batch.into_pairs().enumerate() {
            if committed.lost.contains(&index) {
                let moved = Error::new(
                    ErrorKind::Unavailable,
                    "a document was changed by somebody else",
                );
                lose(
                    &mut state,
                    group,
                    &mut News::new(),
                    &moved,
                    now,
                    &mut answers,
                );
                continue;
            }
            state.flying -= group.tickets.len();
            for start in &group.lanes {
                state.settle(&start.key, self.began, now);
            }
            let mut entries = unit.entries.into_iter();
            for (ticket, (n, _)) in group.tickets.into_iter().zip(group.sizes) {
                let committed = Answer::Committed {
                    position: committed.position,
                    entries: entries.by_ref().take(n).collect(),
                };
                answers.push((ticket.answer, committed));
            }
        }
        let seat = match self.batches.is_empty() {
            // This worker goes on itself.
            true => None,
            false => self.shared.pump(&mut state),
        };
        drop(state);
        self.shared.start_worker(seat);
        give(answers);
    }

    /// Somebody else was faster with something: those whose documents have moved are decided again,
    /// the others go on.
    async fn lost(&mut self, mut suspects: Vec<usize>, source: Error) {
        {
            let mut state = self.shared.lock();
            let smallest = SMALLEST_BATCH.min(self.shared.options.batch_updates);
            state.batch_updates = (state.batch_updates / 2).max(smallest);
        }
        let Some(batch) = self.batches.last() else {
            return;
        };
        if batch.groups.len() == 1 {
            return self.end_some(&[0], &source, HashMap::new());
        }
        suspects.retain(|unit| *unit < batch.groups.len());
        if !suspects.is_empty() {
            return self.end_some(&suspects, &source, HashMap::new());
        }
        let deadline = batch.deadline().unwrap_or_else(Instant::now);
        let (found, began) = match before(deadline, self.look()).await {
            Some(Ok(found)) => found,
            Some(Err(error)) => return self.failed(error),
            None => {
                return self.failed(late("the documents of a commit that lost were read again"));
            }
        };
        let Some(batch) = self.batches.last() else {
            return;
        };
        let mut moved = Vec::new();
        let mut news = HashMap::new();
        for (index, group) in batch.groups.iter().enumerate() {
            let has_moved = group.lanes.iter().any(|start| match found.get(&start.key) {
                Some(Ok(base)) => !base.is_same(&start.before),
                // What does not read is the caller's to hear about.
                Some(Err(_)) | None => true,
            });
            if has_moved {
                moved.push(index);
                for start in &group.lanes {
                    if let Some(Ok(base)) = found.get(&start.key) {
                        news.insert(start.key.clone(), (base.clone(), began));
                    }
                }
            }
        }
        if moved.is_empty() {
            self.divide();
            tokio::time::sleep(PAUSE).await;
        } else {
            self.end_some(&moved, &source, news);
        }
    }

    /// Reads the documents of the batch as they are now.
    async fn look(&self) -> Result<(HashMap<DocumentKey, Result<Base, Error>>, Tick), Error> {
        let keys: Vec<_> = {
            let state = self.shared.lock();
            let groups = self.batches.last().map(|batch| &batch.groups);
            let starts = groups.into_iter().flatten().flat_map(|group| &group.lanes);
            starts
                .filter_map(|start| {
                    let lane = state.lanes.get(&start.key)?;
                    Some((start.key.clone(), Arc::clone(&lane.spec)))
                })
                .collect()
        };
        let (bases, began) = self.shared.read_now(&keys).await?;
        let keys = keys.into_iter().map(|(key, _)| key);
        Ok((keys.zip(bases).collect(), began))
    }

    /// One unit cannot be written. If several updates share it, they are committed in smaller shares
    /// until the one to blame stands alone.
    fn refused(&mut self, unit: usize, error: Error) {
        if self
            .batches
            .last()
            .is_none_or(|batch| unit >= batch.groups.len())
        {
            return self.failed(error);
        }
        let Some(batch) = self.batches.pop() else {
            return;
        };
        let now = self.shared.tick();
        let mut rest = Batch::default();
        let mut answers = Answers::new();
        let mut state = self.shared.lock();
        for (index, (content, mut group)) in batch.into_pairs().enumerate() {
            if index != unit {
                rest.push((content, group));
            } else if group.tickets.len() > 1 {
                state.flying -= group.tickets.len();
                group.take_back(content);
                if let Some(start) = group.lanes.first() {
                    if let Some(lane) = state.lanes.get_mut(&start.key) {
                        lane.joined = group.tickets.len().div_ceil(2);
                    }
                    state.put_back(&start.key, group.tickets);
                }
            } else {
                let answer = || Answer::Failed(error.clone());
                fail(
                    &mut state,
                    group,
                    &mut News::new(),
                    &error,
                    now,
                    answer,
                    &mut answers,
                );
            }
        }
        let seat = self.shared.pump(&mut state);
        drop(state);
        self.shared.start_worker(seat);
        give(answers);
        self.go_on_with(rest);
    }

    /// The commit failed for no reason that names a unit.
    fn failed(&mut self, error: Error) {
        let alone = self.batches.last().is_none_or(|b| b.groups.len() <= 1);
        if alone || is_outage(error.kind()) || error.kind() == ErrorKind::CommitUnknown {
            self.end_all(|| Answer::Failed(error.clone()));
        } else {
            self.divide();
        }
    }

    /// Answers some groups with a conflict, and goes on with the others.
    fn end_some(&mut self, which: &[usize], source: &Error, mut news: News) {
        let Some(batch) = self.batches.pop() else {
            return;
        };
        let now = self.shared.tick();
        let mut rest = Batch::default();
        let mut answers = Answers::new();
        let mut state = self.shared.lock();
        for (index, (content, group)) in batch.into_pairs().enumerate() {
            if !which.contains(&index) {
                rest.push((content, group));
                continue;
            }
            lose(&mut state, group, &mut news, source, now, &mut answers);
        }
        let seat = self.shared.pump(&mut state);
        drop(state);
        self.shared.start_worker(seat);
        give(answers);
        self.go_on_with(rest);
    }

    fn end_all(&mut self, mut answer: impl FnMut() -> Answer) {
        let Some(batch) = self.batches.pop() else {
            return;
        };
        let now = self.shared.tick();
        let mut answers = Answers::new();
        let why = Error::new(
            ErrorKind::Unavailable,
            "the commit that this update was built on failed",
        );
        let mut state = self.shared.lock();
        for (_, group) in batch.into_pairs() {
            fail(
                &mut state,
                group,
                &mut News::new(),
                &why,
                now,
                &mut answer,
                &mut answers,
            );
        }
        drop(state);
        give(answers);
    }

    /// Goes on with two halves of the batch, one after the other.
    fn divide(&mut self) {
        let Some(batch) = self.batches.pop() else {
            return;
        };
        let half = batch.groups.len().div_ceil(2);
        let (mut first, mut second) = (Batch::default(), Batch::default());
        for (index, pair) in batch.into_pairs().enumerate() {
            if index < half {
                first.push(pair);
            } else {
                second.push(pair);
            }
        }
        self.go_on_with(second);
        self.go_on_with(first);
    }

    fn go_on_with(&mut self, batch: Batch) {
        if !batch.groups.is_empty() {
            self.batches.push(batch);
        }
    }
}

/// A document of a group has moved: its updates are decided again.
fn lose(
    state: &mut State,
    group: Group,
    news: &mut News,
    source: &Error,
    now: Tick,
    answers: &mut Answers,
) {
    if group.lanes.iter().any(|start| start.cached) {
        state.distrust_cache();
    }
    // The first was decided on what has moved, the others on its result.
    let mut own = true;
    let answer = || Answer::Again {
        own: std::mem::replace(&mut own, false),
        source: source.clone(),
    };
    fail(state, group, news, source, now, answer, answers);
}

/// Answers the updates of a group that was not committed, and has everything decided again that was
/// built on them.
fn fail(
    state: &mut State,
    group: Group,
    news: &mut News,
    why: &Error,
    now: Tick,
    mut answer: impl FnMut() -> Answer,
    answers: &mut Answers,
) {
    state.flying -= group.tickets.len();
    for ticket in group.tickets {
        answers.push((ticket.answer, answer()));
    }
    for start in &group.lanes {
        state.fail(&start.key, news.remove(&start.key), why, now, answers);
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        while !self.batches.is_empty() {
            self.end_all(|| Answer::Unknown(stopped()));
        }
    }
}
