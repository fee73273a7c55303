use std::fmt;
use std::time::Duration;

/// One complete set of views: made by one version of the code, and counted, because one version may be
/// rebuilt.
///
/// ```
/// use nodestorage::projection::Build;
///
/// let build = Build::new(2, 1);
/// assert_eq!(build.to_string(), "2.1");
/// assert!(build > Build::new(2, 0) && build < Build::new(3, 0));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Build {
    version: u32,
    generation: u32,
}

impl Build {
    /// The build of a version with this number, from 0.
    #[must_use]
    pub const fn new(version: u32, generation: u32) -> Self {
        Self {
            version,
            generation,
        }
    }

    /// The version of the code.
    #[must_use]
    pub const fn version(self) -> u32 {
        self.version
    }

    /// How many times that version was rebuilt before.
    #[must_use]
    pub const fn generation(self) -> u32 {
        self.generation
    }

    /// The next build of the same version.
    pub(super) const fn next(self) -> Self {
        Self::new(self.version, self.generation.saturating_add(1))
    }
}

impl fmt::Display for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.version, self.generation)
    }
}

/// How far a build is that is not in use yet.
///
/// # Examples
/// ```
/// # use nodestorage::projection::{Projection, ProjectionHandle};
/// # fn example<P: Projection>(orders: &ProjectionHandle<P>) {
/// if let Some(progress) = orders.progress() {
///     println!("build {}: {} of {} entries", progress.build, progress.handled, progress.total);
/// }
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BuildProgress {
    /// Which build.
    pub build: Build,
    /// How many log entries this process has handled for it.
    pub handled: u64,
    /// How many lay ahead when it began, counted up to 10,000,000; the log may have grown since.
    pub total: u64,
    /// How long it has taken so far.
    pub elapsed: Duration,
}

impl BuildProgress {
    /// From 0 to 1; 1 also while what came since is handled.
    ///
    /// ```
    /// # use nodestorage::projection::BuildProgress;
    /// fn show(progress: BuildProgress) {
    ///     println!("{:.0} %, {:.0} entries/s", progress.fraction() * 100.0, progress.per_second());
    /// }
    /// ```
    #[must_use]
    pub fn fraction(&self) -> f64 {
        if self.total == 0 {
            return 1.0;
        }
        (self.handled as f64 / self.total as f64).min(1.0)
    }

    /// Entries per second, so far.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        // A microsecond keeps a question at the very beginning from dividing by zero.
        self.handled as f64 / self.elapsed.as_secs_f64().max(1e-6)
    }
}

/// How far the views in use are behind the log.
///
/// # Examples
/// ```
/// # use nodestorage::Result;
/// # use nodestorage::projection::{Projection, ProjectionHandle};
/// # async fn example<P: Projection>(orders: &ProjectionHandle<P>) -> Result<()> {
/// println!("{} entries behind", orders.lag().await?.entries);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ProjectionLag {
    /// How many log entries were not handled yet, counted up to 100,000. Near rather than exact while
    /// updates go on.
    pub entries: u64,
    /// How long ago the oldest of them was committed, by the committing client's clock and this one's.
    pub age: Duration,
}
