//! What the holder of the lease does: batch after batch from the log into the views.

use std::collections::{HashSet, VecDeque};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::build::BuildProgress;
use super::cache::Cache;
use super::catch_up::CatchUp;
use super::definition::Projection;
use super::fold::{Folder, Work};
use super::letters::{Letters, Parked};
use super::reader::{Batch, Reader};
use super::run::Runner;
use super::settling::Sealing;
use super::shared::Request;
use super::state::ProjectionState;
use crate::document::{DocumentId, DocumentKey, Version};
use crate::error::{Error, ErrorKind, Result};
use crate::history::follow::Backoff;
use crate::history::lease::HeldLease;
use crate::storage::backend::{Cursor, TailFrom};

/// How long views may wait to be stored while the log is being caught up with: the fewer times a view is
/// stored the less it costs, and so much is repeated after a crash.
pub(super) const STORE_EVERY: Duration = Duration::from_secs(4);

/// The first time is soon, so that a target that refuses what it gets is noticed; each further one is twice as
/// far away.
const FIRST_STORE: Duration = Duration::from_millis(500);

/// Keys whose views are looked at together.
const KEYS: usize = 4_096;

/// How often marks that are no longer needed are removed.
const FORGET_EVERY: Duration = Duration::from_secs(60);

/// How often it is looked whether the build in use stands still: nobody is served anything new meanwhile.
const SETTLE_EVERY: Duration = Duration::from_millis(10);

/// Log entries that are counted for the progress of a build.
const COUNTED: u64 = 10_000_000;

/// Why leading ends, or begins anew.
#[derive(Debug)]
pub(super) enum Stop {
    /// The projection is shut down, or the build is not wanted any more.
    Asked,
    /// Somebody else has the lease, or may have it.
    Lost(Error),
    /// Trying again would not help.
    Failed(Error),
    /// What is in memory does not fit what is stored: back to the checkpoint.
    Over,
}

/// What to do with work when the projection is to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// It is dropped.
    None,
    /// It gets the time that draining may take.
    Drain,
}

pub(super) struct Leading<'a, P: Projection> {
    pub(super) runner: &'a Runner<P>,
    pub(super) lease: &'a mut HeldLease,
    pub(super) requests: &'a mut mpsc::Receiver<Request>,
    pub(super) letters: Letters,
    pub(super) parked: Parked,
    pub(super) cache: Cache<P::View>,
    /// Views whose form the target refused: they are stored event by event, to find the one at fault.
    pub(super) careful: HashSet<DocumentId>,
    /// A request to begin with after starting over.
    pub(super) redo: Option<Request>,
    /// The place behind what was folded, and how many entries were since the last store.
    pub(super) folded: Option<Cursor>,
    pub(super) entries: usize,
    pub(super) stored_at: Instant,
    pub(super) store_every: Duration,
    /// The newest second of the log.
    pub(super) seconds: u32,
    /// Versions to tell those who wait.
    pub(super) versions: Vec<(DocumentKey, Version)>,
    pub(super) catch_up: CatchUp,
    pub(super) pauses: Backoff,
    pub(super) attempts: u32,
    /// Whether the build in use was told to stand still, and whether it does.
    pub(super) is_sealed: bool,
    pub(super) sealing: Option<Sealing>,
    begun: Instant,
    handled: u64,
    total: u64,
    forget_at: Instant,
}

impl<'a, P: Projection> Leading<'a, P> {
    pub(super) fn new(
        runner: &'a Runner<P>,
        lease: &'a mut HeldLease,
        requests: &'a mut mpsc::Receiver<Request>,
    ) -> Self {
        let options = &runner.shared.options;
        Self {
            letters: runner.shared.letters(runner.build),
            parked: Parked::new(),
            cache: Cache::new(options.cached_views, false),
            careful: HashSet::new(),
            redo: None,
            folded: None,
            entries: 0,
            stored_at: Instant::now(),
            store_every: FIRST_STORE,
            seconds: 0,
            versions: Vec::new(),
            catch_up: CatchUp::default(),
            pauses: Backoff::new(options.retry_base, options.retry_max),
            attempts: 0,
            is_sealed: false,
            sealing: None,
            begun: Instant::now(),
            handled: 0,
            total: 0,
            forget_at: Instant::now() + FORGET_EVERY,
            runner,
            lease,
            requests,
        }
    }

