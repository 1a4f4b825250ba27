//! What was measured, and how it is shown: the middle one of each side's values, and their ratio.

use std::{collections::BTreeMap, fmt::Write as _};

use serde_json::{Value, json};

/// What is measured, in the order of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Measure {
    ColdCreate,
    ColdFirst,
    Fork,
    ForkFirst,
    TenForks,
    ForkMemory,
    Pause,
    Resume,
    Snapshot,
    Flatten,
    Exec,
    FileIn,
    FileOut,
}

/// Whose value it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    /// QEMU, started by hand.
    Floor,
    /// The agent.
    Agent,
}

/// What the ratio of agent to floor is meant to keep.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Bound {
    AtMost(f64),
    Over(f64),
}

impl Measure {
    const ALL: [Self; 13] = [
        Self::ColdCreate,
        Self::ColdFirst,
        Self::Fork,
        Self::ForkFirst,
        Self::TenForks,
        Self::ForkMemory,
        Self::Pause,
        Self::Resume,
        Self::Snapshot,
        Self::Flatten,
        Self::Exec,
        Self::FileIn,
        Self::FileOut,
    ];

    fn key(self) -> &'static str {
        match self {
            Self::ColdCreate => "cold_create",
            Self::ColdFirst => "cold_create_first_command",
            Self::Fork => "fork",
            Self::ForkFirst => "fork_first_command",
            Self::TenForks => "ten_forks",
            Self::ForkMemory => "memory_per_idle_fork",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Snapshot => "snapshot",
            Self::Flatten => "flatten",
            Self::Exec => "exec_round_trip",
            Self::FileIn => "file_in",
            Self::FileOut => "file_out",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::ColdCreate => "cold create",
            Self::ColdFirst => "cold create and a first command",
            Self::Fork => "fork",
            Self::ForkFirst => "fork and a first command",
            Self::TenForks => "ten forks at once, all first commands",
            Self::ForkMemory => "memory per idle fork",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Snapshot => "snapshot",
            Self::Flatten => "flatten",
            Self::Exec => "exec round trip (`true`)",
            Self::FileIn => "file in",
            Self::FileOut => "file out",
        }
    }

    fn unit(self) -> &'static str {
        match self {
            Self::ForkMemory => "MB",
            Self::FileIn | Self::FileOut => "MB/s",
            _ => "ms",
        }
    }

    fn bound(self) -> Option<Bound> {
        match self {
            Self::ColdCreate | Self::ColdFirst | Self::Fork | Self::ForkFirst => {
                Some(Bound::AtMost(1.25))
            }
            Self::Exec => Some(Bound::AtMost(2.0)),
            Self::FileIn | Self::FileOut => Some(Bound::Over(0.5)),
            _ => None,
        }
    }
}

/// All values.
#[derive(Debug, Default)]
pub(super) struct Figures {
    values: BTreeMap<(Measure, Side), Vec<f64>>,
}

impl Figures {
    /// One more value, in the measure's unit.
    pub(super) fn add(&mut self, measure: Measure, side: Side, value: f64) {
        self.values.entry((measure, side)).or_default().push(value);
    }

    fn middle(&self, measure: Measure, side: Side) -> Option<f64> {
        middle(self.values.get(&(measure, side))?)
    }

    fn ratio(&self, measure: Measure) -> Option<f64> {
        let (floor, agent) =
            (self.middle(measure, Side::Floor)?, self.middle(measure, Side::Agent)?);
        (floor > 0.0).then(|| agent / floor)
    }

    /// For people.
    pub(super) fn table(&self) -> String {
        let width = Measure::ALL.iter().map(|measure| measure.title().len()).max().unwrap_or(0);
        let mut table = format!(
            "  {:width$}  {:>12}  {:>12}  {:>7}  wanted\n",
            "middle of all rounds", "bare QEMU", "agent", "ratio"
        );
        for measure in Measure::ALL {
            let unit = measure.unit();
            let value = |side| match self.middle(measure, side) {
                Some(value) => format!("{value:.1} {unit}"),
                None => "not served".to_owned(),
            };
            let ratio = self.ratio(measure);
            let shown = ratio.map_or_else(String::new, |ratio| format!("{ratio:.2} ×"));
            let wanted = match (measure.bound(), ratio) {
                (Some(bound), Some(ratio)) => judged(bound, ratio),
                _ => String::new(),
            };
            // Writing to a string cannot fail.
            let _ = writeln!(
                table,
                "  {:width$}  {:>12}  {:>12}  {shown:>7}  {wanted}",
                measure.title(),
                value(Side::Floor),
                value(Side::Agent),
            );
        }
        table
    }

    /// For programs: every value, in the order in which it was measured.
    pub(super) fn json(&self) -> Value {
        let rows = Measure::ALL.iter().map(|&measure| {
            let values = |side| self.values.get(&(measure, side)).cloned().unwrap_or_default();
            json!({
                "measure": measure.key(),
                "unit": measure.unit(),
                "floor": { "middle": self.middle(measure, Side::Floor), "values": values(Side::Floor) },
                "agent": { "middle": self.middle(measure, Side::Agent), "values": values(Side::Agent) },
                "ratio": self.ratio(measure),
            })
        });
        rows.collect()
    }
}

fn judged(bound: Bound, ratio: f64) -> String {
    let (kept, text) = match bound {
        Bound::AtMost(most) => (ratio <= most, format!("≤ {most}")),
        Bound::Over(least) => (ratio > least, format!("> {least}")),
    };
    format!("{text} {}", if kept { "✓" } else { "✗" })
}

fn middle(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        length if length % 2 == 1 => Some(sorted[half]),
        _ => Some(f64::midpoint(sorted[half - 1], sorted[half])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn middle_is_that_of_the_sorted_values() {
        assert_eq!(middle(&[]), None);
        assert_eq!(middle(&[9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(middle(&[4.0, 1.0, 9.0, 2.0]), Some(3.0));
    }

    #[test]
    fn table_shows_ratio_and_judgement_and_what_is_not_served() {
        let mut figures = Figures::default();
        for (floor, agent) in [(100.0, 120.0), (100.0, 110.0), (100.0, 500.0)] {
            figures.add(Measure::Fork, Side::Floor, floor);
            figures.add(Measure::Fork, Side::Agent, agent);
        }
        figures.add(Measure::FileIn, Side::Floor, 100.0);
        figures.add(Measure::FileIn, Side::Agent, 40.0);
        figures.add(Measure::Pause, Side::Floor, 7.0);
        let table = figures.table();
        let line = |title: &str| {
            let found = table.lines().find(|line| line.trim_start().starts_with(title));
            found.unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(line("fork  "), "fork 100.0 ms 120.0 ms 1.20 × ≤ 1.25 ✓");
        assert_eq!(line("file in"), "file in 100.0 MB/s 40.0 MB/s 0.40 × > 0.5 ✗");
        assert_eq!(line("pause"), "pause 7.0 ms not served");
    }

    #[test]
    fn every_measure_is_in_the_table_once() {
        let json = Figures::default().json();
        let keys: std::collections::BTreeSet<_> =
            json.as_array().unwrap().iter().map(|row| row["measure"].to_string()).collect();
        assert_eq!(keys.len(), Measure::ALL.len());
        assert_eq!(json[0]["ratio"], Value::Null);
    }
}
