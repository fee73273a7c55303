//! What has happened at all: a simulation in which nothing goes wrong shows nothing.

use std::cell::RefCell;
use std::collections::BTreeMap;

thread_local! {
    static COUNTS: RefCell<BTreeMap<&'static str, u64>> = const { RefCell::new(BTreeMap::new()) };
}

/// Counts something; each thread runs simulations of its own.
pub(crate) fn count(what: &'static str) {
    COUNTS.with_borrow_mut(|counts| *counts.entry(what).or_default() += 1);
}

pub(crate) fn counts() -> BTreeMap<&'static str, u64> {
    COUNTS.take()
}
