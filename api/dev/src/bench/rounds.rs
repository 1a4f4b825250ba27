//! The rounds: each step is done by the floor and right after it by the agent, so that a change in the machine's
//! load meets both.
//!
//! ```text
//!  boot ─► commands ─► file in, out ─► pause ─► resume ─► snapshot
//!                                                            ├─► fork ─► first command ─► flatten
//!                                                            └─► ten forks at once ─► memory of each
//! ```

use std::time::{Duration, Instant};

use anyhow::Context;
use fs_err as fs;
use futures::future::try_join_all;

use super::{
    COMMAND, FORKS_AT_ONCE,
    command_line::{self, CommandLine},
    figures::{Figures, Measure, Side},
    floor::{Bare, Floor, Template},
    stage::{IMAGE, Stage},
    subject::{MEMORY_MB, Subject},
};
use crate::progress::Step;

/// Commands whose time is taken, per round and side.
const COMMANDS: usize = 10;
/// In the guest's memory, so that no disk is measured.
const FILE: &str = "/dev/shm/bench";
const FILE_BYTES: usize = 32 * 1024 * 1024;

/// Both sides, and what was measured.
pub(super) struct Rounds<'a> {
    stage: &'a Stage,
    subject: Subject,
    floor: Floor,
    figures: Figures,
}

