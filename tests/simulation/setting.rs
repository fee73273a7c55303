//! What differs from one simulation to the next.

use std::time::Duration;

use nodestorage::{CommitOptions, DocumentKey, RetryPolicy};

use crate::chance::Chance;
use crate::model::Rates;

/// The sum of all accounts.
pub(crate) const TOTAL: i64 = 100 * ACCOUNTS as i64;
const ACCOUNTS: u64 = 5;
const HOT: u64 = 3;
const COLD: u64 = 40;

#[derive(Debug, Clone)]
pub(crate) struct Setting {
    pub(crate) options: CommitOptions,
    pub(crate) rates: Rates,
    pub(crate) retry: RetryPolicy,
    pub(crate) tasks: u64,
    pub(crate) calls: u64,
    pub(crate) foreign: u64,
    /// How many futures are held unpolled, at most. Each may keep a place and a share of the queue, so
    /// there is more of these than they can take.
    pub(crate) held: usize,
}

impl Setting {
    pub(crate) fn new(chance: &mut Chance) -> Self {
        let held = chance.one_of(&[0, 4]);
        // Five kibibytes are about one update.
        let queue = if held == 0 { 8 << 10 } else { 96 << 10 };
        let bytes = chance.one_of(&[2 << 10, 8 << 20]);
        let options = CommitOptions::default()
            .with_batches(chance.one_of(&[1, 2, 8, 256]), bytes)
            .with_commits_in_flight(1 + chance.below(4) as usize)
            // Lingering is measured in real time, so its runs do not repeat themselves exactly.
            .with_linger(Duration::from_millis(u64::from(chance.permille(150))))
            .with_bounds(
                chance.one_of(&[held + 2, 16, 64, 4_096]),
                chance.one_of(&[queue, 64 << 20]),
            );
        let options = match chance.below(3) {
            0 => options.without_cache(),
            1 => options.with_cache(4 << 10, Duration::from_secs(300)),
            _ => options,
        };
        let retry = RetryPolicy::default()
            .with_jitter(false)
            .with_attempts(3 + chance.below(5) as u32)
            .with_delays(Duration::from_millis(1), Duration::from_millis(20))
            .with_deadline(Duration::from_secs(3_600));
        // In a quarter of the runs everything works, in the others some things fail often.
        let calm = chance.below(4) == 0;
        let mut rate = |highest: u64| match chance.below(3) {
            0 => 0,
            _ if calm => 0,
            _ => chance.below(highest),
        };
        let rates = Rates {
            load: rate(80),
            spoilt: rate(80),
            conflict: rate(150),
            failed: rate(100),
            unwritten: rate(60),
            written: rate(60),
            panics: rate(30),
            ..Rates::default()
        };
        Self {
            options,
            rates: Rates {
                named: chance.one_of(&[0, 500, 1_000]),
                in_part: chance.one_of(&[0, 500, 1_000]),
                longest_ms: chance.one_of(&[0, 2, 10]),
                ..rates
            },
            retry,
            held,
            tasks: 8 + chance.below(32),
            calls: 4 + chance.below(12),
            foreign: if calm { 0 } else { chance.one_of(&[0, 5, 40]) },
        }
    }
}

pub(crate) fn accounts() -> Vec<DocumentKey> {
    let account = |n| DocumentKey::new("accounts", format!("account{n}"));
    (0..ACCOUNTS).map(account).collect()
}

pub(crate) fn counters() -> Vec<DocumentKey> {
    let counter = |n| DocumentKey::new("counters", format!("counter{n}"));
    (0..HOT + COLD).map(counter).collect()
}

pub(crate) fn streams() -> Vec<DocumentKey> {
    let stream = |n| DocumentKey::new("nodestorage.streams", format!("stream-{n}"));
    (0..3).map(stream).collect()
}

/// A counter that many use, or one of the many that few use.
pub(crate) fn counter(chance: &mut Chance) -> DocumentKey {
    let n = match chance.below(3) {
        0 => HOT + chance.below(COLD),
        _ => chance.below(HOT),
    };
    counters().swap_remove(n as usize)
}
