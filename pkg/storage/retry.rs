use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

use crate::error::{Error, ErrorKind};

/// How often and how fast a call is tried again.
///
/// Two things make a call start over. A *conflict* means that another writer was faster; the closure
/// runs again on the newer document, soon. An *outage* means that the database did not answer; it is
/// asked again with longer pauses. Rejections, constraint violations and version conflicts against an
/// [`ExpectedVersion`](crate::ExpectedVersion) are never retried.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// How often the database is tried when it does not answer. Default 3.
    pub attempts: u32,
    /// The pause after the first outage. Default 1 s.
    pub base_delay: Duration,
    /// By how much each pause is longer than the one before. Default 2.
    pub factor: f32,
    /// The longest pause. Default 10 s.
    pub max_delay: Duration,
    /// How often a closure runs when other writers keep being faster. Default 100: with two processes
    /// on one document every second attempt loses, so a handful would not do.
    pub conflict_attempts: u32,
    /// The pause after the first conflict. Default 1 ms, about one commit.
    pub conflict_base_delay: Duration,
    /// The longest pause after a conflict. Default 64 ms.
    pub conflict_max_delay: Duration,
    /// Whether each pause is lengthened at random, so that writers that collided do not collide again.
    /// Default true.
    pub jitter: bool,
    /// How long a call may take in all. Default 30 s.
    pub deadline: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 3,
            base_delay: Duration::from_secs(1),
            factor: 2.0,
            max_delay: Duration::from_secs(10),
            conflict_attempts: 100,
            conflict_base_delay: Duration::from_millis(1),
            conflict_max_delay: Duration::from_millis(64),
            jitter: true,
            deadline: Duration::from_secs(30),
        }
    }
}

impl RetryPolicy {
    /// Every call is tried once.
    #[must_use]
    pub fn never() -> Self {
        Self {
            attempts: 1,
            conflict_attempts: 1,
            ..Self::default()
        }
    }

    /// Sets how often the database is tried when it does not answer; at least once.
    #[must_use]
    pub fn with_attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// Sets the first and the longest pause after outages.
    #[must_use]
    pub fn with_delays(mut self, base: Duration, max: Duration) -> Self {
        self.base_delay = base;
        self.max_delay = max;
        self
    }

    /// Sets how often a closure runs when other writers keep being faster; at least once.
    #[must_use]
    pub fn with_conflict_attempts(mut self, attempts: u32) -> Self {
        self.conflict_attempts = attempts;
        self
    }

    /// Sets the first and the longest pause after conflicts.
    #[must_use]
    pub fn with_conflict_delays(mut self, base: Duration, max: Duration) -> Self {
        self.conflict_base_delay = base;
        self.conflict_max_delay = max;
        self
    }

    /// Sets whether pauses are lengthened at random.
    #[must_use]
    pub fn with_jitter(mut self, jitter: bool) -> Self {
        self.jitter = jitter;
        self
    }

    /// Sets how long a call may take in all.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    fn delays(&self, base: Duration, max: Duration, attempts: u32) -> ExponentialBackoff {
        let builder = ExponentialBuilder::new()
            .with_min_delay(base)
            .with_max_delay(max)
            .with_factor(self.factor.max(1.0))
            .with_max_times(attempts.saturating_sub(1) as usize);
        if self.jitter {
            builder.with_jitter()
        } else {
            builder
        }
        .build()
    }
}

/// Longer than any process; a sum with the present does not overflow.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);

/// The attempts of one call.
pub(crate) struct Attempts {
    deadline: Instant,
    /// About how long a commit takes.
    commit: Duration,
    outages: ExponentialBackoff,
    conflicts: ExponentialBackoff,
    made: u32,
}

