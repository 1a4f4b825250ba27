//! Counts the attempts of a healthcheck. Pure: time is given, from the first attempt on.
//!
//! The first attempt begins at once, each next one an interval after the end of the one before. Failures that
//! begin within the start period do not count. The last failure that counts, or the deadline, ends it.

use std::time::Duration;

use ovenbird_recipe::Healthcheck;

/// A healthcheck under way.
#[derive(Debug, Clone)]
pub(super) struct Health {
    check: Healthcheck,
    attempts: u32,
    counted: u32,
}

/// What to do after an attempt that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Try again after this long.
    Again(Duration),
    /// It has failed: too many attempts.
    TooMany,
    /// It has failed: its time is over.
    TooLate,
}

impl Health {
    /// Before the first attempt.
    pub(super) fn new(check: Healthcheck) -> Self {
        Self { check, attempts: 0, counted: 0 }
    }

    /// Number of the attempt that begins now, from 1, and how long it may take: the deadline cuts the last
    /// one short.
    pub(super) fn begin(&mut self, elapsed: Duration) -> (u32, Duration) {
        self.attempts += 1;
        let left = self.deadline().saturating_sub(elapsed).max(Duration::from_millis(1));
        (self.attempts, Duration::from_millis(self.check.timeout_ms).min(left))
    }

    /// Takes a failure of the attempt that began at `began` and ended at `ended`.
    pub(super) fn failed(&mut self, began: Duration, ended: Duration) -> Verdict {
        if began >= Duration::from_millis(self.check.start_period_ms) {
            self.counted += 1;
        }
        let pause = Duration::from_millis(self.check.interval_ms);
        if self.counted >= self.check.retries {
            Verdict::TooMany
        } else if ended + pause >= self.deadline() {
            Verdict::TooLate
        } else {
            Verdict::Again(pause)
        }
    }

    /// Attempts so far.
    pub(super) fn attempts(&self) -> u32 {
        self.attempts
    }

    fn deadline(&self) -> Duration {
        Duration::from_millis(self.check.deadline_ms)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(start_period_ms: u64, retries: u32) -> Healthcheck {
        let (interval_ms, timeout_ms) = (3_000, 10_000);
        Healthcheck {
            command: "true".into(),
            interval_ms,
            timeout_ms,
            start_period_ms,
            retries,
            deadline_ms: start_period_ms + u64::from(retries) * (interval_ms + timeout_ms),
        }
    }

    proptest! {
        #[test]
        fn always_ends_within_its_deadline(
            start_period_ms in 0u64..60_000,
            retries in 1u32..30,
            took in proptest::collection::vec(0u64..10_000, 1..8),
        ) {
            let check = check(start_period_ms, retries);
            let deadline = Duration::from_millis(check.deadline_ms);
            let mut health = Health::new(check);
            let mut elapsed = Duration::ZERO;
            for took in took.into_iter().cycle().take(10_000) {
                let (_, limit) = health.begin(elapsed);
                let began = elapsed;
                elapsed += Duration::from_millis(took).min(limit);
                prop_assert!(elapsed <= deadline);
                match health.failed(began, elapsed) {
                    Verdict::Again(pause) => elapsed += pause,
                    Verdict::TooMany | Verdict::TooLate => return Ok(()),
                }
            }
            prop_assert!(false, "never ended");
        }
    }

    #[test]
    fn failures_of_the_start_period_do_not_count() {
        let second = Duration::from_secs(1);
        let mut health = Health::new(check(2_000, 2));
        assert_eq!(health.begin(Duration::ZERO).0, 1);
        assert_eq!(health.failed(Duration::ZERO, second), Verdict::Again(3 * second));
        assert_eq!(health.failed(4 * second, 5 * second), Verdict::Again(3 * second));
        assert_eq!(health.failed(8 * second, 9 * second), Verdict::TooMany);
    }
}
