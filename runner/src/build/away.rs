//! How long a host has been away: one that does not come back in time is lost. Pure: time is given.
//!
//! Only an absence without a break counts. What is long and silent (a command, a template that is written) may
//! be cut off several times in hours, and each time the host is back in a moment.

use tokio::time::{Duration, Instant};

/// The absence of one host, as one caller sees it.
#[derive(Debug)]
pub(super) struct Away {
    max: Duration,
    since: Option<Instant>,
}

impl Away {
    /// A host that is there, and that is lost when it is away for `max`.
    pub(super) fn new(max: Duration) -> Self {
        Self { max, since: None }
    }

    /// It does not answer now. Whether it has not for too long.
    pub(super) fn is_lost(&mut self, now: Instant) -> bool {
        now.duration_since(*self.since.get_or_insert(now)) >= self.max
    }

    /// It has answered: an absence after this is another one.
    pub(super) fn answered(&mut self) {
        self.since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_short_absences_are_not_one_long_one() {
        let begun = Instant::now();
        let after = |seconds| begun + Duration::from_secs(seconds);
        let mut away = Away::new(Duration::from_secs(60));
        assert!(!away.is_lost(begun) && !away.is_lost(after(59)));
        away.answered();
        assert!(!away.is_lost(after(70)) && !away.is_lost(after(129)));
        assert!(away.is_lost(after(130)));
    }
}
