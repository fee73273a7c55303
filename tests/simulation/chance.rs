//! Chance that repeats itself.

use std::time::Duration;

/// SplitMix64: good enough for tests, and the same in every run of a seed.
#[derive(Debug, Clone)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.bits() % bound
    }

    pub(crate) fn one_of<T: Clone>(&mut self, values: &[T]) -> T {
        values[self.below(values.len() as u64) as usize].clone()
    }

    /// Whether something happens that happens so many times in a thousand.
    pub(crate) fn permille(&mut self, rate: u64) -> bool {
        self.below(1_000) < rate
    }

    /// Another one that goes its own way.
    pub(crate) fn fork(&mut self) -> Self {
        Self(self.bits())
    }

    /// Some simulated time, often none.
    pub(crate) fn pause(&mut self, longest_ms: u64) -> Duration {
        match self.below(3) {
            0 => Duration::ZERO,
            _ => Duration::from_millis(self.below(longest_ms + 1)),
        }
    }
}

/// Lets simulated time pass; without any, others get their turn.
pub(crate) async fn pass(time: Duration) {
    if time.is_zero() {
        tokio::task::yield_now().await;
    } else {
        tokio::time::sleep(time).await;
    }
}
