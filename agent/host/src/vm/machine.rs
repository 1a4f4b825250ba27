//! A QEMU process that runs: its control socket and its end.

use std::{
    io::{self, Read, Seek, SeekFrom},
    path::PathBuf,
    time::Duration,
};

use async_trait::async_trait;
use base64::Engine as _;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::{
    Ending, Error, Machine, MachineSpec, Saved, Start, console, file,
    process::Process,
    qemu::ShortPath,
    qmp::{self, Qmp},
};

/// For QEMU to come up, or to answer one command.
pub(super) const ANSWER_PATIENCE: Duration = Duration::from_secs(20);
/// For writing or reading a state with all memory in it.
const MIGRATION_PATIENCE: Duration = Duration::from_secs(180);
/// For a killed process to be gone.
const KILL_PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks at a migration, at first and at most.
const POLL: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));
/// As much of QEMU's own words as goes into a message.
const MESSAGE_MAX: u64 = 2048;

/// See the module.
#[derive(Debug)]
pub(super) struct QemuMachine {
    spec: MachineSpec,
    short: ShortPath,
    process: Process,
    qmp: Qmp,
}

impl QemuMachine {
    /// Waits until a process that was just started answers, and restores its state. When that fails, or
    /// is given up on, the process is ended.
    pub(super) async fn connect(
        spec: MachineSpec,
        process: Process,
        short: ShortPath,
        start: Start,
    ) -> Result<Self, Error> {
        let guard = KillOnDrop(&process);
        let socket = short.join(file::CONTROL_SOCKET);
        let connected = tokio::select! {
            connected = Qmp::connect(&socket, ANSWER_PATIENCE) => connected,
            () = process.exited() => Err(qmp::Error::Closed),
        };
        let ready = match connected {
            Ok(qmp) => match restore(&qmp, start).await {
                Ok(()) => Ok(qmp),
                Err(failure) => Err(failure),
            },
            Err(error) => Err(Failure { action: "to start", error }),
        };
        let failure = match ready {
            Ok(qmp) => {
                std::mem::forget(guard);
                return Ok(Self { spec, short, process, qmp });
            }
            Err(failure) => failure,
        };
        drop(guard);
        let error = explain(&spec, &process, failure).await;
        end(&spec, &process).await?;
        Err(error)
    }

    /// Connects to a process that was found, and brings it to rest. Says whether its processors are stopped.
    pub(super) async fn adopt(
        spec: MachineSpec,
        process: Process,
        short: ShortPath,
    ) -> Result<(Self, bool), Error> {
        let socket = short.join(file::CONTROL_SOCKET);
        // QEMU accepts again once it has noticed that the former agent has hung up.
        let connected = tokio::select! {
            connected = Qmp::connect(&socket, ANSWER_PATIENCE) => connected,
            () = process.exited() => Err(qmp::Error::Closed),
        };
        let rested = match connected {
            Ok(qmp) => rest(&qmp).await.map(|is_paused| (qmp, is_paused)),
            Err(error) => Err(Failure { action: "to be adopted", error }),
        };
        match rested {
            Ok((qmp, is_paused)) => Ok((Self { spec, short, process, qmp }, is_paused)),
            Err(failure) => Err(explain(&spec, &process, failure).await),
        }
    }

    async fn execute(
        &self,
        command: &'static str,
        arguments: Value,
        patience: Duration,
    ) -> Result<Value, Error> {
        let failure = match self.qmp.execute(command, arguments, patience).await {
            Ok(answer) => return Ok(answer),
            Err(error) => Failure { action: command, error },
        };
        Err(explain(&self.spec, &self.process, failure).await)
    }
}

/// What went wrong while what was tried.
struct Failure {
    action: &'static str,
    error: qmp::Error,
}

struct KillOnDrop<'a>(&'a Process);

impl Drop for KillOnDrop<'_> {
    fn drop(&mut self) {
        // What cannot be killed cannot be helped here; the next start of the agent tries again.
        let _ = self.0.kill();
    }
}

