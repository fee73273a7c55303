use std::time::Duration;

/// No count may be higher: nothing gains from it, and sums stay far from their limits.
const MOST: usize = 1 << 20;
const LONGEST_LINGER: Duration = Duration::from_secs(1);
const LONGEST_LIFE: Duration = Duration::from_secs(365 * 24 * 3_600);

/// How updates are put together into commits, and what is kept in memory. The defaults suit a server
/// and a client that share a machine of two cores as well as larger ones.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CommitOptions {
    /// A commit takes on no further document once it has this many updates. Default 256: above it a
    /// batch takes longer than the rest of its commit, which is paid once, and everybody in it waits for
    /// the last.
    pub batch_updates: usize,
    /// At most this many bytes of documents and log entries in one commit, beyond its first update.
    /// Default 8 MiB: a MongoDB command ends at 16 MiB.
    pub batch_bytes: usize,
    /// At most this many commits at once, and one more while updates of so many documents are queued that
    /// they fill a batch. Default 2: while one waits for its majority or its disk, the other keeps the
    /// server busy; with more, batches only get smaller, unless they are full anyway. Worth raising where
    /// the majority is far away.
    pub commits_in_flight: usize,
    /// How long a commit may wait for updates that are about to come, while others are under way.
    /// Default 3 ms, about what a commit or a read of many documents takes where client and server share
    /// two cores. A lone update never waits.
    pub linger: Duration,
    /// At most this many updates are worked on at once; the others wait for their turn before they
    /// read anything, in the order in which they came. Default 4,096: sixteen full batches. An update
    /// that is under way and never polled again occupies its place until it is dropped.
    pub updates_at_once: usize,
    /// At most this many bytes wait for a commit. Default 64 MiB: eight full batches.
    pub queue_bytes: usize,
    /// How much the cache of documents that were read or written lately may take, in bytes; 0 turns it
    /// off. Default 64 MiB. An update whose document is in it saves the read; whether the document is
    /// still the newest is checked by the commit.
    pub cache_bytes: usize,
    /// How long a document stays in the cache without being used. Default 5 minutes: what is not
    /// updated again soon has no use there.
    pub cache_time_to_live: Duration,
}

impl Default for CommitOptions {
    fn default() -> Self {
        Self {
            batch_updates: 256,
            batch_bytes: 8 << 20,
            commits_in_flight: 2,
            linger: Duration::from_millis(3),
            updates_at_once: 4_096,
            queue_bytes: 64 << 20,
            cache_bytes: 64 << 20,
            cache_time_to_live: Duration::from_secs(300),
        }
    }
}

impl CommitOptions {
    /// Sets how many updates and how many bytes one commit may have; at least one update.
    #[must_use]
    pub fn with_batches(mut self, updates: usize, bytes: usize) -> Self {
        self.batch_updates = updates.max(1);
        self.batch_bytes = bytes;
        self
    }

    /// Sets how many commits may be under way at once; at least one.
    #[must_use]
    pub fn with_commits_in_flight(mut self, commits: usize) -> Self {
        self.commits_in_flight = commits.max(1);
        self
    }

    /// Sets how long a commit may wait for updates that are about to come.
    #[must_use]
    pub fn with_linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// Sets how many updates may be worked on at once, and how many bytes may wait for a commit.
    #[must_use]
    pub fn with_bounds(mut self, updates: usize, bytes: usize) -> Self {
        self.updates_at_once = updates.max(1);
        self.queue_bytes = bytes;
        self
    }

    /// Sets size and time to live of the cache.
    #[must_use]
    pub fn with_cache(mut self, bytes: usize, time_to_live: Duration) -> Self {
        self.cache_bytes = bytes;
        self.cache_time_to_live = time_to_live;
        self
    }

    /// The same with values that work: nothing is below one, and nothing overflows.
    pub(super) fn normalised(mut self) -> Self {
        self.batch_updates = self.batch_updates.clamp(1, MOST);
        self.commits_in_flight = self.commits_in_flight.clamp(1, MOST);
        self.updates_at_once = self.updates_at_once.clamp(1, MOST);
        self.queue_bytes = self.queue_bytes.max(1024);
        self.linger = self.linger.min(LONGEST_LINGER);
        self.cache_time_to_live = self.cache_time_to_live.min(LONGEST_LIFE);
        self
    }

    /// Keeps no documents in memory: every update reads its document.
    #[must_use]
    pub fn without_cache(mut self) -> Self {
        self.cache_bytes = 0;
        self
    }
}
