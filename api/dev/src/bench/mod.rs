//! `cargo dev bench agent`: the agent beside the same QEMU started by hand, in the same run.
//!
//! The floor gets its command lines from the agent's own machines, the same kernel, initramfs and image, and
//! disks made by the same means on the same file system; see [`floor`] for what of it counts. Absolute numbers
//! are those of this machine on this day; the ratios say what the agent adds.

mod command_line;
mod figures;
mod floor;
mod guest;
mod machine;
pub mod pipeline;
mod rounds;
mod stage;
mod subject;

use std::path::{Path, PathBuf};

use fs_err as fs;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

pub use stage::Storage;

use self::{figures::Figures, rounds::Rounds, stage::Stage};
use crate::{
    cache::Artifacts,
    program,
    progress::Ui,
    setup::{self, Again},
    tree,
};

/// The shortest command there is.
const COMMAND: &str = "true";
const FORKS_AT_ONCE: usize = 10;

/// What to measure, and how.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// How often everything is done; the middle value counts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub rounds: u16,
    /// Write every value to this file, too.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// How root disks are made.
    #[arg(long, value_enum, default_value_t = Storage::Reflink)]
    pub storage: Storage,
    /// Measure the debug build: quicker to compile, several times slower in what the agent itself does.
    #[arg(long)]
    pub debug: bool,
}

/// Runs the benchmark; whatever happens, everything it started is ended. What it finds is no reason to fail.
///
/// # Errors
/// When something does not work at all; with the end of the agent's log.
pub async fn agent(ui: &Ui, options: Options, ending: CancellationToken) -> anyhow::Result<()> {
    let start = async {
        let artifacts = setup::run(ui, Again::default()).await?;
        let binary = build(ui, options.debug).await?;
        Stage::start(ui, &artifacts, &binary, options.storage).await.map(|stage| (stage, artifacts))
    };
    let Some(started) = ending.run_until_cancelled(Box::pin(start)).await else {
        anyhow::bail!("ended by a signal")
    };
    let (stage, artifacts) = started?;
    let measuring = Box::pin(measure(ui, &stage, &artifacts, &options));
    let measured = ending.run_until_cancelled(measuring).await;
    let measured = match measured {
        Some(Ok(measured)) => Ok(measured),
        Some(Err(error)) => Err(error.context(format!("the agent said:\n{}", stage.agent_log()))),
        None => Err(anyhow::anyhow!("ended by a signal")),
    };
    let stopped = stage.stop(ui).await;
    let (facts, figures) = measured?;
    stopped?;
    show(ui, &facts, &figures);
    if let Some(path) = &options.json {
        let all = json!({ "facts": facts, "figures": figures.json() });
        fs::write(path, serde_json::to_vec_pretty(&all)?)?;
        ui.notice(format!("every value is in {}", path.display()));
    }
    Ok(())
}

/// Builds the agent alone; quick when it is fresh.
async fn build(ui: &Ui, debug: bool) -> anyhow::Result<PathBuf> {
    const NAME: &str = "ovenbird-agent";
    let (profile, binary) =
        if debug { ("dev", tree::binary(NAME)) } else { ("release", tree::release_binary(NAME)) };
    let step = ui.step(format!("build the agent ({profile}; minutes when it is not there yet)"));
    let mut command = tree::cargo();
    command.args(["build", "--package", NAME, "--bin", NAME, "--profile", profile]);
    program::run(&step, command).await?;
    step.done("");
    Ok(binary)
}

async fn measure(
    ui: &Ui,
    stage: &Stage,
    artifacts: &Artifacts,
    options: &Options,
) -> anyhow::Result<(Value, Figures)> {
    let load_before = load();
    let step = ui.step("boot and fork a first machine");
    let mut rounds = Rounds::prepare(stage).await?;
    step.done("");
    let bar = ui.bar("measure", options.rounds.into());
    for number in 0..options.rounds {
        rounds.round(&bar, number.into()).await?;
        bar.position(u64::from(number) + 1);
    }
    bar.done("");
    let host = stage.subject().await?.host().await?;
    let facts = json!({
        "accelerator": host.accelerator,
        "accelerator_reason": host.accelerator_reason,
        "agent_build": if options.debug { "debug" } else { "release" },
        "cores": std::thread::available_parallelism()?.get(),
        "guest_kernel": host.kernel,
        "host_kernel": fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(),
        "image_mb": occupied_mb(&artifacts.image)?,
        "load_after": load(),
        "load_before": load_before,
        "qemu": host.qemu_version,
        "rounds": options.rounds,
        "sandbox": format!("1 vCPU, {} MiB", subject::MEMORY_MB),
        "storage": host.storage_driver,
    });
    Ok((facts, rounds.into_figures()))
}

fn show(ui: &Ui, facts: &Value, figures: &Figures) {
    let text = |key: &str| match &facts[key] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    ui.line(format!(
        "\n  QEMU {} ({}), storage {}, {} cores, Linux {}, agent {} build, {} rounds\n  \
         sandboxes of {} from an image of {} MB; load {} before, {} after\n",
        text("qemu"),
        text("accelerator"),
        text("storage"),
        text("cores"),
        text("host_kernel"),
        text("agent_build"),
        text("rounds"),
        text("sandbox"),
        text("image_mb"),
        text("load_before"),
        text("load_after"),
    ));
    ui.line(figures.table());
    ui.line(
        "  Bare QEMU makes the same disk and files, starts the same command line and speaks to the guest itself;\n  \
         its taps are there before. The agent's side is timed by its caller, over mTLS.\n",
    );
}

/// The load average of the last minute.
fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

fn occupied_mb(path: &Path) -> anyhow::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    Ok(fs::metadata(path)?.blocks() * 512 / 1_000_000)
}

/// Bytes that no compression or hole makes shorter.
fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    rand::fill(&mut bytes[..]);
    bytes
}

/// The lengths of the parts of `bytes`.
fn chunks(bytes: usize, most: usize) -> impl Iterator<Item = usize> + Send {
    (0..bytes).step_by(most).map(move |start| most.min(bytes - start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_make_the_whole() {
        assert_eq!(chunks(10, 4).collect::<Vec<_>>(), [4, 4, 2]);
        assert_eq!(chunks(8, 4).collect::<Vec<_>>(), [4, 4]);
        assert_eq!(chunks(0, 4).count(), 0);
    }
}
