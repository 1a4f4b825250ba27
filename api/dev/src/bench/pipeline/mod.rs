//! `cargo dev bench pipeline`: the way of builds and of their lines, beside what the same Postgres, Redis and NATS do
//! without Ovenbird. Sandboxes have no machines here: what is measured is everything around them.

mod builds;
mod chain;
mod floor;
mod lines;

use std::{
    fmt::Write as _,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use tokio_util::sync::CancellationToken;

use self::{builds::Claims, floor::Floor, lines::Seen};
use crate::{
    cache::Artifacts,
    platform::{self, Hypervisor, Platform},
    progress::Ui,
    setup::{self, Again},
    tree,
};

/// Lines per second: one that a quiet build writes, and one that no build should.
const RATES: [u32; 2] = [1_000, 10_000];
/// Between two builds of which each is alone: what the one before leaves to do is done by then.
const PAUSE: Duration = Duration::from_millis(50);
/// How long lines are written.
const LINES_SECONDS: u32 = 5;
const RUNNERS: [usize; 3] = [1, 2, 4];
/// Builds at once in each runner.
const SLOTS: usize = 4;

/// What to measure.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Builds whose wait is measured, one after the other.
    #[arg(long, default_value_t = 100)]
    pub rounds: usize,
    /// Builds that runners drain.
    #[arg(long, default_value_t = 200)]
    pub builds: usize,
    /// Measure the debug build: quicker to compile, several times slower in what Ovenbird itself does.
    #[arg(long)]
    pub debug: bool,
}

/// Runs the benchmark; what it finds is no reason to fail.
///
/// # Errors
/// When something does not work at all.
pub async fn run(ui: &Ui, options: Options, ending: CancellationToken) -> anyhow::Result<()> {
    let prepare = async {
        platform::require_root()?;
        let artifacts = setup::run(ui, Again::default()).await?;
        tree::build_profile(ui, if options.debug { "dev" } else { "release" }).await?;
        anyhow::Ok(artifacts)
    };
    let artifacts = ending.run_until_cancelled(prepare).await.context("ended by a signal")??;
    let mut table = String::new();
    for runners in RUNNERS {
        let mut platform = start(ui, &artifacts, &options, runners).await?;
        let measuring = Box::pin(measure(ui, &mut platform, &options, runners));
        let measured = ending.run_until_cancelled(measuring).await;
        let measured = measured.unwrap_or_else(|| Err(anyhow::anyhow!("ended by a signal")));
        let logs = if measured.is_err() { platform.log_tails(20) } else { String::new() };
        let stopped = platform.stop(ui).await;
        table.push_str(&measured.context(logs)?);
        stopped?;
    }
    ui.line(format!(
        "\n  {} build, {} cores, load {} at the end\n\n{table}",
        if options.debug { "debug" } else { "release" },
        std::thread::available_parallelism()?.get(),
        super::load(),
    ));
    Ok(())
}

async fn start(
    ui: &Ui,
    artifacts: &Artifacts,
    options: &Options,
    runners: usize,
) -> anyhow::Result<Platform> {
    let options = platform::Options {
        kind: "bench",
        runners,
        slots: SLOTS,
        durable: true,
        hypervisor: Hypervisor::Memory,
        release: !options.debug,
        ..platform::Options::default()
    };
    Platform::start(ui, artifacts, options).await
}

/// Everything with the first number of runners, with the others only how many builds they drain.
async fn measure(
    ui: &Ui,
    platform: &mut Platform,
    options: &Options,
    runners: usize,
) -> anyhow::Result<String> {
    let (record, api) = (platform.record(), platform.api()?);
    let mut table = String::new();
    if runners == RUNNERS[0] {
        let step = ui.step("floors of Postgres, Redis, JetStream");
        let floor = floor::measure(&record, options.rounds).await?;
        let chain = chain::measure(&record, options.rounds).await?;
        step.done("");
        let bar = ui.bar("submit to claim", options.rounds as u64);
        let claims = builds::claims(&record, &api, options.rounds, |at| bar.position(at)).await?;
        bar.done(&format!("p50 {:.2} ms", claims.p50));
        table.push_str(&claim_rows(floor, chain, claims));
        let step = ui.step("steps");
        let took = builds::steps(&api).await?;
        step.done("");
        row(&mut table, "a step beside its command", &format!("{took:.1} ms"), "");
        for rate in RATES {
            let step = ui.step(format!("{rate} lines per second"));
            let plain = floor::lines(&record, rate * LINES_SECONDS, rate).await?;
            // Each alone, as the plain subscriber is.
            let nats = lines::over_nats(&record, &api, rate * LINES_SECONDS, rate).await?;
            let sse = lines::over_sse(&api, rate * LINES_SECONDS, rate).await?;
            step.done("");
            table.push_str(&line_rows(rate, plain, nats, sse));
        }
    }
    let step = ui.step(format!("{} builds, {runners} runners", options.builds));
    let rate = builds::drain(&api, options.builds).await?;
    step.done("");
    let what = format!("builds drained by {runners} × {SLOTS} slots");
    row(&mut table, &what, &format!("{rate:.1} /s"), "");
    Ok(table)
}

