//! Which faults happen when: decided by the seed alone. Pure.

use std::time::Duration;

use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

use crate::platform::{member::Kind, part::Part};

/// Between two faults, in milliseconds.
const PAUSE_MS: std::ops::RangeInclusive<u64> = 300..=2500;
/// How long something stays dead, in milliseconds.
const DEAD_MS: std::ops::RangeInclusive<u64> = 50..=3000;
/// How long something stands still, in milliseconds. The longest is longer than a lease.
const FROZEN_MS: std::ops::RangeInclusive<u64> = 200..=6000;

/// What happens to a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// `kill -9`; what it wrote to its disk is there when it starts again.
    Kill,
    /// `kill -9`, and its disk is empty when it starts again.
    KillAndLose,
    /// It stands still, as behind a link that is cut, and goes on later.
    Freeze,
}

impl Fault {
    /// For people.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Kill => "killed",
            Self::KillAndLose => "killed, data gone",
            Self::Freeze => "frozen",
        }
    }
}

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    /// After the fault before was mended.
    pub(super) pause: Duration,
    /// What it happens to.
    pub(super) part: Part,
    /// What happens.
    pub(super) fault: Fault,
    /// How long it lasts.
    pub(super) lasts: Duration,
}

/// `count` faults of `parts`. The one loss of NATS' data is in the middle third; Redis loses its data whenever it
/// is killed, as with Debian's settings.
pub(super) fn schedule(seed: u64, count: usize, parts: &[Part]) -> Vec<Moment> {
    let mut random = StdRng::seed_from_u64(seed);
    let lost_at = random.random_range(count / 3..=count * 2 / 3);
    (0..count)
        .map(|at| {
            let part = *parts.choose(&mut random).unwrap_or(&Part::Nats);
            let part = if at == lost_at { Part::Nats } else { part };
            let fault = match part {
                Part::Nats if at == lost_at => Fault::KillAndLose,
                _ if random.random_bool(0.3) => Fault::Freeze,
                Part::Redis => Fault::KillAndLose,
                Part::Nats | Part::Postgres | Part::Member(..) => Fault::Kill,
            };
            let lasts = match (fault, part) {
                (Fault::Freeze, _) => FROZEN_MS,
                // A runner is no longer there at once, and often for longer than its lease.
                (_, Part::Member(Kind::Runner, _)) => FROZEN_MS,
                _ => DEAD_MS,
            };
            Moment {
                pause: Duration::from_millis(random.random_range(PAUSE_MS)),
                part,
                fault,
                lasts: Duration::from_millis(random.random_range(lasts)),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts() -> Vec<Part> {
        let members = [
            (Kind::Api, 0),
            (Kind::Bridge, 0),
            (Kind::Runner, 0),
            (Kind::Runner, 1),
            (Kind::Agent, 0),
        ];
        let members = members.map(|(kind, at)| Part::Member(kind, at));
        [&[Part::Postgres, Part::Redis, Part::Nats][..], &members].concat()
    }

    #[test]
    fn same_seed_gives_the_same_faults_and_another_one_others() {
        assert_eq!(schedule(7, 60, &parts()), schedule(7, 60, &parts()));
        assert_ne!(schedule(7, 60, &parts()), schedule(8, 60, &parts()));
    }

    #[test]
    fn sixty_faults_hit_every_part_and_lose_the_data_of_nats_once() {
        for seed in 1..=20 {
            let moments = schedule(seed, 60, &parts());
            for part in parts() {
                assert!(moments.iter().any(|moment| moment.part == part), "seed {seed}: {part}");
            }
            let lost = moments
                .iter()
                .filter(|moment| (moment.part, moment.fault) == (Part::Nats, Fault::KillAndLose));
            assert_eq!(lost.count(), 1);
        }
    }
}
