use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::target::ProjectionTarget;
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, ErrorKind, Result};
use crate::event::EventRegistry;
use crate::storage::Index;

/// Options of a projection.
///
/// ```
/// use std::time::Duration;
/// use nodestorage::projection::ProjectionOptions;
/// use nodestorage::Index;
///
/// let options = ProjectionOptions::new()
///     .with_index(Index::on("cents"))
///     .with_lease_ttl(Duration::from_secs(5));
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct ProjectionOptions {
    /// Where views are kept. Default: collections of the storage whose log is read, one per build, named
    /// `<name>_v<version>`, or `<name>_v<version>_<generation>` after a rebuild.
    pub target: Option<Arc<dyn ProjectionTarget>>,
    /// Indexes on views, for the default target.
    pub indexes: Vec<Index>,
    /// Brings older events up to the schema that the projection knows. Default: events are handed over as
    /// they are.
    pub registry: Option<Arc<EventRegistry>>,
    /// How long the projection stays with its process when that dies, thus how soon another takes over.
    /// Default 10 s.
    pub lease_ttl: Duration,
    /// The checkpoint is stored at most this long after an entry was handled. Default 200 ms.
    pub checkpoint_interval: Duration,
    /// How often an event is tried before it goes to the dead letters. Default 3: `apply` is a pure
    /// function, which fails again; what may pass is a lack of memory.
    pub attempts: u32,
    /// The pause after the first failure of an event, of the target or of the store; each further one is
    /// twice as long. Default 10 ms.
    pub retry_base: Duration,
    /// The longest pause. Default 10 s.
    pub retry_max: Duration,
    /// How many documents may be parked behind dead letters before the projection stops to wait for
    /// somebody to look. Default 10,000.
    pub max_parked: usize,
    /// How many views are held in memory. Default 50,000, about 64 MiB with small views; larger views are
    /// let go earlier.
    pub cached_views: usize,
    /// How long shutting down waits for views that are being stored. Default 5 s.
    pub drain_timeout: Duration,
    /// The clock for the times of dead letters and the age of the lag. Default: the system's.
    pub clock: Arc<dyn Clock>,
}

impl Default for ProjectionOptions {
    fn default() -> Self {
        Self {
            target: None,
            indexes: Vec::new(),
            registry: None,
            lease_ttl: Duration::from_secs(10),
            checkpoint_interval: Duration::from_millis(200),
            attempts: 3,
            retry_base: Duration::from_millis(10),
            retry_max: Duration::from_secs(10),
            max_parked: 10_000,
            cached_views: 50_000,
            drain_timeout: Duration::from_secs(5),
            clock: Arc::new(SystemClock),
        }
    }
}

impl ProjectionOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets where views are kept.
    #[must_use]
    pub fn with_target(mut self, target: Arc<dyn ProjectionTarget>) -> Self {
        self.target = Some(target);
        self
    }

    /// Adds an index on views, for the default target.
    #[must_use]
    pub fn with_index(mut self, index: Index) -> Self {
        self.indexes.push(index);
        self
    }

    /// Sets what brings older events up to the current schema.
    #[must_use]
    pub fn with_registry(mut self, registry: Arc<EventRegistry>) -> Self {
        self.registry = Some(registry);
        self
    }

    /// Sets how soon another process takes over.
    #[must_use]
    pub fn with_lease_ttl(mut self, ttl: Duration) -> Self {
        self.lease_ttl = ttl;
        self
    }

    /// Sets how late the checkpoint may be stored.
    #[must_use]
    pub fn with_checkpoint_interval(mut self, interval: Duration) -> Self {
        self.checkpoint_interval = interval;
        self
    }

    /// Sets how often an event is tried, and the shortest and the longest pause after a failure.
    #[must_use]
    pub fn with_retries(mut self, attempts: u32, base: Duration, max: Duration) -> Self {
        self.attempts = attempts;
        self.retry_base = base;
        self.retry_max = max;
        self
    }

    /// Sets how many documents may be parked.
    #[must_use]
    pub fn with_max_parked(mut self, documents: usize) -> Self {
        self.max_parked = documents;
        self
    }

    /// Sets how many views are held in memory.
    #[must_use]
    pub fn with_cached_views(mut self, views: usize) -> Self {
        self.cached_views = views;
        self
    }

    /// Sets how long shutting down waits for views that are being stored.
    #[must_use]
    pub fn with_drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    /// Sets the clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    pub(super) fn validate(&self) -> Result<()> {
        let wrong = if self.lease_ttl < Duration::from_millis(100) {
            "a lease of less than 100 ms cannot be kept"
        } else if self.attempts == 0 {
            "no attempts"
        } else if self.retry_base.is_zero() || self.retry_max < self.retry_base {
            "pauses must grow from more than nothing"
        } else if self.cached_views == 0 || self.max_parked == 0 {
            "no room for views or parked documents"
        } else {
            return Ok(());
        };
        Err(Error::new(
            ErrorKind::InvalidConfig,
            format!("projection options: {wrong}"),
        ))
    }
}

impl fmt::Debug for ProjectionOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProjectionOptions")
            .field("own_target", &self.target.is_some())
            .field("lease_ttl", &self.lease_ttl)
            .field("attempts", &self.attempts)
            .finish_non_exhaustive()
    }
}
