//! What is remembered of a sandbox's usage: three rings of points, pure data.
//!
//! ```text
//!  sample each 5 s ─┬─► 10m: 120 points, one per sample
//!                   ├─► 2h:  120 points of  60 s ┐ processor: the average over its time,
//!                   └─► 24h: 144 points of 600 s ┘ memory: the highest, disk: the last
//! ```
//!
//! A point's time is that of its last sample. The one that is still being gathered is told, too, as it is by then. The
//! rings do not know what time it is: each sample says it.

use std::{collections::VecDeque, fmt, str::FromStr, time::Duration};

/// Between two samples.
pub const SAMPLE_EVERY: Duration = Duration::from_secs(5);

/// One value of everything.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Seconds since 1970.
    pub unix: i64,
    /// Of one processor: 100 is one that is busy all the time.
    pub cpu_pct: f64,
    /// Memory of the host that is there because of this sandbox alone.
    pub mem_bytes: u64,
    /// Bytes that its root disk takes by itself.
    pub disk_bytes: u64,
}

/// A point and how much time its processor value is about.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// The values.
    pub point: Point,
    /// Since the sample before.
    pub covers: Duration,
}

/// How far back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// Ten minutes, every sample.
    TenMinutes,
    /// Two hours, by the minute.
    TwoHours,
    /// A day, by ten minutes.
    Day,
}

impl Range {
    /// All there are, from the finest.
    pub const ALL: [Self; 3] = [Self::TenMinutes, Self::TwoHours, Self::Day];

    /// As callers name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::TenMinutes => "10m",
            Self::TwoHours => "2h",
            Self::Day => "24h",
        }
    }

    /// Points that are kept.
    pub fn points(self) -> usize {
        match self {
            Self::TenMinutes | Self::TwoHours => 120,
            Self::Day => 144,
        }
    }

    /// Seconds that one point is about.
    pub fn seconds(self) -> i64 {
        match self {
            Self::TenMinutes => 5,
            Self::TwoHours => 60,
            Self::Day => 600,
        }
    }
}

/// No range of that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct UnknownRange(String);

impl fmt::Display for UnknownRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = Range::ALL.map(|range| format!("{:?}", range.name())).join(", ");
        let start: String = self.0.chars().take(32).collect();
        write!(f, "range {start:?} is none of {known}")
    }
}

impl FromStr for Range {
    type Err = UnknownRange;

    fn from_str(text: &str) -> Result<Self, UnknownRange> {
        let known = Self::ALL.into_iter().find(|range| range.name() == text);
        known.ok_or_else(|| UnknownRange(text.to_owned()))
    }
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Rings([Ring; 3]);

impl Default for Rings {
    fn default() -> Self {
        Self(Range::ALL.map(Ring::new))
    }
}

impl Rings {
    /// Takes a sample into all of them.
    pub fn add(&mut self, sample: Sample) {
        for ring in &mut self.0 {
            ring.add(sample);
        }
    }

    /// The points of a range, from the oldest.
    pub fn points(&self, range: Range) -> Vec<Point> {
        let ring = self.0.iter().find(|ring| ring.range == range);
        ring.map(Ring::points).unwrap_or_default()
    }

    /// All points by range, in the order of [`Range::ALL`]; none is left.
    pub fn flush(&mut self) -> [Vec<Point>; 3] {
        std::mem::take(self).0.map(|ring| ring.points())
    }
}

#[derive(Debug, Clone)]
struct Ring {
    range: Range,
    closed: VecDeque<Point>,
    open: Option<Gathered>,
}

/// The samples of one point.
#[derive(Debug, Clone, Copy)]
struct Gathered {
    /// Which stretch of time: seconds since 1970, divided by the ring's.
    at: i64,
    point: Point,
    covers: Duration,
}

impl Gathered {
    fn join(&mut self, Sample { point, covers }: Sample) {
        let (before, now) = (self.covers.as_secs_f64(), covers.as_secs_f64());
        let share = if before + now > 0.0 { now / (before + now) } else { 1.0 };
        self.point = Point {
            cpu_pct: self.point.cpu_pct * (1.0 - share) + point.cpu_pct * share,
            mem_bytes: self.point.mem_bytes.max(point.mem_bytes),
            ..point
        };
        self.covers += covers;
    }
}

impl Ring {
    fn new(range: Range) -> Self {
        Self { range, closed: VecDeque::new(), open: None }
    }

    fn add(&mut self, sample: Sample) {
        let at = sample.point.unix.div_euclid(self.range.seconds());
        match &mut self.open {
            // The finest keeps samples apart, also when two of them come close together.
            Some(open) if open.at == at && self.range != Range::TenMinutes => open.join(sample),
            open => {
                let Sample { point, covers } = sample;
                let closed = open.replace(Gathered { at, point, covers });
                self.closed.extend(closed.map(|closed| closed.point));
            }
        }
        // With the one that is open.
        while self.closed.len() >= self.range.points() {
            self.closed.pop_front();
        }
    }

