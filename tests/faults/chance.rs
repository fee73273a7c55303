//! How often, when, and until when.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use crate::support::mongod::{Mongod, MongodOptions};

/// How many rounds a test does that does `short` of them by default.
pub(crate) fn rounds(short: u64) -> u64 {
    let wanted = std::env::var("NODESTORAGE_ROUNDS").ok();
    let wanted = wanted
        .filter(|it| !it.is_empty())
        .map_or(50, |it| it.parse().expect("NODESTORAGE_ROUNDS is a number"));
    (short * wanted).div_ceil(50)
}

pub(crate) fn below(limit: u64) -> u64 {
    RandomState::new().hash_one(()) % limit
}

/// Anywhere between now and then; faults come when they like.
pub(crate) fn moment(longest_ms: u64) -> Duration {
    Duration::from_micros(below(longest_ms * 1_000))
}

/// Polls until the condition holds.
#[track_caller]
pub(crate) fn eventually(what: &str, within: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// As [`eventually`], in a runtime.
pub(crate) async fn eventually_async(
    what: &str,
    within: Duration,
    mut condition: impl AsyncFnMut() -> bool,
) {
    let deadline = Instant::now() + within;
    while !condition().await {
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The URL of a server with a database and further options.
pub(crate) fn with_database(url: &str, database: &str, options: &str) -> String {
    let (host, query) = url.split_once("/?").expect("as the fixtures write it");
    let and = if options.is_empty() { "" } else { "&" };
    format!("{host}/{database}?{query}{and}{options}")
}

/// A server with its defaults: a transaction that nobody ends locks its documents for a minute. So a test
/// in which that happens is slow enough to fail.
pub(crate) fn server() -> Mongod {
    Mongod::private(&MongodOptions::default())
}