    /// Leads until something stops it.
    pub(super) async fn run(mut self) -> Stop {
        let stop = match self.begin().await {
            Ok(complete) => self.lead(complete).await,
            Err(stop) => stop,
        };
        if matches!(stop, Stop::Asked) {
            // What was folded and can be stored in time need not be folded again.
            let drain = self.runner.shared.options.drain_timeout;
            let _ = timeout(drain, self.store(Patience::Drain)).await;
        }
        stop
    }

    /// Prepares the target. Whether nothing is stored yet.
    async fn begin(&mut self) -> Result<bool, Stop> {
        let (target, build) = (Arc::clone(&self.runner.shared.target), self.runner.build);
        self.persist(|| target.open(build)).await?;
        let is_new = self.lease.checkpoint().is_none();
        if is_new {
            // What a start that was broken off has left has no checkpoint to go on from.
            self.persist(|| target.clear(build)).await?;
        }
        let most = self.runner.shared.options.max_parked;
        let letters = self.letters.clone();
        self.parked = self.persist(|| letters.parked(most)).await?;
        let parked = self.parked.clone();
        self.runner.shared.handled.lead(build, parked);
        if is_new || !self.is_live() {
            let (backend, from) = (
                Arc::clone(&self.runner.shared.backend),
                self.lease.stored_position(),
            );
            let counted = self.keep(backend.backlog(from, COUNTED), Patience::None);
            // Without a count the progress is unknown, no more.
            self.total = counted.await?.map_or(0, |backlog| backlog.entries);
        }
        Ok(is_new)
    }

    async fn lead(&mut self, mut complete: bool) -> Stop {
        let mut overs = Backoff::new(Duration::from_millis(10), Duration::from_secs(5));
        loop {
            let capacity = self.runner.shared.options.cached_views;
            self.cache = Cache::new(capacity, complete);
            // Only before the first view is stored is there nothing to read.
            complete = false;
            self.folded = None;
            self.entries = 0;
            self.versions.clear();
            let started = Instant::now();
            let stop = match self.follow().await {
                Ok(never) => match never {},
                Err(stop) => stop,
            };
            if !matches!(stop, Stop::Over) {
                return stop;
            }
            if started.elapsed() > Duration::from_secs(10) {
                overs.reset();
            }
            let pause = sleep(overs.next_delay());
            if let Err(stop) = self.keep(pause, Patience::None).await {
                return stop;
            }
        }
    }

    /// Folds from the checkpoint on.
    async fn follow(&mut self) -> Result<std::convert::Infallible, Stop> {
        let from = match self.lease.checkpoint() {
            Some(checkpoint) => TailFrom::After(checkpoint.clone()),
            None => TailFrom::Beginning,
        };
        let mut reader = Reader::start(Arc::clone(&self.runner.shared.backend), from);
        if let Some(request) = self.redo.take() {
            self.answer(request).await?;
        }
        self.stored_at = Instant::now();
        self.store_every = FIRST_STORE;
        self.at_work();
        self.catch_up.restart();
        loop {
            let blocked = self.parked.len() >= self.runner.shared.options.max_parked;
            if blocked {
                self.store(Patience::Drain).await?;
                self.blocked("too many documents are parked behind dead letters");
            }
            let next = self.next(&mut reader, blocked);
            match next.await? {
                Next::Request(request) => self.answer(request).await?,
                Next::StoreDue => self.store(Patience::Drain).await?,
                Next::Settle => {}
                Next::Batch(Some(Ok(batch))) => {
                    self.recovered();
                    self.take(batch, &reader).await?;
                }
                Next::Batch(Some(Err(error))) if error.is_retryable() => self.failing(error),
                Next::Batch(Some(Err(error))) => {
                    return Err(Stop::Failed(error.context("following the log")));
                }
                Next::Batch(None) => {
                    let error = Error::new(ErrorKind::Closed, "the log has ended");
                    return Err(Stop::Failed(error));
                }
            }
            if self.attempts == 0 && !blocked {
                self.settle().await?;
            }
        }
    }

