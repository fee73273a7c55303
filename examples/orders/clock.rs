use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use nodestorage::bson::DateTime;
use nodestorage::clock::Clock;

/// A clock that this program sets, so that it prints the same in every run. Programs that are no examples leave
/// the clock alone.
#[derive(Debug, Clone)]
pub(crate) struct StoryClock(Arc<AtomicI64>);

/// 1 May 2024, 9:00 UTC.
const MORNING: i64 = 1_714_554_000_000;

impl StoryClock {
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicI64::new(MORNING)))
    }

    pub(crate) fn minutes_pass(&self, minutes: i64) {
        self.0.fetch_add(minutes * 60_000, Ordering::SeqCst);
    }
}

impl Clock for StoryClock {
    fn now(&self) -> DateTime {
        DateTime::from_millis(self.0.load(Ordering::SeqCst))
    }
}
