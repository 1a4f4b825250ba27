//! Clears away what a killed platform left: its folder is there, its owner is gone.
//!
//! Its agents were asked to end by the kernel, and take their microVMs along. Where that failed, too, an agent is
//! started once more on the old configuration: it takes over what bears its name, and destroys it when it ends.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use fs_err as fs;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use ovenbird_testkit::{Process, process::Program, wait_for};
use serde_json::Value;
use tokio::net::TcpStream;

use super::{apart, disk, place::Place};
use crate::{progress::Ui, tree};

const ENDING: Duration = Duration::from_secs(30);

/// Clears away everything that abandoned platforms left. The programs must have been built.
///
/// # Errors
/// When a folder or a mount cannot be removed.
pub async fn clear(ui: &Ui, scratch: &Path) -> anyhow::Result<()> {
    for place in Place::abandoned(scratch)? {
        let step = ui.step("clear away what a killed platform left");
        step.message(&place.path().display().to_string());
        let dir = place.path().to_owned();
        let ended = || async { running(&dir, "toml").is_empty().then_some(()) };
        if let Err(error) = wait_for("its processes to end", ENDING, ended).await {
            let stuck = running(&dir, "toml");
            ui.notice(format!("{error:#}; killing {stuck:?}"));
            for process in stuck {
                // Its command line names a file of this very folder, so it is none but ours.
                let _ = kill(process, Signal::SIGKILL);
            }
        }
        for config in agents(&dir)? {
            if let Err(error) = end_machines(&config, &dir).await {
                ui.notice(format!("{}: {error:#}", config.display()));
            }
            if let Some(number) = number_of(&config) {
                apart::remove(number);
            }
        }
        // Those that the benchmark started by hand have no agent to end them.
        for machine in running(&dir, "").into_iter().filter(|process| is_qemu(*process)) {
            let _ = kill(machine, Signal::SIGKILL);
        }
        for mount in mounts(&dir)? {
            disk::unmount(&mount);
        }
        place.remove()?;
        step.done("");
    }
    Ok(())
}

/// Configuration files of its agents.
fn agents(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("agent-") && name.ends_with(".toml") {
            files.push(path);
        }
    }
    Ok(files)
}

/// The number of an agent, by its configuration.
fn number_of(config: &Path) -> Option<u16> {
    let settings: Value = toml::from_str(&fs::read_to_string(config).ok()?).ok()?;
    settings["name"].as_str()?.strip_prefix('d')?.parse().ok()
}

/// Lets an agent of the same name take over machines and networks, if there are any, and destroy them.
async fn end_machines(config: &Path, dir: &Path) -> anyhow::Result<()> {
    let settings: Value = toml::from_str(&fs::read_to_string(config)?)?;
    let text = |key: &str| settings.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (name, data) = (text("name"), text("data_dir"));
    let networks = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let mut networks = networks.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let has_network = networks.any(|network| network.starts_with(&format!("ovb-{name}-")));
    if !has_network && running(Path::new(&data), "").is_empty() {
        return Ok(());
    }
    let namespace = number_of(config).and_then(apart::namespace);
    let address: SocketAddr = text("listen").parse()?;
    // Only the benchmark's agent is a release build, and then there may be no other.
    let builds = [tree::binary("ovenbird-agent"), tree::release_binary("ovenbird-agent")];
    let binary = builds.into_iter().find(|binary| binary.is_file()).context("no agent is built")?;
    let log = dir.join("agent-again.log");
    let program = match namespace {
        Some(namespace) => super::within(&namespace, "agent".to_owned(), &binary, log),
        None => Program::new("agent", binary, log),
    };
    let mut agent = Process::start(program.arg("--config").arg(config))?;
    agent.ready(ENDING, || async move { TcpStream::connect(address).await.is_ok() }).await?;
    agent.stop(ENDING).await
}

/// Processes that work in `folder`, or were started with a file of it whose name ends in `ending`.
fn running(folder: &Path, ending: &str) -> Vec<Pid> {
    let prefix = format!("{}/", folder.display());
    let belongs = |process: &Path| {
        let words = fs::read(process.join("cmdline")).unwrap_or_default();
        let named = words.split(|byte| *byte == 0).any(|word| {
            let word = String::from_utf8_lossy(word);
            word.starts_with(&prefix) && word.ends_with(ending)
        });
        let inside = ending.is_empty()
            && fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder));
        named || inside
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
        .filter(|(_, process)| belongs(process))
        .map(|(number, _)| Pid::from_raw(number))
        .collect()
}

fn is_qemu(process: Pid) -> bool {
    fs::read_to_string(format!("/proc/{process}/comm")).is_ok_and(|name| name.starts_with("qemu-"))
}

/// What is mounted below `dir`, innermost first.
fn mounts(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    let mut found: Vec<PathBuf> = points.filter(|point| point.starts_with(dir)).collect();
    found.reverse();
    Ok(found)
}
