use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio_util::sync::DropGuard;
use tokio_util::task::TaskTracker;

use super::build::{BuildProgress, ProjectionLag};
use super::definition::Projection;
use super::letters::ProjectionDeadLetter;
use super::run::shut_down;
use super::shared::{Request, Shared};
use super::state::ProjectionState;
use super::views::Views;
use super::waiting;
use crate::document::{DocumentKey, Version};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::backend::Position;

/// Entries that are counted for the lag: an index is walked for each.
const COUNTED: u64 = 100_000;

/// A running projection. Dropping the last handle ends it as [`shutdown`](Self::shutdown) does, without
/// waiting for the end. Cheap to clone.
///
/// # Examples
/// ```
/// # use std::time::Duration;
/// # use nodestorage::Result;
/// # use nodestorage::projection::{Projection, ProjectionHandle};
/// # async fn example<P: Projection>(orders: ProjectionHandle<P>) -> Result<()> {
/// orders.caught_up(Duration::from_secs(5)).await?;
/// let view = orders.views().find("order-1").await?;
/// # let _ = view;
/// orders.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[must_use = "a projection ends when its handle is dropped"]
pub struct ProjectionHandle<P> {
    shared: Arc<Shared>,
    task: TaskTracker,
    _shutdown: Arc<DropGuard>,
    projection: PhantomData<fn() -> P>,
}

impl<P: Projection> ProjectionHandle<P> {
    pub(super) fn new(shared: Arc<Shared>, task: TaskTracker) -> Self {
        let shutdown = shared.shutdown.clone().drop_guard();
        Self {
            shared,
            task,
            _shutdown: Arc::new(shutdown),
            projection: PhantomData,
        }
    }

    /// The projection's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// The views.
    #[must_use]
    pub fn views(&self) -> Views<P::View> {
        Views::new(Arc::clone(&self.shared))
    }

    /// What it is doing now.
    #[must_use]
    pub fn state(&self) -> ProjectionState {
        self.shared.state.borrow().clone()
    }

    /// Follows what it is doing.
    #[must_use]
    pub fn state_changes(&self) -> watch::Receiver<ProjectionState> {
        self.shared.state.subscribe()
    }

    /// How far a build is that is not in use, or has not caught up with the log yet; `None` if there is
    /// none in this process.
    #[must_use]
    pub fn progress(&self) -> Option<BuildProgress> {
        *self.shared.progress.borrow()
    }

    /// Follows the progress of builds.
    #[must_use]
    pub fn progress_changes(&self) -> watch::Receiver<Option<BuildProgress>> {
        self.shared.progress.subscribe()
    }

    /// Waits until the views have a version of a document, in whichever process they are made: how one reads
    /// one's own writes. Cancel-safe.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use nodestorage::{Change, Result};
    /// # use nodestorage::projection::{Projection, ProjectionHandle};
    /// # async fn example<P: Projection>(spent: ProjectionHandle<P>, change: Change<bson::Document>) -> Result<()> {
    /// // `change` is what `Storage::update` returned.
    /// spent.wait_for(change.document(), change.version(), Duration::from_secs(5)).await?;
    /// let view = spent.views().find("kim").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `Timeout`; `DeadLettered` if the version waits behind a dead letter; `Closed` if the projection has
    /// stopped; those of the store.
    pub async fn wait_for(
        &self,
        document: &DocumentKey,
        version: impl Into<Version>,
        within: Duration,
    ) -> Result<()> {
        waiting::wait_for(&self.shared, document, version.into(), within).await
    }

    /// Waits until the views have everything that was committed before the call, but for what waits behind
    /// dead letters. Cancel-safe.
    ///
    /// # Errors
    /// `Timeout`; `Closed` if the projection has stopped; those of the store.
    pub async fn caught_up(&self, within: Duration) -> Result<()> {
        waiting::caught_up(&self.shared, within).await
    }

    /// How far the views in use are behind the log, in whichever process they are made.
    ///
    /// # Errors
    /// Those of the store; `Unsupported` if it cannot count its log.
    pub async fn lag(&self) -> Result<ProjectionLag> {
        let shared = &self.shared;
        let mut position = Position::START;
        if let Some(live) = shared.current().await?.live {
            let stored = shared.checkpoint(live).await?;
            let stored = stored.map_or(Position::START, |cursor| cursor.position);
            let here = shared.handled.position(live).unwrap_or_default();
            position = here.max(stored);
        }
        let backlog = shared.backend.backlog(position, COUNTED).await?;
        let now = shared.options.clock.now().timestamp_millis();
        let age = backlog
            .oldest
            .map_or(0, |at| now.saturating_sub(at.timestamp_millis()));
        Ok(ProjectionLag {
            entries: backlog.entries,
            age: Duration::from_millis(u64::try_from(age).unwrap_or_default()),
        })
    }

