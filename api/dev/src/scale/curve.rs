//! Jobs and runners over time: as lines of text, and as a picture.

use std::{fmt::Write as _, path::Path, time::Duration};

use anyhow::Context;
use fs_err as fs;
use plotters::prelude::*;

/// Samples in one line of text.
const LINE_SECONDS: u64 = 5;
/// Characters of the longest bar.
const BAR: u64 = 40;
const SIZE: (u32, u32) = (960, 420);

/// One moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    pub(super) at: Duration,
    /// Jobs that nobody has.
    pub(super) waiting: u64,
    /// Jobs that a runner has.
    pub(super) running: u64,
    pub(super) runners: usize,
}

/// All moments, in order.
#[derive(Debug, Clone, Default)]
pub(super) struct Curve(Vec<Sample>);

impl Curve {
    pub(super) fn push(&mut self, sample: Sample) {
        self.0.push(sample);
    }

    /// At the beginning, at most and at the end.
    pub(super) fn runners(&self) -> [usize; 3] {
        let runners = || self.0.iter().map(|sample| sample.runners);
        [runners().next(), runners().max(), runners().next_back()].map(Option::unwrap_or_default)
    }

    fn jobs_max(&self) -> u64 {
        self.0.iter().map(|sample| sample.waiting + sample.running).max().unwrap_or_default()
    }

    /// A line for each few seconds.
    pub(super) fn text(&self) -> String {
        let mut text = "     time  runners          jobs: █ run, ░ wait\n".to_owned();
        let scale = |jobs: u64| {
            let length = (jobs * BAR).div_ceil(self.jobs_max().max(1));
            usize::try_from(length).unwrap_or_default()
        };
        let mut next = 0;
        for Sample { at, waiting, running, runners } in &self.0 {
            if at.as_secs() < next {
                continue;
            }
            next = at.as_secs() + LINE_SECONDS;
            let (run, wait) = ("█".repeat(scale(*running)), "░".repeat(scale(*waiting)));
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "  {:>5} s  {runners:>2} {:<12} {:>3} {run}{wait}",
                at.as_secs(),
                "●".repeat(*runners),
                waiting + running,
            );
        }
        text
    }

    /// A picture, as SVG.
    pub(super) fn draw(&self, file: &Path) -> anyhow::Result<()> {
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        self.draw_svg(file).map_err(|error| anyhow::anyhow!("{error}")).context("draw the curve")
    }

    fn draw_svg(&self, file: &Path) -> Result<(), Box<dyn std::error::Error>> {
        let seconds = |sample: &Sample| sample.at.as_secs_f64();
        let end = self.0.last().map_or(1.0, seconds).max(1.0);
        let most = (self.runners()[1] as f64 + 1.0, self.jobs_max() as f64 * 1.1 + 1.0);
        let area = SVGBackend::new(file, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption("Runners follow the builds that wait and run", ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(44)
            .right_y_label_area_size(44)
            .build_cartesian_2d(0.0..end, 0.0..most.1)?
            .set_secondary_coord(0.0..end, 0.0..most.0);
        chart.configure_mesh().disable_x_mesh().x_desc("seconds").y_desc("jobs").draw()?;
        chart.configure_secondary_axes().y_desc("runners").draw()?;
        let jobs = self.0.iter().map(|it| (seconds(it), (it.waiting + it.running) as f64));
        let running = self.0.iter().map(|it| (seconds(it), it.running as f64));
        let (light, dark) = (RGBColor(244, 190, 140), RGBColor(214, 110, 40));
        chart
            .draw_series(AreaSeries::new(jobs, 0.0, light.mix(0.7)))?
            .label("jobs that wait")
            .legend(move |(x, y)| Rectangle::new([(x, y - 4), (x + 14, y + 4)], light.filled()));
        chart
            .draw_series(AreaSeries::new(running, 0.0, dark.mix(0.7)))?
            .label("jobs that run")
            .legend(move |(x, y)| Rectangle::new([(x, y - 4), (x + 14, y + 4)], dark.filled()));
        // A number of runners lasts until the next one.
        let steps = self.0.windows(2).flat_map(|pair| {
            let [before, after] = [pair[0], pair[1]];
            [(seconds(&before), before.runners as f64), (seconds(&after), before.runners as f64)]
        });
        chart
            .draw_secondary_series(LineSeries::new(steps, BLUE.stroke_width(2)))?
            .label("runners")
            .legend(|(x, y)| PathElement::new([(x, y), (x + 14, y)], BLUE.stroke_width(2)));
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.2))
            .draw()?;
        area.present()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve() -> Curve {
        let mut curve = Curve::default();
        for (second, runners) in [1, 1, 3, 6, 6, 2, 1].into_iter().enumerate() {
            let at = Duration::from_secs(second as u64);
            curve.push(Sample { at, waiting: 4, running: runners as u64, runners });
        }
        curve
    }

    #[test]
    fn curve_says_how_many_runners_there_were_at_first_at_most_and_at_last() {
        assert_eq!(curve().runners(), [1, 6, 1]);
        assert_eq!(Curve::default().runners(), [0, 0, 0]);
    }

    #[test]
    fn picture_is_a_whole_svg() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("new/curve.svg");
        curve().draw(&file).unwrap();
        let text = fs::read_to_string(file).unwrap();
        assert!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"), "{text}");
        assert!(text.contains("runners") && text.matches("<polyline").count() > 1);
    }
}