    async fn next(&mut self, reader: &mut Reader, blocked: bool) -> Result<Next, Stop> {
        let settling = self.is_settling();
        let stop = &self.runner.stop;
        let requests = &mut *self.requests;
        let store_at = self.stored_at + self.store_every;
        let is_unstored = self.folded.is_some();
        let next = async {
            tokio::select! {
                biased;
                () = stop.cancelled() => Err(Stop::Asked),
                Some(request) = requests.recv() => Ok(Next::Request(request)),
                () = sleep_until(store_at), if is_unstored => Ok(Next::StoreDue),
                () = sleep(SETTLE_EVERY), if settling => Ok(Next::Settle),
                batch = reader.next(), if !blocked => Ok(Next::Batch(batch)),
            }
        };
        self.lease.keep_during(next).await.map_err(lost)?
    }

    /// Folds a batch, and stores the views if it is time.
    async fn take(&mut self, batch: Batch, reader: &Reader) -> Result<(), Stop> {
        let is_full = batch.is_full();
        let mut works = VecDeque::new();
        let mut made = Vec::new();
        let folder = self.runner.folder();
        for entry in &batch.entries {
            self.seconds = self.seconds.max(entry.position.seconds());
            if !self.holds(&entry.key, entry.version) {
                folder.works(entry, &mut made);
                works.extend(made.drain(..));
            }
            if self.catch_up.is_done() {
                self.versions.push((entry.key.clone(), entry.version));
            }
        }
        self.fold(works).await?;
        self.entries += batch.entries.len();
        self.handled += batch.entries.len() as u64;
        let position = batch.cursor.position;
        self.folded = Some(batch.cursor);
        let was_caught_up = self.catch_up.is_done();
        let mut catch_up = std::mem::take(&mut self.catch_up);
        let noted = catch_up.passed(self, position, batch.idle, is_full).await;
        self.catch_up = catch_up;
        noted?;
        let caught_up = self.catch_up.is_done();
        self.show_progress();
        let due = self.stored_at.elapsed() >= self.store_every || self.cache.is_over_full();
        if due || caught_up && (!was_caught_up || !is_full || !reader.has_more()) {
            self.store(Patience::Drain).await?;
        }
        Ok(())
    }

