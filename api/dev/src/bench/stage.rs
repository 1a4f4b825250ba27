//! Where it all happens: one agent, a file system for it and for the floor, and taps for the floor.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use fs_err as fs;
use nix::unistd::Uid;
use ovenbird_testkit::{Authority, Port, Process, Reserved, process::Program};
use serde_json::json;
use tokio::process::Command;

use super::subject::{self, Subject};
use crate::{
    cache::Artifacts,
    platform::{config, disk::Disk, leftovers, place::Place, record::Agent},
    program,
    progress::{Step, Ui},
    tree,
};

const READY: Duration = Duration::from_secs(120);
const ENDING: Duration = Duration::from_secs(60);
/// The template that cold creates start from.
pub(super) const IMAGE: &str = "minimal";

/// How root disks are made, by both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Storage {
    /// Shared blocks, on an XFS that is made for the run where there is none.
    Reflink,
    /// A sparse copy, on the file system of the source tree.
    Copy,
}

impl Storage {
    fn name(self) -> &'static str {
        match self {
            Self::Reflink => "reflink",
            Self::Copy => "copy",
        }
    }

    /// Makes a machine's disk from a template's.
    pub(super) async fn make_disk(self, from: &Path, to: &Path) -> anyhow::Result<()> {
        match self {
            Self::Reflink => {
                let (from, to) = (fs::File::open(from)?, fs::File::create(to)?);
                rustix::fs::ioctl_ficlone(to.file(), from.file()).context("clone a disk")
            }
            Self::Copy => {
                let mut copy = Command::new("cp");
                copy.args(["--reflink=never", "--sparse=auto"]).arg(from).arg(to);
                program::output(copy).await.map(drop)
            }
        }
    }
}

/// See the module. The fields are dropped in their order, so the agent ends before its disk goes.
#[derive(Debug)]
pub(super) struct Stage {
    agent: Process,
    taps: Taps,
    disk: Option<Disk>,
    place: Place,
    storage: Storage,
    artifacts: Artifacts,
    address: Agent,
    _number: Reserved,
    _port: Port,
}

impl Stage {
    /// Makes the place and starts the agent `binary` in it.
    pub(super) async fn start(
        ui: &Ui,
        artifacts: &Artifacts,
        binary: &Path,
        storage: Storage,
    ) -> anyhow::Result<Self> {
        anyhow::ensure!(Uid::effective().is_root(), "microVMs need root: run this as root");
        leftovers::clear(ui, &tree::scratch()).await?;
        let step = ui.step("start the agent");
        let place = Place::create(&tree::scratch(), "bench")?;
        let hosts = place.path().join("hosts");
        let disk = match storage {
            Storage::Copy => {
                fs::create_dir(&hosts)?;
                None
            }
            Storage::Reflink => Some(Disk::prepare(ui, &hosts).await?),
        };
        let made = disk.as_ref().map_or(storage.name(), Disk::driver);
        anyhow::ensure!(
            made == storage.name(),
            "no file system with reflinks can be had here: run with --storage copy"
        );
        let image = hosts.join("agent-1/images").join(IMAGE);
        fs::create_dir_all(&image)?;
        let mut copy = Command::new("cp");
        copy.arg("--sparse=always").arg(&artifacts.image).arg(image.join("rootfs.ext4"));
        program::output(copy).await?;

        let (number, port) = (Reserved::one_of("agent", 0..800, |_| true)?, Port::reserve()?);
        let (agent, address) =
            start_agent(&step, artifacts, binary, storage, &place, number.number(), &port).await?;
        let taps = Taps::create(number.number()).await?;
        step.done("");
        Ok(Self {
            agent,
            taps,
            disk,
            place,
            storage,
            artifacts: artifacts.clone(),
            address,
            _number: number,
            _port: port,
        })
    }

    /// A client of the agent.
    pub(super) async fn subject(&self) -> anyhow::Result<Subject> {
        Subject::connect(&self.address).await
    }

    /// The agent's process.
    pub(super) fn agent_pid(&self) -> u32 {
        self.agent.pid()
    }

    /// The last lines of the agent's log.
    pub(super) fn agent_log(&self) -> String {
        self.agent.log_tail(30)
    }

    fn data_dir(&self) -> PathBuf {
        self.place.path().join("hosts/agent-1")
    }

    /// The folder of a sandbox of the agent.
    pub(super) fn sandbox_dir(&self, id: &str) -> PathBuf {
        self.data_dir().join("sandboxes").join(id)
    }

    /// The folder of the floor's machines, on the same file system.
    pub(super) fn floor_dir(&self) -> PathBuf {
        self.place.path().join("hosts/floor")
    }

