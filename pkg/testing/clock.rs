use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bson::DateTime;

use crate::clock::Clock;

/// A clock that stands still until it is told to go on. A shared one, in an `Arc`, can be given to
/// several storages.
///
/// # Examples
/// ```
/// use std::time::Duration;
///
/// use nodestorage::bson::DateTime;
/// use nodestorage::clock::Clock;
/// use nodestorage::testing::FixedClock;
///
/// let clock = FixedClock::at(DateTime::from_millis(1_000));
/// clock.advance(Duration::from_secs(2));
/// assert_eq!(clock.now(), DateTime::from_millis(3_000));
/// ```
#[derive(Debug, Default)]
pub struct FixedClock {
    millis: AtomicI64,
}

impl FixedClock {
    /// A clock that shows this time.
    #[must_use]
    pub fn at(time: DateTime) -> Self {
        Self {
            millis: AtomicI64::new(time.timestamp_millis()),
        }
    }

    /// Shows this time from now on.
    pub fn set(&self, time: DateTime) {
        self.millis.store(time.timestamp_millis(), Ordering::SeqCst);
    }

    /// Lets time pass, in whole milliseconds.
    pub fn advance(&self, by: Duration) {
        let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.millis.fetch_add(by, Ordering::SeqCst);
    }
}

impl Clock for FixedClock {
    fn now(&self) -> DateTime {
        DateTime::from_millis(self.millis.load(Ordering::SeqCst))
    }
}