    /// Folds events into views, reading those that are not at hand.
    pub(super) async fn fold(&mut self, mut works: VecDeque<Work>) -> Result<(), Stop> {
        while !works.is_empty() {
            let mut keys = 0;
            let fits = works.iter().take_while(|work| {
                keys += work.keys().len();
                keys <= KEYS
            });
            let count = fits.count().max(1);
            let part: Vec<Work> = works.drain(..count).collect();
            self.load(part.iter().flat_map(Work::keys)).await?;
            for work in part {
                if !self.holds(&work.document, work.version) {
                    self.fold_one(work).await?;
                    // A fold may be slow, and the lease must not end meanwhile.
                    self.lease.upkeep().await.map_err(lost)?;
                }
            }
            if self.cache.is_over_full() {
                self.store_views(Patience::Drain).await?;
                self.cache.trim();
            }
            // A batch may take a while, and others share the thread.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    pub(super) async fn load(
        &mut self,
        keys: impl Iterator<Item = &DocumentId>,
    ) -> Result<(), Stop> {
        let missing = self.cache.missing(keys);
        if missing.is_empty() {
            return Ok(());
        }
        let (target, build) = (Arc::clone(&self.runner.shared.target), self.runner.build);
        let stored = self.persist(|| target.load(build, &missing)).await?;
        self.cache.fill(missing, stored).map_err(Stop::Failed)
    }

    /// Whether a version waits behind a dead letter.
    fn holds(&self, document: &DocumentKey, version: Version) -> bool {
        let from = self.parked.get(document);
        from.is_some_and(|from| *from <= version)
    }

    /// Repeats something until the store or the target does not fail for want of an answer.
    pub(super) async fn persist<T, F>(&mut self, work: impl Fn() -> F) -> Result<T, Stop>
    where
        F: Future<Output = Result<T>>,
    {
        loop {
            match self.keep(work(), Patience::Drain).await? {
                Ok(done) => {
                    self.recovered();
                    return Ok(done);
                }
                Err(error) if is_passing(&error) => self.pause_after(error).await?,
                Err(error) => return Err(Stop::Failed(error)),
            }
        }
    }

    /// Works on something while keeping the lease.
    pub(super) async fn keep<F: Future>(
        &mut self,
        work: F,
        patience: Patience,
    ) -> Result<F::Output, Stop> {
        let stop = &self.runner.stop;
        let drain = self.runner.shared.options.drain_timeout;
        let work = async {
            let mut work = pin!(work);
            tokio::select! {
                biased;
                done = &mut work => return Some(done),
                () = stop.cancelled() => {}
            }
            match patience {
                Patience::None => None,
                Patience::Drain => timeout(drain, work).await.ok(),
            }
        };
        let done = self.lease.keep_during(work).await.map_err(lost)?;
        done.ok_or(Stop::Asked)
    }

    pub(super) async fn pause_after(&mut self, error: Error) -> Result<(), Stop> {
        self.failing(error);
        let pause = sleep(self.pauses.next_delay());
        self.keep(pause, Patience::None).await
    }

    fn failing(&mut self, error: Error) {
        self.attempts = self.attempts.saturating_add(1);
        self.runner.retrying(error, self.attempts);
    }

    pub(super) fn recovered(&mut self) {
        if self.attempts > 0 {
            self.attempts = 0;
            self.pauses.reset();
            self.at_work();
        }
    }

    pub(super) fn is_live(&self) -> bool {
        self.runner.shared.is_live(self.runner.build)
    }

    pub(super) fn at_work(&self) {
        let state = match self.is_live() && self.catch_up.was_done() {
            true => ProjectionState::Following,
            false => ProjectionState::Building(self.runner.build),
        };
        self.runner.shared.set(self.runner.build, state);
    }

    pub(super) fn blocked(&self, why: &str) {
        let parked = self.parked.len();
        let error = Error::new(ErrorKind::DeadLettered, format!("{why}: {parked}"));
        let state = ProjectionState::Blocked(Arc::new(error));
        self.runner.shared.set(self.runner.build, state);
    }

    fn show_progress(&self) {
        if self.is_live() && self.catch_up.was_done() {
            return;
        }
        let progress = BuildProgress {
            build: self.runner.build,
            handled: self.handled,
            total: self.total,
            elapsed: self.begun.elapsed(),
        };
        self.runner.shared.progress.send_replace(Some(progress));
    }

    /// Removes marks that no repetition of the log can need any more.
    pub(super) async fn forget_if_due(&mut self) -> Result<(), Stop> {
        if Instant::now() < self.forget_at {
            return Ok(());
        }
        self.forget_at = Instant::now() + FORGET_EVERY;
        let before = self.lease.stored_position().seconds();
        let (target, build) = (Arc::clone(&self.runner.shared.target), self.runner.build);
        // Space is all that is lost by leaving them.
        if let Err(error) = self
            .keep(target.forget(build, before), Patience::None)
            .await?
        {
            tracing::debug!(%error, "marks of removed views stay");
        }
        Ok(())
    }
}

impl<P: Projection> Runner<P> {
    pub(super) fn folder(&self) -> Folder<'_, P> {
        Folder {
            projection: &self.projection,
            registry: self.shared.options.registry.as_deref(),
        }
    }
}

enum Next {
    Request(Request),
    StoreDue,
    Settle,
    Batch(Option<Result<Batch>>),
}

/// What passes by itself. After a commit of unknown outcome the marks tell what was stored.
pub(super) fn is_passing(error: &Error) -> bool {
    error.is_retryable() || error.kind() == ErrorKind::CommitUnknown
}

pub(super) fn lost(error: Error) -> Stop {
    match error.kind() {
        ErrorKind::InUse => Stop::Lost(error),
        _ => Stop::Failed(error),
    }
}
