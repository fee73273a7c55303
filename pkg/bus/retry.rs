use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// How often a failing handler is tried, and how long to wait in between: exponentially longer up to
/// a cap, less a random part so that failures of the same cause do not come back in step.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// How many attempts in all, the first included; at least 1. Default 5.
    pub attempts: u32,
    /// The wait after the first failure; doubled after each further one. Default 100 ms.
    pub base: Duration,
    /// The longest wait. Default 10 s.
    pub cap: Duration,
    /// The largest part of a wait that chance may take away, from 0 to 1. Default 0.5.
    pub jitter: f64,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 5,
            base: Duration::from_millis(100),
            cap: Duration::from_secs(10),
            jitter: 0.5,
        }
    }
}

impl RetryPolicy {
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

    /// Sets the wait after the first failure.
    #[must_use]
    pub fn with_base(mut self, base: Duration) -> Self {
        self.base = base;
        self
    }

    /// Sets the longest wait.
    #[must_use]
    pub fn with_cap(mut self, cap: Duration) -> Self {
        self.cap = cap;
        self
    }

    /// Sets the part of a wait that chance may take away; 0 makes the waits exact.
    #[must_use]
    pub fn with_jitter(mut self, part: f64) -> Self {
        self.jitter = part;
        self
    }

    /// How long to wait after `failures` failed attempts; `None` when that was the last one.
    #[must_use]
    pub fn delay_after(&self, failures: u32) -> Option<Duration> {
        (failures < self.attempts).then(|| self.delay(failures))
    }

    /// How long to wait after `failures` failed attempts, whatever [`attempts`](Self::attempts) says.
    pub(crate) fn delay(&self, failures: u32) -> Duration {
        // 2^31 times any base is beyond every sensible cap.
        let factor = 1_u32 << failures.saturating_sub(1).min(31);
        let full = self.base.saturating_mul(factor).min(self.cap);
        let jitter = if self.jitter.is_finite() {
            self.jitter.clamp(0.0, 1.0)
        } else {
            0.0
        };
        full.mul_f64(1.0 - jitter * chance())
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
    fn waits_double_up_to_the_cap_and_end_with_the_attempts() {
        let policy = RetryPolicy::new()
            .with_attempts(5)
            .with_base(Duration::from_millis(100))
            .with_cap(Duration::from_millis(350))
            .with_jitter(0.0);
        let waits: Vec<_> = (1..=5).map(|n| policy.delay_after(n)).collect();
        let millis = |n| Some(Duration::from_millis(n));
        assert_eq!(
            waits,
            [millis(100), millis(200), millis(350), millis(350), None]
        );
        assert_eq!(policy.delay(u32::MAX), Duration::from_millis(350));
    }

    #[test]
    fn jitter_only_takes_away() {
        let policy = RetryPolicy::new().with_jitter(0.5);
        for _ in 0..1_000 {
            let wait = policy.delay(1);
            assert!(wait > policy.base / 2 && wait <= policy.base, "{wait:?}");
        }
        assert_eq!(
            RetryPolicy::new()
                .with_jitter(f64::NAN)
                .delay(1)
                .as_millis(),
            100
        );
    }
}
