//! `cargo dev faults`: builds under way while everything they need is killed, loses its data, or stands still, by a
//! schedule that the seed decides; afterwards, that nothing was lost, doubled or left behind.

mod evidence;
mod load;
mod restarts;
mod schedule;
mod verdict;

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context;
use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio::{sync::mpsc, time::sleep};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use self::{
    load::Load,
    restarts::Restarts,
    schedule::{Fault, Moment, schedule},
};
use crate::{
    cache::Artifacts,
    platform::{self, Platform, part::Part},
    progress::Ui,
    setup::{self, Again},
    tree,
};

/// Short, so that a schedule of minutes sees many of them end.
const LEASE: Duration = Duration::from_secs(3);
/// Twice the default. A lease of three seconds ends under faults of runners that the default one of thirty does not
/// notice, and a build loses an attempt by each. One that loses all of them is told as something that does not hold.
const ATTEMPTS_MAX: u32 = 6;

/// How much.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Seeds to run, one after the other.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 3, 4, 5])]
    pub seeds: Vec<u64>,
    /// Faults of each seed.
    #[arg(long, default_value_t = 60)]
    pub faults: usize,
}

/// What one seed came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Faults that were done, by what happened.
    pub faults: BTreeMap<String, usize>,
    /// Builds by their end.
    pub builds: BTreeMap<String, usize>,
    /// Attempts that were begun, over all builds.
    pub attempts: u64,
    /// How often builds began again from the first step, and why.
    pub restarts: Restarts,
    /// What does not hold.
    pub broken: Vec<String>,
}

/// Runs every seed and prints what it came to.
///
/// # Errors
/// When something that must hold does not; with all of it.
pub async fn run(ui: &Ui, options: Options, ending: CancellationToken) -> anyhow::Result<()> {
    let prepare = async {
        platform::require_root()?;
        let artifacts = setup::run(ui, Again::default()).await?;
        tree::build(ui).await?;
        anyhow::Ok(artifacts)
    };
    let artifacts = ending.run_until_cancelled(prepare).await.context("ended by a signal")??;
    let mut broken = Vec::new();
    for seed in options.seeds {
        let outcome = one(ui, &artifacts, seed, options.faults, &ending).await?;
        ui.line(outcome.to_string(seed));
        broken.extend(outcome.broken.into_iter().map(|what| format!("seed {seed}: {what}")));
    }
    anyhow::ensure!(broken.is_empty(), "not everything holds:\n{}", broken.join("\n"));
    Ok(())
}

/// One seed on a platform of its own, which is ended in order whatever happens.
///
/// # Errors
/// When the platform does not start, end, or come back, or `ending` is cancelled.
pub async fn one(
    ui: &Ui,
    artifacts: &Artifacts,
    seed: u64,
    faults: usize,
    ending: &CancellationToken,
) -> anyhow::Result<Outcome> {
    let options = platform::Options {
        kind: "faults",
        runners: 2,
        slots: 1,
        durable: true,
        lease: Some(LEASE),
        attempts_max: Some(ATTEMPTS_MAX),
        ..platform::Options::default()
    };
    evidence::clear(seed)?;
    let mut platform = Platform::start(ui, artifacts, options).await?;
    let hurting = Box::pin(hurt(ui, &mut platform, seed, faults));
    let outcome = ending.run_until_cancelled(hurting).await;
    let outcome = outcome.unwrap_or_else(|| Err(anyhow::anyhow!("ended by a signal")));
    if !outcome.as_ref().is_ok_and(|outcome| outcome.broken.is_empty()) {
        evidence::keep(ui, &platform, seed).await;
    }
    let logs = if outcome.is_err() { platform.log_tails(30) } else { String::new() };
    let stopped = platform.stop(ui).await;
    let outcome = outcome.context(logs)?;
    stopped?;
    Ok(outcome)
}

