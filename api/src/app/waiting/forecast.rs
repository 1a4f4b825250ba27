//! When builds that wait will probably have ended, from how long the last ones of their names took: a pure
//! function. Each slot takes the next build when it is free, as a runner does: of the high lane first, but only a few in a
//! row while another lane waits. Whoever stands behind a slot whose build nobody can estimate is told nothing by that slot.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    time::Duration,
};

use chrono::{DateTime, Utc};
use ovenbird_contract::nats::{HIGH_IN_A_ROW, HIGH_LANE};
use ovenbird_db::store::queue::Ahead;
use uuid::Uuid;

/// The expected ends of the waiting builds of `ahead`, which stand in their order. `took` says how long builds
/// of a name take; `free` slots wait at `now`.
pub(super) fn forecast(
    ahead: &[Ahead],
    took: &HashMap<String, Duration>,
    free: usize,
    now: DateTime<Utc>,
) -> HashMap<Uuid, DateTime<Utc>> {
    let (running, waiting): (Vec<_>, Vec<_>) = ahead.iter().partition(|build| build.is_running);
    // When a slot is free, and how many of the high lane it took before, one after the other.
    let mut slots: BinaryHeap<Reverse<(DateTime<Utc>, u32)>> =
        std::iter::repeat_n(Reverse((now, 0)), free.min(waiting.len())).collect();
    slots.extend(running.into_iter().filter_map(|build| {
        // One that takes longer than usual may end at any moment.
        let end = build.started_at? + *took.get(&build.name)?;
        Some(Reverse((end.max(now), 0)))
    }));
    let (mut high, mut others): (VecDeque<_>, VecDeque<_>) =
        waiting.into_iter().partition(|build| build.lane == HIGH_LANE);
    let mut ends = HashMap::new();
    while let Some(Reverse((begin, in_a_row))) = slots.pop() {
        let others_first = in_a_row >= HIGH_IN_A_ROW && !others.is_empty();
        let taken = if others_first { None } else { high.pop_front() };
        let (build, in_a_row) = match taken {
            Some(build) => (build, in_a_row + 1),
            None => match others.pop_front() {
                Some(build) => (build, 0),
                None => break,
            },
        };
        if let Some(took) = took.get(&build.name) {
            let end = begin + *took;
            ends.insert(build.id, end);
            slots.push(Reverse((end, in_a_row)));
        }
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(n: u128, name: &str, started_ago: Option<i64>) -> Ahead {
        Ahead {
            id: Uuid::from_u128(n),
            name: name.into(),
            lane: "default".into(),
            is_running: started_ago.is_some(),
            started_at: started_ago.map(|ago| at(-ago)),
        }
    }

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + chrono::TimeDelta::seconds(seconds)
    }

    fn ends(ahead: &[Ahead], free: usize) -> Vec<Option<i64>> {
        let took = [("a", 10), ("b", 100)]
            .map(|(name, seconds)| (name.to_owned(), Duration::from_secs(seconds)));
        let ends = forecast(ahead, &took.into(), free, at(0));
        let waiting = ahead.iter().filter(|build| !build.is_running);
        waiting.map(|build| Some(ends.get(&build.id)?.timestamp())).collect()
    }

    #[test]
    fn line_moves_up_as_slots_come_free() {
        let line = [
            build(1, "a", Some(4)),
            build(2, "b", Some(90)),
            build(3, "a", None),
            build(4, "a", None),
            build(5, "b", None),
        ];
        assert_eq!(ends(&line, 0), [Some(16), Some(20), Some(116)]);
        assert_eq!(ends(&line, 1), [Some(10), Some(16), Some(110)]);
        assert_eq!(ends(&line, 100), [Some(10), Some(10), Some(100)]);
    }

    #[test]
    fn what_nobody_can_estimate_takes_its_slot_out_of_the_forecast() {
        let line = [build(1, "new", Some(4)), build(2, "new", None), build(3, "a", None)];
        assert_eq!(ends(&line, 0), [None, None], "no slot is known to come free");
        assert_eq!(
            ends(&line, 1),
            [None, None],
            "the only known one is taken for nobody knows how long"
        );
        assert_eq!(ends(&line, 2), [None, Some(10)]);
    }

    #[test]
    fn high_lane_goes_first_and_every_fourth_is_of_another_lane() {
        let of = |n, lane: &str| Ahead { lane: lane.into(), ..build(n, "a", None) };
        let line: Vec<Ahead> =
            (0..3).map(|n| of(n, "default")).chain((3..8).map(|n| of(n, HIGH_LANE))).collect();
        let told = [40, 70, 80, 10, 20, 30, 50, 60].map(Some);
        assert_eq!(ends(&line, 1), told);
    }

    #[test]
    fn a_build_that_takes_longer_than_usual_is_expected_now() {
        let line = [build(1, "a", Some(500)), build(2, "a", None)];
        assert_eq!(ends(&line, 0), [Some(10)]);
    }
}