/// Adds which machine it was, and what QEMU itself said when it is gone.
async fn explain(spec: &MachineSpec, process: &Process, failure: Failure) -> Error {
    let name = spec.name.clone();
    match failure.error {
        qmp::Error::Refused(message) => {
            Error::Refused { name, command: failure.action.to_owned(), message }
        }
        qmp::Error::Late(patience) => {
            Error::Late { name, action: failure.action.to_owned(), seconds: patience.as_secs() }
        }
        qmp::Error::Closed => {
            // The socket can end a moment before the process has written why.
            let _ = timeout(Duration::from_secs(1), process.exited()).await;
            let path = spec.directory.path().join(file::LOG);
            let message = log_tail(&path).unwrap_or_else(|error| error.to_string());
            let message = if message.is_empty() { "it said nothing".into() } else { message };
            Error::Ended { name, message }
        }
    }
}

fn log_tail(path: &std::path::Path) -> io::Result<String> {
    let mut log = std::fs::File::open(path)?;
    let length = log.metadata()?.len();
    log.seek(SeekFrom::Start(length.saturating_sub(MESSAGE_MAX)))?;
    let mut tail = Vec::new();
    log.take(MESSAGE_MAX).read_to_end(&mut tail)?;
    Ok(String::from_utf8_lossy(&tail).trim().to_owned())
}

async fn end(spec: &MachineSpec, process: &Process) -> Result<(), Error> {
    process.kill().map_err(|source| Error::Io {
        name: spec.name.clone(),
        action: "end QEMU",
        source,
    })?;
    timeout(KILL_PATIENCE, process.exited()).await.map_err(|_| Error::Late {
        name: spec.name.clone(),
        action: "its end".into(),
        seconds: KILL_PATIENCE.as_secs(),
    })
}

async fn restore(qmp: &Qmp, start: Start) -> Result<(), Failure> {
    let Start::Restore(saved) = start else { return Ok(()) };
    let failed = |action| move |error| Failure { action, error };
    ignore_shared(qmp, saved).await.map_err(failed("migrate-set-capabilities"))?;
    let uri = json!({ "uri": format!("file:{}", file::STATE) });
    let action = "migrate-incoming";
    qmp.execute(action, uri, ANSWER_PATIENCE).await.map_err(failed(action))?;
    let status = |answer: &Value| match answer["status"].as_str() {
        Some("inmigrate") => None,
        Some("paused" | "prelaunch") => Some(Ok(())),
        other => Some(Err(qmp::Error::Refused(format!("the state leads to {other:?}")))),
    };
    poll(qmp, "query-status", status).await.map_err(failed(action))
}

/// Gives up a state that is being written, and tells whether the processors are stopped.
async fn rest(qmp: &Qmp) -> Result<bool, Failure> {
    let failed = |action| move |error| Failure { action, error };
    // Nothing happens where no state is being written.
    let action = "migrate_cancel";
    qmp.execute(action, json!({}), ANSWER_PATIENCE).await.map_err(failed(action))?;
    let ended = |answer: &Value| match answer["status"].as_str() {
        None | Some("none" | "completed" | "failed" | "cancelled") => Some(Ok(())),
        _ => None,
    };
    poll(qmp, "query-migrate", ended).await.map_err(failed("query-migrate"))?;
    let mut is_paused = false;
    let settled = |answer: &Value| match answer["status"].as_str() {
        Some("finish-migrate") => None,
        Some("running") => Some(Ok(false)),
        // A machine of an agent that had errors of its disk stop it waits to be resumed.
        Some("paused" | "prelaunch" | "postmigrate" | "io-error") => Some(Ok(true)),
        // What it said at that moment nobody has heard.
        Some("shutdown" | "guest-panicked" | "internal-error") => {
            qmp.note_shut_down();
            Some(Ok(false))
        }
        other => Some(Err(qmp::Error::Refused(format!("it cannot go on from {other:?}")))),
    };
    let status = |answer: &Value| {
        let settled = settled(answer)?;
        Some(settled.map(|paused| is_paused = paused))
    };
    poll(qmp, "query-status", status).await.map_err(failed("query-status"))?;
    Ok(is_paused)
}