    /// The root disk of [`IMAGE`].
    pub(super) fn image(&self) -> PathBuf {
        self.data_dir().join("images").join(IMAGE).join("rootfs.ext4")
    }

    pub(super) fn kernel(&self) -> &Path {
        &self.artifacts.kernel
    }

    pub(super) fn initrd(&self) -> &Path {
        &self.artifacts.initrd
    }

    pub(super) fn storage(&self) -> Storage {
        self.storage
    }

    /// Taps for the floor.
    pub(super) fn taps(&self) -> &[String] {
        &self.taps.names
    }

    /// Ends the agent in order and removes everything.
    pub(super) async fn stop(mut self, ui: &Ui) -> anyhow::Result<()> {
        let step = ui.step("stop the agent");
        // Whatever sandboxes there are go with it, whether or not a signal alone would take them along.
        if let Ok(subject) = self.subject().await {
            subject.terminate().await?;
        }
        let ended = self.agent.wait(ENDING).await;
        let Self { agent, taps, disk, place, .. } = self;
        drop((agent, taps, disk));
        place.remove()?;
        anyhow::ensure!(ended.is_some(), "the agent did not end within {ENDING:?} and was killed");
        step.done("");
        Ok(())
    }
}

async fn start_agent(
    step: &Step,
    artifacts: &Artifacts,
    binary: &Path,
    storage: Storage,
    place: &Place,
    number: u16,
    port: &Port,
) -> anyhow::Result<(Process, Agent)> {
    const SERVER_NAME: &str = "agent-1.ovenbird";
    let (dir, tls) = (place.path(), place.path().join("tls"));
    let authority = Authority::new()?;
    let client = authority.write(&authority.client("bench.ovenbird")?, &tls, "bench")?;
    let files = authority.write(&authority.server(&[SERVER_NAME])?, &tls, "agent-1")?;
    let address = Agent {
        address: format!("127.0.0.1:{port}"),
        server_name: SERVER_NAME.to_owned(),
        ca: client.ca,
        cert: client.cert,
        key: client.key,
    };
    let content = json!({
        "listen": address.address,
        "metrics_listen": "",
        "data_dir": dir.join("hosts/agent-1"),
        "kernel": artifacts.kernel,
        "initrd": artifacts.initrd,
        "name": format!("d{number}"),
        "subnet": format!("10.{}.{}.0/20", 200 + number / 16, number % 16 * 16),
        "uid_base": 2_000_000 + u32::from(number) * 4096,
        "storage": storage.name(),
        "sandboxes_on_exit": "destroy",
        // Every sandbox of the bench fits, however few processors there are.
        "capacity": { "sandboxes": 32, "vcpus": 64, "memory_mb": 32 * subject::MEMORY_MB },
        "tls": config::tls(&files),
    });
    let config = config::write(dir, "agent-1", &content)?;
    step.message("it probes the host");
    let program = Program::new("agent-1", binary, dir.join("agent-1.log"))
        .args(["serve", "--config"])
        .arg(config)
        .env("OVENBIRD_LOG_FORMAT", "text");
    let mut agent = Process::start(Program {
        // When this process dies, the agent takes its machines along.
        death_signal: nix::sys::signal::Signal::SIGTERM,
        ..program
    })?;
    let answers = || async {
        let Ok(subject) = Subject::connect(&address).await else { return false };
        subject.host().await.is_ok()
    };
    agent.ready(READY, answers).await?;
    Ok((agent, address))
}

/// Taps in the host's namespace, named after the agent's number, which nobody else has at the same time.
#[derive(Debug)]
struct Taps {
    names: Vec<String>,
}

impl Taps {
    async fn create(number: u16) -> anyhow::Result<Self> {
        let names = (0..=super::FORKS_AT_ONCE).map(|at| format!("ovbb{number}-{at}")).collect();
        let taps = Self { names };
        // Those of a bench that was killed bear the same names.
        taps.remove();
        for name in &taps.names {
            ip(&["tuntap", "add", "dev", name, "mode", "tap", "vnet_hdr"]).await?;
            ip(&["link", "set", name, "up"]).await?;
        }
        Ok(taps)
    }

    fn remove(&self) {
        for name in &self.names {
            if Path::new("/sys/class/net").join(name).exists() {
                let deleted = std::process::Command::new("ip").args(["link", "del", name]).status();
                if !deleted.as_ref().is_ok_and(std::process::ExitStatus::success) {
                    eprintln!("tap {name} could not be removed: {deleted:?}");
                }
            }
        }
    }
}

impl Drop for Taps {
    fn drop(&mut self) {
        self.remove();
    }
}

async fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new("ip");
    command.args(arguments);
    program::output(command).await.map(drop)
}