    /// Builds the views of this version anew, beside the ones in use, and returns when they have taken their
    /// place. Dropping the future does not stop it; [`progress`](Self::progress) says how far it is.
    ///
    /// # Errors
    /// `AlreadyRegistered` while another build is being made; `Unsupported` if newer code has taken over;
    /// `Closed`; those of the store.
    pub async fn rebuild(&self) -> Result<()> {
        let shared = &self.shared;
        let version = shared.version;
        let mut builds = shared.builds.subscribe();
        let ledger = &shared.ledger;
        let changed = ledger
            .change(|builds| match builds.live {
                Some(live) if live.version() > version => Err(Error::new(
                    ErrorKind::Unsupported,
                    format!("the views are those of version {} by now", live.version()),
                )),
                _ => builds.rebuilt(version).map(Some),
            })
            .await
            .map_err(|e| e.context(&shared.name))?;
        let Some(build) = changed.building else {
            return Ok(());
        };
        shared.note(changed);
        shared.wake.notify_one();
        let is_over = |builds: &super::ledger::Builds| builds.building != Some(build);
        tokio::select! {
            () = self.ended() => Err(shut_down()),
            done = builds.wait_for(|builds| is_over(builds)) => {
                let is_live = done.is_ok_and(|builds| builds.live == Some(build));
                match is_live {
                    true => Ok(()),
                    false => Err(Error::new(
                        ErrorKind::Unsupported,
                        format!("build {build} of {} was given up for newer code", shared.name),
                    )),
                }
            }
        }
    }

    /// Dead letters of the builds in use and being made, one per parked document, at most `limit` of each
    /// build, in an order of their own; `after` is the document of the last one of the page before.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn dead_letters(
        &self,
        after: Option<&DocumentKey>,
        limit: usize,
    ) -> Result<Vec<ProjectionDeadLetter>> {
        let builds = self.shared.current().await?;
        let mut letters = Vec::new();
        for build in builds.live.into_iter().chain(builds.building) {
            let page = self.shared.letters(build).page(after, limit).await?;
            letters.extend(page);
        }
        Ok(letters)
    }

    /// Folds what waits of a parked document, the failed event first, forgets its dead letter and goes on
    /// with it. Other documents wait meanwhile. Dropping the future does not stop it.
    ///
    /// # Errors
    /// `NotFound` if the document is not parked; `DeadLettered` if an event of it fails again, which leaves
    /// it parked there; `InUse` if the projection runs in another process; `Closed`; those of the store.
    pub async fn replay(&self, document: &DocumentKey) -> Result<()> {
        self.request(document, false).await
    }

    /// As [`replay`](Self::replay), but gives the failed event up for good.
    ///
    /// # Errors
    /// As for [`replay`](Self::replay).
    pub async fn discard(&self, document: &DocumentKey) -> Result<()> {
        self.request(document, true).await
    }

    /// Replays all parked documents and says how many. Those that fail again stay parked.
    ///
    /// # Errors
    /// As for [`replay`](Self::replay), except `NotFound` and `DeadLettered`.
    pub async fn replay_all(&self) -> Result<usize> {
        let builds = self.shared.current().await?;
        let mut replayed = 0;
        for build in builds.live.into_iter().chain(builds.building) {
            let mut after = None;
            loop {
                // A page bounds memory.
                let letters = self.shared.letters(build).page(after.as_ref(), 100).await?;
                let Some(last) = letters.last() else { break };
                after = Some(last.document.clone());
                for letter in letters {
                    match self.replay(&letter.document).await {
                        Ok(()) => replayed += 1,
                        Err(e)
                            if matches!(
                                e.kind(),
                                ErrorKind::NotFound | ErrorKind::DeadLettered
                            ) => {}
                        Err(e) => return Err(e),
                    }
                }
            }
        }
        Ok(replayed)
    }

    /// Takes in nothing more, stores what was folded within
    /// [`drain_timeout`](super::ProjectionOptions::drain_timeout), stores the checkpoint, lets the next
    /// process in, and ends. If the future is dropped the projection ends all the same.
    pub async fn shutdown(&self) {
        self.shared.shutdown.cancel();
        self.task.wait().await;
    }

    /// Waits until nothing runs any more.
    async fn ended(&self) {
        let mut states = self.shared.state.subscribe();
        let is_stopped = |state: &ProjectionState| matches!(state, ProjectionState::Stopped(_));
        // The sender lives as long as this handle.
        let _ = states.wait_for(is_stopped).await;
    }

    async fn request(&self, document: &DocumentKey, discard: bool) -> Result<()> {
        let gone = || Error::new(ErrorKind::Closed, "projection has stopped");
        let mut results = Vec::new();
        for requests in self.shared.requests() {
            let (answer, answered) = oneshot::channel();
            let request = Request {
                document: document.clone(),
                discard,
                answer,
            };
            let result = match requests.send(request).await {
                Ok(()) => answered.await.unwrap_or_else(|_| Err(gone())),
                Err(_) => Err(gone()),
            };
            results.push(result);
        }
        // Done if it was parked in one build or in both and nothing failed; else what failed says why.
        let is_absent =
            |result: &Result<()>| matches!(result, Err(e) if e.kind() == ErrorKind::NotFound);
        let position = results.iter().position(|result| !is_absent(result));
        match position {
            Some(first) => {
                let failed = results.iter().position(|it| it.is_err() && !is_absent(it));
                results.swap_remove(failed.unwrap_or(first))
            }
            None => results.pop().unwrap_or_else(|| Err(gone())),
        }
    }
}

impl<P> Clone for ProjectionHandle<P> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            task: self.task.clone(),
            _shutdown: Arc::clone(&self._shutdown),
            projection: PhantomData,
        }
    }
}

impl<P> fmt::Debug for ProjectionHandle<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProjectionHandle")
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}