async fn ignore_shared(qmp: &Qmp, saved: Saved) -> Result<(), qmp::Error> {
    let state = saved == Saved::Devices;
    let capabilities =
        json!({ "capabilities": [{ "capability": "x-ignore-shared", "state": state }] });
    qmp.execute("migrate-set-capabilities", capabilities, ANSWER_PATIENCE).await?;
    Ok(())
}

/// Asks again and again until `finished` finds an end in the answer.
async fn poll(
    qmp: &Qmp,
    command: &'static str,
    mut finished: impl FnMut(&Value) -> Option<Result<(), qmp::Error>>,
) -> Result<(), qmp::Error> {
    let deadline = Instant::now() + MIGRATION_PATIENCE;
    let mut pause = POLL.0;
    loop {
        let answer = qmp.execute(command, json!({}), ANSWER_PATIENCE).await?;
        if let Some(end) = finished(&answer) {
            return end;
        }
        if Instant::now() > deadline {
            return Err(qmp::Error::Late(MIGRATION_PATIENCE));
        }
        sleep(pause).await;
        pause = POLL.1.min(pause * 2);
    }
}

async fn save(qmp: &Qmp, saved: Saved) -> Result<(), qmp::Error> {
    ignore_shared(qmp, saved).await?;
    // The default limit is meant for a network.
    let unlimited = json!({ "max-bandwidth": 1_u64 << 40 });
    qmp.execute("migrate-set-parameters", unlimited, ANSWER_PATIENCE).await?;
    let uri = json!({ "uri": format!("file:{}", file::STATE) });
    qmp.execute("migrate", uri, ANSWER_PATIENCE).await?;
    let status = |answer: &Value| match answer["status"].as_str() {
        Some("completed") => Some(Ok(())),
        Some("failed" | "cancelled") => {
            let why = answer["error-desc"].as_str().unwrap_or("no reason given");
            Some(Err(qmp::Error::Refused(why.to_owned())))
        }
        _ => None,
    };
    poll(qmp, "query-migrate", status).await
}

#[async_trait]
impl Machine for QemuMachine {
    fn pid(&self) -> u32 {
        self.process.pid()
    }

    fn guest_socket(&self) -> PathBuf {
        self.short.join(file::GUEST_SOCKET)
    }

    async fn pause(&self) -> Result<(), Error> {
        self.execute("stop", json!({}), ANSWER_PATIENCE).await.map(drop)
    }

    async fn resume(&self) -> Result<(), Error> {
        self.execute("cont", json!({}), ANSWER_PATIENCE).await.map(drop)
    }

    async fn save(&self, what: Saved) -> Result<(), Error> {
        self.spec.directory.add(file::STATE, 0).map_err(|source| Error::Io {
            name: self.spec.name.clone(),
            action: "make room for its state",
            source,
        })?;
        let failure = match save(&self.qmp, what).await {
            Ok(()) => return Ok(()),
            Err(error) => Failure { action: "migrate", error },
        };
        Err(explain(&self.spec, &self.process, failure).await)
    }

    async fn console_tail(&self, bytes: usize) -> String {
        let arguments = json!({
            "device": "console", "size": console::RING_BYTES, "format": "base64",
        });
        let Ok(answer) = self.execute("ringbuf-read", arguments, ANSWER_PATIENCE).await else {
            return String::new();
        };
        let encoded = answer.as_str().unwrap_or_default();
        let raw = base64::engine::general_purpose::STANDARD.decode(encoded).unwrap_or_default();
        console::tail(&raw, bytes)
    }

    async fn ended(&self) -> Ending {
        tokio::select! {
            () = self.qmp.shut_down() => Ending::Guest,
            () = self.process.exited() => Ending::Process,
        }
    }

    async fn kill(&self) -> Result<(), Error> {
        end(&self.spec, &self.process).await
    }
}
