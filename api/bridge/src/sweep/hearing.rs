//! Whether a runner that is silent could have been heard.
//!
//! A renewal goes over NATS to a bridge and into Postgres. When one of these is away for longer than a lease, or all
//! bridges are, every lease ends at once although every runner lives. Such an end is no loss that counts against a
//! build: an outage would use up the attempts of everything that runs.

use std::time::Duration;

use tokio::time::Instant;

/// Since when this bridge has heard without a break.
#[derive(Debug, Clone)]
pub(super) struct Hearing {
    lease: Duration,
    since: Instant,
    last: Instant,
}

impl Hearing {
    /// Of a bridge that begins `now`.
    pub(super) fn new(lease: Duration, now: Instant) -> Self {
        Self { lease, since: now, last: now }
    }

    /// NATS and Postgres have both answered.
    pub(super) fn heard(&mut self, now: Instant) {
        if self.is_late(now) {
            self.since = now;
        }
        self.last = now;
    }

    /// Whether who was silent for a whole lease could have been heard in all of it.
    pub(super) fn is_unbroken(&self, now: Instant) -> bool {
        !self.is_late(now) && now - self.since > self.lease
    }

    /// A shorter break leaves a runner, which renews its lease several times in its length, the time for it.
    fn is_late(&self, now: Instant) -> bool {
        now - self.last > self.lease / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(30);

    /// Hears every two seconds from `from` to `to`.
    fn hear(hearing: &mut Hearing, start: Instant, from: u64, to: u64) {
        for second in (from..=to).step_by(2) {
            hearing.heard(start + Duration::from_secs(second));
        }
    }

    #[test]
    fn whole_lease_must_have_been_heard_since_the_beginning_and_since_each_break() {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let mut hearing = Hearing::new(LEASE, start);
        hear(&mut hearing, start, 2, 30);
        assert!(!hearing.is_unbroken(at(30)), "a bridge that has just begun does not know");
        hear(&mut hearing, start, 32, 100);
        assert!(hearing.is_unbroken(at(101)));

        assert!(hearing.is_unbroken(at(114)), "a short break leaves time for a renewal");
        assert!(!hearing.is_unbroken(at(120)), "nothing was heard lately");
        hear(&mut hearing, start, 120, 150);
        assert!(!hearing.is_unbroken(at(150)), "a lease that ends now may be of before the break");
        hear(&mut hearing, start, 152, 152);
        assert!(hearing.is_unbroken(at(153)));
    }
}
