//! One QEMU that is started by hand: files in a folder, a process, its control socket. Nothing else.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::Context;
use fs_err as fs;
use ovenbird_guest_protocol::{Arrival, Token};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
    process::{Child, Command},
    time::{Instant, sleep},
};

use super::{
    command_line::CommandLine,
    guest::{Guest, ShortPath},
};

pub(super) const MEMORY: &str = "memory";
pub(super) const STATE: &str = "state";
pub(super) const DISK: &str = "disk";
pub(super) const KERNEL: &str = "vmlinux";
pub(super) const INITRD: &str = "initrd";
pub(super) const GUEST_SOCKET: &str = "guest.sock";
pub(super) const CONTROL_SOCKET: &str = "qmp.sock";

/// For QEMU to do anything at all.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks.
const POLL: Duration = Duration::from_millis(1);

/// A machine that runs. Dropped, it is killed.
#[derive(Debug)]
pub(super) struct Machine {
    dir: PathBuf,
    short: ShortPath,
    process: Child,
    control: Control,
    token: Token,
}

impl Machine {
    /// Starts the process in `dir`, which holds its files, and loads the state if the command line says so. It
    /// is paused then, else its processor runs.
    pub(super) async fn start(
        dir: &Path,
        line: &CommandLine,
        tap: &str,
        token: Token,
    ) -> anyhow::Result<Self> {
        let short = ShortPath::of(dir)?;
        let log = fs::File::create(dir.join("qemu.log"))?.into_file();
        let process = Command::new(line.program())
            .args(line.arguments(tap, token))
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("start QEMU by hand")?;
        let socket = short.join(CONTROL_SOCKET);
        let control = Control::connect(&socket).await.with_context(|| said(dir))?;
        let mut machine = Self { dir: dir.to_owned(), short, process, control, token };
        if line.restores() {
            machine.load().await.with_context(|| said(dir))?;
        }
        Ok(machine)
    }

    async fn load(&mut self) -> anyhow::Result<()> {
        self.ignore_shared().await?;
        self.control.run("migrate-incoming", json!({ "uri": format!("file:{STATE}") })).await?;
        self.control.until("query-status", |answer| answer["status"] != "inmigrate").await?;
        Ok(())
    }

    async fn ignore_shared(&mut self) -> anyhow::Result<()> {
        let capabilities = json!([{ "capability": "x-ignore-shared", "state": true }]);
        let arguments = json!({ "capabilities": capabilities });
        self.control.run("migrate-set-capabilities", arguments).await?;
        Ok(())
    }

    /// Lets the processor run.
    pub(super) async fn go_on(&mut self) -> anyhow::Result<()> {
        self.control.run("cont", json!({})).await?;
        Ok(())
    }

    /// Waits for the guest's first answer.
    pub(super) async fn guest(&self, arrival: Arrival) -> anyhow::Result<Guest> {
        let socket = self.short.join(GUEST_SOCKET);
        let guest = Guest::connect(&socket, self.token, arrival);
        guest.await.with_context(|| said(&self.dir))
    }

    /// Stops the processor, writes the state, ends the process. Its memory and disk stay.
    pub(super) async fn save(mut self) -> anyhow::Result<()> {
        self.control.run("stop", json!({})).await?;
        self.ignore_shared().await?;
        let unlimited = json!({ "max-bandwidth": 1_u64 << 40 });
        self.control.run("migrate-set-parameters", unlimited).await?;
        self.control.run("migrate", json!({ "uri": format!("file:{STATE}") })).await?;
        let answer = self
            .control
            .until("query-migrate", |answer| {
                ["completed", "failed", "cancelled"].iter().any(|end| answer["status"] == *end)
            })
            .await?;
        anyhow::ensure!(answer["status"] == "completed", "the state was not saved: {answer}");
        self.end().await
    }

    /// Waits until the guest has turned itself off, and ends the process.
    pub(super) async fn turned_off(mut self) -> anyhow::Result<()> {
        // `-action shutdown=pause`: the process stays, with a guest that is off.
        self.control.until("query-status", |answer| answer["status"] == "shutdown").await?;
        self.end().await
    }

    /// Ends the process at once.
    pub(super) async fn end(mut self) -> anyhow::Result<()> {
        self.process.kill().await?;
        Ok(())
    }

    /// The process.
    pub(super) fn pid(&self) -> Option<u32> {
        self.process.id()
    }

    /// Its folder.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its token.
    pub(super) fn token(&self) -> Token {
        self.token
    }
}

fn said(dir: &Path) -> String {
    let log = fs::read_to_string(dir.join("qemu.log")).unwrap_or_default();
    format!("QEMU, started by hand, said {:?}", log.trim())
}

/// QEMU's control socket.
#[derive(Debug)]
struct Control {
    socket: BufReader<UnixStream>,
}

impl Control {
    async fn connect(path: &Path) -> anyhow::Result<Self> {
        let deadline = Instant::now() + PATIENCE;
        let socket = loop {
            match UnixStream::connect(path).await {
                Ok(socket) => break socket,
                Err(error) if Instant::now() > deadline => {
                    return Err(error).context("no control socket");
                }
                Err(_) => sleep(POLL).await,
            }
        };
        let mut control = Self { socket: BufReader::new(socket) };
        control.run("qmp_capabilities", json!({})).await?;
        Ok(control)
    }

    async fn run(&mut self, command: &str, arguments: Value) -> anyhow::Result<Value> {
        let line = json!({ "execute": command, "arguments": arguments });
        self.socket.write_all(format!("{line}\n").as_bytes()).await?;
        loop {
            let mut text = String::new();
            let read = tokio::time::timeout(PATIENCE, self.socket.read_line(&mut text)).await;
            anyhow::ensure!(read.context("QEMU is silent")?? > 0, "QEMU ended at {command}");
            let mut line: Value = serde_json::from_str(&text)?;
            if let Some(error) = line.get("error") {
                anyhow::bail!("QEMU refused {command}: {error}");
            }
            // Everything else is the greeting, or an event.
            if let Some(answer) = line.get_mut("return") {
                return Ok(answer.take());
            }
        }
    }

    async fn until(
        &mut self,
        command: &str,
        done: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.run(command, json!({})).await?;
            if done(&answer) {
                return Ok(answer);
            }
            anyhow::ensure!(Instant::now() < deadline, "{command} is still {answer}");
            sleep(POLL).await;
        }
    }
}
