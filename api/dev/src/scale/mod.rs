//! `cargo dev scale`: a load of builds rises and falls, and runners follow it as KEDA would have it with the ScaledObject
//! of `.deploy`, on one machine. Sandboxes have no machines here: what is shown is everything around them. Only the pace is
//! not a cluster's: see [`autoscaler`].
//!
//! ```text
//!  load ─► api ─► … ─► BUILDS ─► runners (processes) ─► cost of each pod ─┐
//!                        │ /jsz of NATS                                  │
//!                        ▼                                               ▼
//!                    monitor ─► autoscaler (KEDA's and the HPA's rule) ─► fleet: starts, or SIGTERM to the cheapest
//! ```

pub mod autoscaler;
mod curve;
mod fleet;
mod load;
pub mod monitor;

use std::{fmt::Write as _, path::PathBuf, time::Duration};

use anyhow::Context;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use self::{
    autoscaler::{Autoscaler, Rule},
    curve::{Curve, Sample},
    fleet::Fleet,
    load::Built,
};
use crate::{
    cache::Artifacts,
    platform::{self, Hypervisor, Platform},
    progress::Ui,
    setup::{self, Again},
    tree,
};

/// Between two points of the curve.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A load that is not over by then hangs.
const LONGEST: Duration = Duration::from_secs(600);

/// How much.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Builds in all.
    #[arg(long, default_value_t = 60)]
    pub builds: usize,
    /// Where the picture of the curve goes.
    #[arg(long, default_value = ".ovenbird/scale.svg")]
    pub picture: PathBuf,
}

/// A load, and the rule that runners follow.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Builds in all: two thirds come while the load rises, the others while it falls. Every sixth is of the high lane.
    pub builds: usize,
    /// How long it rises.
    pub rises: Duration,
    /// How long it falls.
    pub falls: Duration,
    /// What a build takes: two steps.
    pub work: Duration,
    /// Builds at once in each runner.
    pub slots: usize,
    /// What a build that was handed over may take longer than the slowest one that was not: its runner notices the end
    /// of its drain time, the desk writes, another runner claims.
    pub hand_over: Duration,
    /// When there are how many runners.
    pub rule: Rule,
}

impl Plan {
    /// `builds` within a minute and a half, with the rule of `.deploy`.
    ///
    /// # Errors
    /// When there is no such rule.
    pub fn of_deploy(builds: usize) -> anyhow::Result<Self> {
        Ok(Self {
            builds,
            rises: Duration::from_secs(35),
            falls: Duration::from_secs(50),
            work: Duration::from_secs(8),
            slots: 2,
            hand_over: Duration::from_secs(4),
            rule: Rule::of_deploy()?,
        })
    }
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// Runners and jobs over time.
    curve: Curve,
    /// The builds.
    built: Vec<Built>,
    /// Runners that were sent away while they had builds.
    pub sent_away_busy: usize,
    /// What must not be.
    pub wrong: Vec<String>,
}

impl Outcome {
    /// Runners at the beginning, at most and at the end.
    pub fn runners(&self) -> [usize; 3] {
        self.curve.runners()
    }

    /// Builds that another runner went on with.
    pub fn handed_over(&self) -> usize {
        self.built.iter().filter(|build| build.attempts > 1).count()
    }

    /// Builds that ended as they should.
    pub fn succeeded(&self) -> usize {
        self.built.iter().filter(|build| build.status == "succeeded").count()
    }

    fn table(&self) -> String {
        let mut table = String::new();
        let mut attempts = std::collections::BTreeMap::<u64, usize>::new();
        for build in &self.built {
            *attempts.entry(build.attempts).or_default() += 1;
        }
        let attempts: Vec<String> =
            attempts.iter().map(|(attempts, builds)| format!("{builds} × {attempts}")).collect();
        let restarted = self.built.iter().filter(|build| build.restarted).count();
        let slowest = |handed_over: bool| {
            let some = self.built.iter().filter(|build| (build.attempts > 1) == handed_over);
            some.map(|build| build.took.as_secs_f64()).fold(0.0, f64::max)
        };
        let [first, most, last] = self.runners();
        // Writing to a string cannot fail.
        let _ = writeln!(table, "  runners            {first} → {most} → {last}");
        let _ = writeln!(
            table,
            "  builds             {} of {} succeeded",
            self.succeeded(),
            self.built.len()
        );
        let _ = writeln!(table, "  attempts           {}", attempts.join(", "));
        let _ = writeln!(
            table,
            "  handed over        {} builds of {} runners that were sent away while they had some",
            self.handed_over(),
            self.sent_away_busy
        );
        let _ = writeln!(table, "  restarted          {restarted}");
        let _ = writeln!(
            table,
            "  slowest build      {:.1} s, handed over {:.1} s",
            slowest(false),
            slowest(true)
        );
        let _ = writeln!(table, "  wrong              {}", self.wrong.len());
        table
    }
}