    fn points(&self) -> Vec<Point> {
        self.closed.iter().copied().chain(self.open.map(|open| open.point)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: i64 = 1_800_000_000;

    fn sample(unix: i64, cpu_pct: f64, mem_bytes: u64, disk_bytes: u64) -> Sample {
        let point = Point { unix, cpu_pct, mem_bytes, disk_bytes };
        Sample { point, covers: SAMPLE_EVERY }
    }

    fn filled(samples: i64) -> Rings {
        let mut rings = Rings::default();
        for n in 0..samples {
            rings.add(sample(START + n * 5, 50.0, 1, 1));
        }
        rings
    }

    #[test]
    fn each_ring_spans_what_its_name_says_and_no_more() {
        for range in Range::ALL {
            let span = range.seconds() * i64::try_from(range.points()).unwrap();
            let hours = [(600, "10m"), (7200, "2h"), (86_400, "24h")];
            assert!(hours.contains(&(span, range.name())), "{range:?}");
            assert_eq!(range.name().parse(), Ok(range));
        }
        // Two days.
        let rings = filled(2 * 86_400 / 5);
        for range in Range::ALL {
            let points = rings.points(range);
            assert_eq!(points.len(), range.points(), "{range:?}");
            let spans = points.windows(2).all(|two| two[1].unix - two[0].unix == range.seconds());
            assert!(spans, "{range:?}");
            assert_eq!(points.last().unwrap().unix, START + 2 * 86_400 - 5);
        }
    }

    #[test]
    fn coarser_point_has_the_average_the_highest_memory_and_the_last_disk() {
        let mut rings = Rings::default();
        for (at, cpu, mem, disk) in [(0, 0.0, 5, 10), (5, 100.0, 9, 30), (10, 200.0, 7, 20)] {
            rings.add(sample(START + at, cpu, mem, disk));
        }
        let expected = Point { unix: START + 10, cpu_pct: 100.0, mem_bytes: 9, disk_bytes: 20 };
        let [minute] = rings.points(Range::TwoHours)[..] else { panic!("one point") };
        assert!((minute.cpu_pct - 100.0).abs() < 1e-9);
        assert_eq!(Point { cpu_pct: 100.0, ..minute }, expected);
        assert_eq!(rings.points(Range::TenMinutes).len(), 3);
        // The next minute begins anew.
        rings.add(sample(START + 60, 10.0, 1, 1));
        assert_eq!(rings.points(Range::TwoHours).len(), 2);
        assert_eq!(rings.points(Range::TwoHours)[1].mem_bytes, 1);
        assert_eq!(rings.points(Range::Day).len(), 1);
    }

    #[test]
    fn sample_that_is_about_more_time_counts_more() {
        let mut rings = Rings::default();
        rings.add(sample(START, 0.0, 1, 1));
        rings.add(Sample { covers: Duration::from_secs(15), ..sample(START + 15, 100.0, 1, 1) });
        let cpu = rings.points(Range::TwoHours)[0].cpu_pct;
        assert!((cpu - 75.0).abs() < 1e-9, "{cpu}");
        let mut nothing = Rings::default();
        for at in [0, 1] {
            nothing.add(Sample { covers: Duration::ZERO, ..sample(START + at, 7.0, 1, 1) });
        }
        assert!((nothing.points(Range::TwoHours)[0].cpu_pct - 7.0).abs() < 1e-9);
    }

    #[test]
    fn gap_and_clock_that_jumps_back_lose_nothing() {
        let mut rings = filled(3);
        rings.add(sample(START + 3600, 1.0, 1, 1));
        rings.add(sample(START - 3600, 2.0, 1, 1));
        let times: Vec<_> = rings.points(Range::TwoHours).iter().map(|p| p.unix).collect();
        assert_eq!(times, [START + 10, START + 3600, START - 3600]);
        rings.add(sample(-1, 1.0, 1, 1));
    }

    #[test]
    fn flush_gives_every_point_once() {
        let mut rings = filled(30);
        let all = Range::ALL.map(|range| rings.points(range));
        assert_eq!(rings.flush(), all);
        assert_eq!(all.map(|points| points.len()), [30, 3, 1]);
        assert_eq!(rings.flush(), [const { Vec::new() }; 3]);
        rings.add(sample(START + 150, 1.0, 1, 1));
        assert_eq!(rings.points(Range::Day).len(), 1);
    }

    #[test]
    fn unknown_range_is_answered_with_those_there_are() {
        for text in ["", "1h", "10M", "24h "] {
            let error = text.parse::<Range>().unwrap_err().to_string();
            assert!(error.contains(r#"none of "10m", "2h", "24h""#), "{error}");
        }
        let long = "x".repeat(10_000).parse::<Range>().unwrap_err().to_string();
        assert!(long.len() < 100, "{long}");
    }
}
