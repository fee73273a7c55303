//! Time as an argument, so that tests own it.

use std::sync::Arc;

use bson::DateTime;

/// Tells the wall-clock time that log entries and events carry for people.
///
/// Nothing is ordered by it: order comes from versions and from the store's positions.
pub trait Clock: Send + Sync + std::fmt::Debug + 'static {
    /// The current time, in milliseconds since the Unix epoch.
    fn now(&self) -> DateTime;
}

/// The clock of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> DateTime {
        DateTime::now()
    }
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> DateTime {
        (**self).now()
    }
}