impl Attempts {
    pub(crate) fn new(policy: &RetryPolicy) -> Self {
        Self {
            deadline: Instant::now() + policy.deadline.min(FOREVER),
            commit: policy.conflict_base_delay,
            outages: policy.delays(policy.base_delay, policy.max_delay, policy.attempts),
            conflicts: policy.delays(
                policy.conflict_base_delay,
                policy.conflict_max_delay,
                policy.conflict_attempts,
            ),
            made: 1,
        }
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Pauses after a conflict, or gives up.
    ///
    /// # Errors
    /// `RetriesExhausted` with `error` as its source.
    pub(crate) async fn after_conflict(&mut self, error: Error) -> Result<(), Error> {
        let delay = self.conflicts.next();
        self.pause(delay, error).await
    }

    /// Pauses after an outage, or gives up; errors that are none come back at once.
    ///
    /// # Errors
    /// `RetriesExhausted` with `error` as its source, or `error` itself.
    pub(crate) async fn after_failure(&mut self, error: Error) -> Result<(), Error> {
        if !matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout) {
            return Err(error);
        }
        let delay = self.outages.next();
        self.pause(delay, error).await
    }

    /// Goes on at once, or gives up at the deadline: what was in the way is no doing of other writers
    /// and no outage.
    ///
    /// # Errors
    /// `Timeout` with `error` as its source.
    pub(crate) async fn again(&mut self, error: Error) -> Result<(), Error> {
        if Instant::now() < self.deadline {
            // Whoever has got further goes first.
            tokio::task::yield_now().await;
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Timeout,
            "the deadline passed; nothing was written",
        )
        .with_source(error))
    }

    /// Goes on once a commit under way may have ended, or gives up as [`again`](Self::again): until
    /// then the database shows one state and the queue another.
    ///
    /// # Errors
    /// `Timeout` with `error` as its source.
    pub(crate) async fn after_commit(&mut self, error: Error) -> Result<(), Error> {
        tokio::time::sleep(self.commit).await;
        self.again(error).await
    }

    async fn pause(&mut self, delay: Option<Duration>, error: Error) -> Result<(), Error> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        match delay {
            Some(delay) if delay < left => {
                self.made += 1;
                tokio::time::sleep(delay).await;
                Ok(())
            }
            // One attempt is no retry: its own error says more.
            _ if self.made == 1 && error.kind() != ErrorKind::VersionConflict => Err(error),
            _ => Err(Error::new(
                ErrorKind::RetriesExhausted {
                    attempts: self.made,
                },
                format!("gave up after {} attempts: {error}", self.made),
            )
            .with_source(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outage() -> Error {
        Error::new(ErrorKind::Unavailable, "no primary")
    }

    #[tokio::test(start_paused = true)]
    async fn outages_pause_longer_each_time_and_then_give_up() {
        let policy = RetryPolicy::default().with_jitter(false);
        let mut attempts = Attempts::new(&policy);
        let start = tokio::time::Instant::now();
        attempts.after_failure(outage()).await.unwrap();
        assert_eq!(start.elapsed(), Duration::from_secs(1));
        attempts.after_failure(outage()).await.unwrap();
        assert_eq!(start.elapsed(), Duration::from_secs(3));
        let error = attempts.after_failure(outage()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::RetriesExhausted { attempts: 3 });
        assert!(error.to_string().contains("no primary"));
    }

    #[tokio::test(start_paused = true)]
    async fn conflicts_have_their_own_count() {
        let policy = RetryPolicy::default().with_conflict_attempts(5);
        let mut attempts = Attempts::new(&policy);
        for _ in 0..4 {
            attempts.after_conflict(outage()).await.unwrap();
        }
        let error = attempts.after_conflict(outage()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::RetriesExhausted { attempts: 5 });
    }

    #[tokio::test(start_paused = true)]
    async fn other_errors_are_not_retried_and_the_deadline_holds() {
        let policy = RetryPolicy::default();
        let mut attempts = Attempts::new(&policy);
        let constraint = Error::new(ErrorKind::Constraint, "index email");
        let error = attempts.after_failure(constraint).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Constraint);

        let mut attempts = Attempts::new(&policy.with_deadline(Duration::from_millis(1)));
        let error = attempts.after_failure(outage()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
}