async fn hurt(
    ui: &Ui,
    platform: &mut Platform,
    seed: u64,
    faults: usize,
) -> anyhow::Result<Outcome> {
    let moments = schedule(seed, faults, &platform.parts());
    let api = platform.api()?;
    let enough = CancellationToken::new();
    let (ended, mut endings) = mpsc::channel(1024);
    let (client, stop) = (api.clone(), enough.clone());
    let load = async move { load::run(&client, seed, stop, ended).await };
    let load = AbortOnDropHandle::new(tokio::spawn(load));
    let bar = ui.bar(format!("seed {seed}"), moments.len() as u64);
    let mut done: BTreeMap<String, usize> = BTreeMap::new();
    let (mut builds, mut log_lost_at) = (0, None);
    for (at, moment) in moments.iter().enumerate() {
        while endings.try_recv().is_ok() {
            builds += 1;
        }
        bar.message(&format!("{builds} builds over; {} {}", moment.part, moment.fault.as_str()));
        if load.is_finished() {
            break;
        }
        let happened_at = happen(platform, moment).await?;
        if (moment.part, moment.fault) == (Part::Nats, Fault::KillAndLose) {
            log_lost_at = Some(happened_at);
        }
        *done.entry(format!("{} {}", moment.part, moment.fault.as_str())).or_default() += 1;
        bar.position(at as u64 + 1);
    }
    enough.cancel();
    bar.message("waiting for the builds under way");
    let builds = load.await.context("the load broke")??;
    bar.message("looking at what is left");
    let (broken, restarts) = verdict::broken(platform, &api, &builds, log_lost_at).await?;
    bar.done(&format!("{} builds", builds.len()));
    Ok(outcome(done, &builds, restarts, broken))
}

/// One fault, from its pause to its mending. Answers when it began.
async fn happen(platform: &mut Platform, moment: &Moment) -> anyhow::Result<DateTime<Utc>> {
    sleep(moment.pause).await;
    let happened_at = Utc::now();
    match moment.fault {
        Fault::Freeze => {
            platform.freeze(moment.part, true)?;
            sleep(moment.lasts).await;
            platform.freeze(moment.part, false)?;
        }
        Fault::Kill | Fault::KillAndLose => {
            platform.kill(moment.part)?;
            if moment.fault == Fault::KillAndLose {
                platform.lose_data(moment.part)?;
            }
            sleep(moment.lasts).await;
            platform.start_again(moment.part).await?;
        }
    }
    let parts: Vec<Part> = platform.parts();
    let ended = platform.ended(&parts);
    let names: Vec<String> = ended.iter().map(Part::to_string).collect();
    anyhow::ensure!(ended.is_empty(), "{} ended by itself", names.join(", "));
    Ok(happened_at)
}

fn outcome(
    faults: BTreeMap<String, usize>,
    builds: &[(Load, Value)],
    restarts: Restarts,
    broken: Vec<String>,
) -> Outcome {
    let mut ends: BTreeMap<String, usize> = BTreeMap::new();
    for (_, build) in builds {
        *ends.entry(build["status"].as_str().unwrap_or("?").to_owned()).or_default() += 1;
    }
    let attempts = builds.iter().filter_map(|(_, build)| build["attempt"].as_u64()).sum();
    Outcome { faults, builds: ends, attempts, restarts, broken }
}

impl Outcome {
    fn to_string(&self, seed: u64) -> String {
        let counts = |counts: &BTreeMap<String, usize>| {
            let each = counts.iter().map(|(what, count)| format!("{count} {what}"));
            each.collect::<Vec<_>>().join(", ")
        };
        let total: usize = self.faults.values().sum();
        let verdict = if self.broken.is_empty() {
            "everything holds".to_owned()
        } else {
            let each: String = self.broken.iter().map(|what| format!("\n    {what}")).collect();
            format!("{} things do not hold:{each}", self.broken.len())
        };
        let needless: String =
            self.restarts.needless.iter().map(|what| format!("    {what}\n")).collect();
        format!(
            "\n  seed {seed}: {total} faults ({})\n  builds: {}; {} attempts, at most {} lost in a row\n  \
             restarts: {}\n{needless}  {verdict}\n",
            counts(&self.faults),
            counts(&self.builds),
            self.attempts,
            self.restarts.lost_in_a_row,
            counts(&self.restarts.summary()),
        )
    }
}
