use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// How often a failing handler is tried, and how long to wait in between: each time twice as long, up to
/// a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RedeliveryPolicy {
    /// How many attempts in all, the first included; at least 1. Default 5.
    pub attempts: u32,
    /// The pause after the first failure. Default 100 ms.
    pub base_delay: Duration,
    /// The longest pause. Default 10 s.
    pub max_delay: Duration,
    /// Whether each pause is shortened at random by up to its half, so that failures of one cause do not
    /// come back in step. Default true.
    pub jitter: bool,
}

impl Default for RedeliveryPolicy {
    fn default() -> Self {
        Self {
            attempts: 5,
            base_delay: Duration::from_millis(100),
            max_delay: Duration::from_secs(10),
            jitter: true,
        }
    }
}

impl RedeliveryPolicy {
    /// The default policy.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the number of attempts, the first included.
    #[must_use]
    pub fn with_attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// Sets the first and the longest pause.
    #[must_use]
    pub fn with_delays(mut self, base: Duration, max: Duration) -> Self {
        self.base_delay = base;
        self.max_delay = max;
        self
    }

    /// Sets whether pauses are shortened at random.
    #[must_use]
    pub fn with_jitter(mut self, jitter: bool) -> Self {
        self.jitter = jitter;
        self
    }

    /// How long to wait after `failures` failed attempts; `None` when that was the last one.
    #[must_use]
    pub fn delay_after(&self, failures: u32) -> Option<Duration> {
        (failures < self.attempts).then(|| self.delay(failures))
    }

    /// How long to wait after `failures` failed attempts, whatever [`attempts`](Self::attempts) says.
    pub(crate) fn delay(&self, failures: u32) -> Duration {
        // 2^31 times any pause is beyond every sensible bound.
        let factor = 1_u32 << failures.saturating_sub(1).min(31);
        let full = self.base_delay.saturating_mul(factor).min(self.max_delay);
        if self.jitter {
            full - full.mul_f64(chance() / 2.0)
        } else {
            full
        }
    }
}

/// A number in [0, 1): each `RandomState` has keys of its own.
fn chance() -> f64 {
    let bits = RandomState::new().hash_one(0_u8) >> 11;
    // 53 bits fill a double's mantissa.
    bits as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_bound_and_end_with_the_attempts() {
        let millis = Duration::from_millis;
        let policy = RedeliveryPolicy::new()
            .with_attempts(5)
            .with_delays(millis(100), millis(350))
            .with_jitter(false);
        let pauses: Vec<_> = (1..=5).map(|n| policy.delay_after(n)).collect();
        let expected = [100, 200, 350, 350].map(|n| Some(millis(n)));
        assert_eq!(pauses[..4], expected);
        assert_eq!(pauses[4], None);
        assert_eq!(policy.delay(u32::MAX), millis(350));
    }

    #[test]
    fn jitter_only_shortens() {
        let policy = RedeliveryPolicy::new();
        for _ in 0..1_000 {
            let pause = policy.delay(1);
            assert!(pause >= policy.base_delay / 2 && pause <= policy.base_delay);
        }
    }
}