fn row(table: &mut String, what: &str, value: &str, beside: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(table, "  {what:<42} {value:>12}  {beside}");
}

fn claim_rows(floor: Floor, chain: f64, claims: Claims) -> String {
    let Claims { p50, p99, queued } = claims;
    let mut table = String::new();
    row(&mut table, "Postgres commit", &format!("{:.2} ms", floor.commit), "");
    row(&mut table, "Redis push and pop", &format!("{:.2} ms", floor.push_pop), "");
    row(&mut table, "JetStream publish and pull", &format!("{:.2} ms", floor.publish_pull), "");
    let beside = format!("{:.2} × the sum of these", chain / floor.sum());
    row(&mut table, "a build's round trips alone", &format!("{chain:.2} ms"), &beside);
    let ratio = p50 / floor.sum();
    let wanted = judged(ratio, 3.0);
    let beside = format!("{ratio:.2} × the sum  {wanted}, {:.2} × its round trips", p50 / chain);
    row(&mut table, "submit to claim, p50", &format!("{p50:.2} ms"), &beside);
    let beside = format!("{:.2} × the sum", queued / floor.sum());
    row(&mut table, "of that from queued to claimed, p50", &format!("{queued:.2} ms"), &beside);
    row(&mut table, "submit to claim, p99", &format!("{p99:.2} ms"), "");
    table
}

fn line_rows(rate: u32, plain: (f64, f64), nats: Seen, sse: Seen) -> String {
    let mut table = String::new();
    let title = |what: &str, at: &str| format!("{what} at {rate}/s, {at}");
    row(&mut table, &title("plain publish", "p50"), &format!("{:.2} ms", plain.0), "");
    row(&mut table, &title("plain publish", "p99"), &format!("{:.2} ms", plain.1), "");
    for (what, seen) in [("guest to NATS", nats), ("guest to SSE", sse)] {
        let ratio = seen.p50 / plain.0;
        let wanted = if what == "guest to NATS" && rate == RATES[0] {
            judged(ratio, 3.0)
        } else {
            String::new()
        };
        let beside = format!("{ratio:.2} × plain  {wanted}");
        row(&mut table, &title(what, "p50"), &format!("{:.2} ms", seen.p50), &beside);
        row(&mut table, &title(what, "p99"), &format!("{:.2} ms", seen.p99), "");
        row(&mut table, &title(what, "lost"), &seen.lost.to_string(), "");
    }
    table
}

fn judged(ratio: f64, most: f64) -> String {
    format!("≤ {most} {}", if ratio <= most { "✓" } else { "✗" })
}

/// In milliseconds.
fn percentile(took: &[Duration], part: f64) -> f64 {
    let mut sorted = took.to_vec();
    sorted.sort_unstable();
    let last = sorted.len().saturating_sub(1);
    let at = (last as f64 * part).round() as usize;
    sorted.get(at).map_or(f64::NAN, |took| took.as_secs_f64() * 1000.0)
}

fn now_nanos() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()
}

/// How long ago it was, given nanoseconds since 1970.
fn since(nanos: &str) -> anyhow::Result<Duration> {
    let then: u128 = nanos.parse().with_context(|| format!("{nanos:?} is no moment"))?;
    let nanos = u64::try_from(now_nanos().saturating_sub(then)).unwrap_or(u64::MAX);
    Ok(Duration::from_nanos(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_sorted_values() {
        let took: Vec<Duration> = (1..=101).rev().map(Duration::from_millis).collect();
        assert_eq!((percentile(&took, 0.5), percentile(&took, 0.99)), (51.0, 100.0));
        assert!(percentile(&[], 0.5).is_nan());
    }
}