/// How long something took.
async fn timed<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<(T, Duration)> {
    let started = Instant::now();
    let outcome = work.await?;
    Ok((outcome, started.elapsed()))
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

impl<'a> Rounds<'a> {
    /// Lets the agent boot and fork one machine, not measured, to learn what the floor has to start.
    pub(super) async fn prepare(stage: &'a Stage) -> anyhow::Result<Self> {
        let subject = stage.subject().await?;
        subject.create(IMAGE, "first").await.context("the agent's first sandbox")?;
        let boot = line_of(stage, "first")?;
        subject.exec("first", COMMAND, &[]).await?;
        subject.snapshot("first", "first").await?;
        subject.create("first", "second").await.context("the agent's first fork")?;
        let fork = line_of(stage, "second")?;
        anyhow::ensure!(boot.owns_memory() && !boot.restores(), "unexpected: {boot:?}");
        anyhow::ensure!(!fork.owns_memory() && fork.restores(), "unexpected: {fork:?}");
        subject.destroy("second").await?;
        subject.delete_snapshot("first").await?;
        let floor = Floor::new(stage, boot, fork, u64::from(MEMORY_MB.unsigned_abs()))?;
        Ok(Self { stage, subject, floor, figures: Figures::default() })
    }

    /// What was measured.
    pub(super) fn into_figures(self) -> Figures {
        self.figures
    }

    fn add(&mut self, measure: Measure, side: Side, took: Duration) {
        self.figures.add(measure, side, milliseconds(took));
    }

    /// Everything once.
    pub(super) async fn round(&mut self, step: &Step, number: usize) -> anyhow::Result<()> {
        let (booted, template) = (format!("booted-{number}"), format!("template-{number}"));
        let say = |what: &str| step.message(&format!("round {}: {what}", number + 1));
        say("boot");
        let bare = self.boot(&booted).await?;
        say("commands");
        self.commands(&bare, &booted).await?;
        say("files");
        self.files(&bare, &booted).await?;
        say("pause, resume");
        let bare = self.pause_and_resume(bare, &booted).await?;
        say("snapshot");
        let (bare_template, took) = timed(self.floor.snapshot(bare)).await?;
        self.add(Measure::Snapshot, Side::Floor, took);
        let ((), took) = timed(self.subject.snapshot(&booted, &template)).await?;
        self.add(Measure::Snapshot, Side::Agent, took);
        say("fork, flatten");
        self.fork_and_flatten(&bare_template, &template, number).await?;
        say("ten forks at once");
        self.ten_forks(&bare_template, &template, number).await?;
        self.subject.delete_snapshot(&template).await?;
        Ok(())
    }

    async fn boot(&mut self, id: &str) -> anyhow::Result<Bare> {
        let (bare, made) = timed(self.floor.boot()).await?;
        let ((), ran) = timed(bare.guest.exec(COMMAND, &[])).await?;
        self.add(Measure::ColdCreate, Side::Floor, made);
        self.add(Measure::ColdFirst, Side::Floor, made + ran);
        let ((), made) = timed(self.subject.create(IMAGE, id)).await?;
        let ((), ran) = timed(self.subject.exec(id, COMMAND, &[])).await?;
        self.add(Measure::ColdCreate, Side::Agent, made);
        self.add(Measure::ColdFirst, Side::Agent, made + ran);
        Ok(bare)
    }

    async fn commands(&mut self, bare: &Bare, id: &str) -> anyhow::Result<()> {
        for _ in 0..COMMANDS {
            let ((), took) = timed(bare.guest.exec(COMMAND, &[])).await?;
            self.add(Measure::Exec, Side::Floor, took);
            let ((), took) = timed(self.subject.exec(id, COMMAND, &[])).await?;
            self.add(Measure::Exec, Side::Agent, took);
        }
        Ok(())
    }

    async fn files(&mut self, bare: &Bare, id: &str) -> anyhow::Result<()> {
        let rate = |took: Duration| FILE_BYTES as f64 / 1e6 / took.as_secs_f64();
        // The first transfer is also the one for which a fresh guest gets its memory.
        bare.guest.write(FILE, FILE_BYTES).await?;
        let ((), took) = timed(bare.guest.write(FILE, FILE_BYTES)).await?;
        self.figures.add(Measure::FileIn, Side::Floor, rate(took));
        if self.subject.write(id, FILE, FILE_BYTES).await?.is_some() {
            let (_, took) = timed(self.subject.write(id, FILE, FILE_BYTES)).await?;
            self.figures.add(Measure::FileIn, Side::Agent, rate(took));
        }
        let ((), took) = timed(bare.guest.read(FILE, FILE_BYTES)).await?;
        self.figures.add(Measure::FileOut, Side::Floor, rate(took));
        let made = format!("head -c {FILE_BYTES} /dev/urandom > {FILE}");
        self.subject.exec(id, "/bin/sh", &["-c", &made]).await?;
        if let (Some(()), took) = timed(self.subject.read(id, FILE, FILE_BYTES)).await? {
            self.figures.add(Measure::FileOut, Side::Agent, rate(took));
        }
        bare.guest.exec("rm", &[FILE]).await?;
        self.subject.exec(id, "rm", &[FILE]).await
    }

    async fn pause_and_resume(&mut self, bare: Bare, id: &str) -> anyhow::Result<Bare> {
        let (paused, took) = timed(self.floor.pause(bare)).await?;
        self.add(Measure::Pause, Side::Floor, took);
        let (served, took) = timed(self.subject.pause(id)).await?;
        if served.is_some() {
            self.add(Measure::Pause, Side::Agent, took);
        }
        let (bare, took) = timed(self.floor.resume(paused)).await?;
        self.add(Measure::Resume, Side::Floor, took);
        if served.is_some()
            && let (Some(()), took) = timed(self.subject.resume(id)).await?
        {
            self.add(Measure::Resume, Side::Agent, took);
        }
        Ok(bare)
    }

    async fn fork_and_flatten(
        &mut self,
        bare_template: &Template,
        template: &str,
        number: usize,
    ) -> anyhow::Result<()> {
        let (fork, image) = (format!("fork-{number}"), format!("image-{number}"));
        let (bare, made) = timed(self.floor.fork(bare_template)).await?;
        let ((), ran) = timed(bare.guest.exec(COMMAND, &[])).await?;
        self.add(Measure::Fork, Side::Floor, made);
        self.add(Measure::ForkFirst, Side::Floor, made + ran);
        let ((), made) = timed(self.subject.create(template, &fork)).await?;
        let ((), ran) = timed(self.subject.exec(&fork, COMMAND, &[])).await?;
        self.add(Measure::Fork, Side::Agent, made);
        self.add(Measure::ForkFirst, Side::Agent, made + ran);
        let ((), took) = timed(self.floor.flatten(bare)).await?;
        self.add(Measure::Flatten, Side::Floor, took);
        let ((), took) = timed(self.subject.flatten(&fork, &image)).await?;
        self.add(Measure::Flatten, Side::Agent, took);
        Ok(())
    }

    async fn ten_forks(
        &mut self,
        bare_template: &Template,
        template: &str,
        number: usize,
    ) -> anyhow::Result<()> {
        let (bare, took) = timed(self.floor.forks(bare_template, FORKS_AT_ONCE)).await?;
        self.add(Measure::TenForks, Side::Floor, took);
        let pids = bare.iter().filter_map(|bare| bare.machine.pid()).collect::<Vec<_>>();
        let memory = per_fork(proportional_mb(&pids)?);
        self.figures.add(Measure::ForkMemory, Side::Floor, memory);
        for bare in bare {
            self.floor.remove(bare).await?;
        }

        let before = proportional_mb(&[self.stage.agent_pid()])?;
        let ids: Vec<String> = (0..FORKS_AT_ONCE).map(|at| format!("ten-{number}-{at}")).collect();
        let forks = ids.iter().map(|id| async {
            self.subject.create(template, id).await?;
            self.subject.exec(id, COMMAND, &[]).await
        });
        let (_, took) = timed(try_join_all(forks)).await?;
        self.add(Measure::TenForks, Side::Agent, took);
        let mut pids = Vec::new();
        for id in &ids {
            pids.push(command_line::process_in(&self.stage.sandbox_dir(id))?);
        }
        // What the agent itself has come to need for them counts, too.
        let grown = (proportional_mb(&[self.stage.agent_pid()])? - before).max(0.0);
        let memory = per_fork(proportional_mb(&pids)? + grown);
        self.figures.add(Measure::ForkMemory, Side::Agent, memory);
        try_join_all(ids.iter().map(|id| self.subject.destroy(id))).await?;
        Ok(())
    }
}

fn line_of(stage: &Stage, id: &str) -> anyhow::Result<CommandLine> {
    let pid = command_line::process_in(&stage.sandbox_dir(id))?;
    let line = CommandLine::of_process(pid)?;
    command_line::check(&line)?;
    Ok(line)
}

fn per_fork(megabytes: f64) -> f64 {
    megabytes / FORKS_AT_ONCE as f64
}

/// The memory of these processes in MB; what they share with others counts by their part of it.
fn proportional_mb(pids: &[u32]) -> anyhow::Result<f64> {
    let mut kilobytes = 0.0;
    for pid in pids {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
        let number = line.and_then(|line| line.split_whitespace().next()).context("no Pss")?;
        kilobytes += number.parse::<f64>()?;
    }
    Ok(kilobytes * 1024.0 / 1e6)
}