/// Shows it, prints the curve and draws it.
///
/// # Errors
/// When a build was restarted, delayed or failed, or the runners did not follow; with all of it.
pub async fn run(ui: &Ui, options: Options, ending: CancellationToken) -> anyhow::Result<()> {
    let prepare = async {
        platform::require_root()?;
        let artifacts = setup::run(ui, Again::default()).await?;
        tree::build(ui).await?;
        anyhow::Ok(artifacts)
    };
    let artifacts = ending.run_until_cancelled(prepare).await.context("ended by a signal")??;
    let plan = Plan::of_deploy(options.builds)?;
    let mut platform = start(ui, &artifacts, &plan).await?;
    let driving = Box::pin(drive(ui, &mut platform, &plan));
    let outcome = ending.run_until_cancelled(driving).await;
    let outcome = outcome.unwrap_or_else(|| Err(anyhow::anyhow!("ended by a signal")));
    let logs = if outcome.is_err() { platform.log_tails(20) } else { String::new() };
    let stopped = platform.stop(ui).await;
    let outcome = outcome.context(logs)?;
    stopped?;
    ui.line(format!("\n{}\n{}", outcome.curve.text(), outcome.table()));
    outcome.curve.draw(&options.picture)?;
    ui.notice(format!("the curve is drawn in {}", options.picture.display()));
    let Rule { min, max, .. } = plan.rule;
    let mut wrong = outcome.wrong;
    if outcome.curve.runners() != [min, max, min] {
        wrong.push(format!("runners did not go {min} → {max} → {min}"));
    }
    anyhow::ensure!(wrong.is_empty(), "not everything holds:\n{}", wrong.join("\n"));
    Ok(())
}

/// A platform for a plan, without runners.
///
/// # Errors
/// When it does not start.
pub async fn start(ui: &Ui, artifacts: &Artifacts, plan: &Plan) -> anyhow::Result<Platform> {
    let options = platform::Options {
        kind: "scale",
        runners: 0,
        slots: plan.slots,
        hypervisor: Hypervisor::Memory,
        ..platform::Options::default()
    };
    Platform::start(ui, artifacts, options).await
}

/// Has the load rise and fall, and runners follow it, until the load is over and the fewest are left.
///
/// # Errors
/// When the platform does not work at all.
pub async fn drive(ui: &Ui, platform: &mut Platform, plan: &Plan) -> anyhow::Result<Outcome> {
    let (api, monitor) = (platform.api()?, monitor::Monitor::new(platform.nats_monitor_url())?);
    let bar = ui.bar(format!("{} builds", plan.builds), plan.builds as u64);
    let mut fleet = Fleet::new().await?;
    fleet.grow(platform, plan.rule.min)?;
    let load = tokio::spawn(load::run(api, plan.clone()));
    let mut load = tokio_util::task::AbortOnDropHandle::new(load);
    let mut autoscaler = Autoscaler::new(plan.rule.clone());
    let mut curve = Curve::default();
    let begun = Instant::now();
    let mut decide_at = begun;
    let mut built = None;
    for look in 0.. {
        sleep_until(begun + LOOK_EVERY * look).await;
        let at = begun.elapsed();
        anyhow::ensure!(at < LONGEST, "the load hangs");
        let lag = monitor.lag(&plan.rule.triggers).await?;
        fleet.reap(platform).await?;
        if Instant::now() >= decide_at {
            decide_at += plan.rule.polling;
            let wanted = autoscaler.wanted(at, lag.total(), fleet.size());
            fleet.grow(platform, wanted)?;
            fleet.shrink(platform, wanted);
        }
        curve.push(Sample {
            at,
            waiting: lag.pending,
            running: lag.ack_pending,
            runners: fleet.size(),
        });
        bar.message(&format!(
            "{} wait, {} run, {} runners",
            lag.pending,
            lag.ack_pending,
            fleet.size()
        ));
        if built.is_none() && load.is_finished() {
            built = Some((&mut load).await.context("the load broke")??);
            bar.position(plan.builds as u64);
        }
        if built.is_some() && fleet.size() == plan.rule.min && fleet.leaving() == 0 {
            break;
        }
    }
    let built = built.unwrap_or_default();
    let mut wrong = wrong(&built, plan.hand_over);
    wrong.extend(platform.errors_logged());
    bar.done("");
    Ok(Outcome { curve, built, sent_away_busy: fleet.sent_away_busy(), wrong })
}

/// Builds that failed, began again, or took long because their runner was sent away.
fn wrong(built: &[Built], hand_over: Duration) -> Vec<String> {
    let untouched = built.iter().filter(|build| build.attempts == 1);
    let usual = untouched.map(|build| build.took).max().unwrap_or_default();
    let mut wrong = Vec::new();
    for build in built {
        if build.status != "succeeded" {
            wrong.push(format!("{} ended as {}", build.name, build.status));
        }
        if build.restarted {
            wrong.push(format!("{} began again from the first step", build.name));
        }
        if build.attempts > 1 && build.took > usual + hand_over {
            wrong.push(format!("{} took {:?}, others at most {usual:?}", build.name, build.took));
        }
    }
    wrong
}
