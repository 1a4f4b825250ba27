//! Child processes that never outlive us.
//!
//! A child is started by `setpriv --pdeathsig …`, which replaces itself by the program: when this process
//! ends, however it ends, the kernel sends the child that signal. The kernel watches the *thread* that
//! forked, so one thread that lives as long as the process starts them all (a runtime's worker may end
//! earlier). Each child has a process group of its own, so that a Ctrl-C reaches us alone and we end them in
//! order. Nobody is ever killed by name.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, OpenOptions},
    future::Future,
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{LazyLock, mpsc},
    time::{Duration, Instant},
};

use anyhow::Context;
use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::{Gid, Pid, Uid},
};

type Spawn = (Command, mpsc::Sender<io::Result<Child>>);

static SPAWNER: LazyLock<mpsc::Sender<Spawn>> = LazyLock::new(|| {
    let (sender, receiver) = mpsc::channel::<Spawn>();
    std::thread::Builder::new()
        .name("spawner".into())
        .spawn(move || {
            for (mut command, answer) in receiver {
                // Whoever asked may have given up; the handle is then dropped here and the child with it.
                if let Err(mpsc::SendError(Ok(mut child))) = answer.send(command.spawn()) {
                    let _ = child.kill();
                    let _ = child.wait();
                }
            }
        })
        .expect("a process that cannot start one thread cannot start children either");
    sender
});

/// What to run.
#[derive(Debug, Clone)]
pub struct Program {
    /// Short name, for messages.
    pub name: String,
    /// The program.
    pub path: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Variables added to our environment.
    pub env: Vec<(OsString, OsString)>,
    /// The user and group to run as; ours if absent.
    pub user: Option<(Uid, Gid)>,
    /// Working directory; `/` if absent.
    pub dir: Option<PathBuf>,
    /// Where stdout and stderr are appended.
    pub log: PathBuf,
    /// The signal the kernel sends it when we die. Another than SIGKILL also comes first when its handle is
    /// dropped: it then has five seconds.
    pub death_signal: Signal,
    /// The signal with which it ends in order.
    pub stop_signal: Signal,
}

impl Program {
    /// A program that ends on SIGTERM and is killed when we die.
    pub fn new(name: impl Into<String>, path: impl Into<PathBuf>, log: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            path: path.into(),
            args: Vec::new(),
            env: Vec::new(),
            user: None,
            dir: None,
            log: log.into(),
            death_signal: Signal::SIGKILL,
            stop_signal: Signal::SIGTERM,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Adds a variable to the environment.
    #[must_use]
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((key.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    fn command(&self, log: File) -> io::Result<Command> {
        let mut command = Command::new("setpriv");
        command.arg("--pdeathsig").arg(self.death_signal.as_str().trim_start_matches("SIG"));
        if let Some((user, group)) = self.user {
            command
                .arg(format!("--reuid={user}"))
                .arg(format!("--regid={group}"))
                .arg("--clear-groups");
        }
        command
            .arg("--")
            .arg(&self.path)
            .args(&self.args)
            .envs(self.env.iter().map(|(key, value)| (key, value)))
            .current_dir(self.dir.as_deref().unwrap_or(Path::new("/")))
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        Ok(command)
    }
}

/// A running child; killed and reaped when dropped.
#[derive(Debug)]
pub struct Process {
    program: Program,
    child: Child,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts `program`.
    ///
    /// # Errors
    /// When its log or the process cannot be made.
    pub fn start(program: Program) -> anyhow::Result<Self> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&program.log)
            .with_context(|| format!("open {}", program.log.display()))?;
        let (answer, child) = mpsc::channel();
        SPAWNER.send((program.command(log)?, answer)).context("the spawner thread has ended")?;
        let child = child
            .recv()
            .context("the spawner thread has ended")?
            .with_context(|| format!("start {} by setpriv (package util-linux)", program.name))?;
        Ok(Self { program, child, status: None })
    }

    /// What runs.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().ok().flatten();
        }
        self.status
    }

    /// Sends a signal; nothing happens when it has ended.
    pub fn signal(&mut self, signal: Signal) {
        if self.ended().is_none() {
            // Not yet reaped, so the id is still its own.
            let _ = kill(Pid::from_raw(self.child.id().cast_signed()), signal);
        }
    }

    /// Sends a signal to it and to the children it started in its process group.
    pub fn signal_all(&mut self, signal: Signal) {
        if self.ended().is_none() {
            // Not yet reaped, so the id is still its own, and that of its group.
            let _ = killpg(Pid::from_raw(self.child.id().cast_signed()), signal);
        }
    }

    /// Its end, waited for until `deadline`.
    pub async fn wait(&mut self, deadline: Duration) -> Option<ExitStatus> {
        let end = Instant::now() + deadline;
        loop {
            if let Some(status) = self.ended() {
                return Some(status);
            }
            if Instant::now() >= end {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Returns once `probe` says true.
    ///
    /// # Errors
    /// When it ended, or `deadline` passed, before that; the message holds the end of its log.
    pub async fn ready<F, Fut>(&mut self, deadline: Duration, mut probe: F) -> anyhow::Result<()>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = bool>,
    {
        let end = Instant::now() + deadline;
        loop {
            let asked = tokio::time::timeout(deadline, probe()).await;
            if asked == Ok(true) {
                return Ok(());
            }
            if let Some(status) = self.ended() {
                anyhow::bail!(
                    "{} ended ({status}) at its start:\n{}",
                    self.program.name,
                    self.log_tail(20)
                );
            }
            if Instant::now() >= end {
                let name = &self.program.name;
                anyhow::bail!("{name} was not ready within {deadline:?}:\n{}", self.log_tail(20));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends it in order, and by force when `deadline` has passed.
    ///
    /// # Errors
    /// When force was needed.
    pub async fn stop(&mut self, deadline: Duration) -> anyhow::Result<()> {
        self.signal(self.program.stop_signal);
        if self.wait(deadline).await.is_some() {
            return Ok(());
        }
        self.kill();
        anyhow::bail!(
            "{} did not end within {deadline:?} of {} and was killed",
            self.program.name,
            self.program.stop_signal
        )
    }

    /// Kills it, as `kill -9` does, and reaps it.
    pub fn kill(&mut self) {
        if self.ended().is_none() {
            let _ = self.child.kill();
            self.status = self.child.wait().ok();
        }
    }

    /// The last `lines` lines of its log.
    pub fn log_tail(&self, lines: usize) -> String {
        tail(&self.program.log, lines)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Postgres removes its shared memory, an agent its microVMs.
        if self.program.death_signal != Signal::SIGKILL {
            self.signal(self.program.death_signal);
            let end = Instant::now() + Duration::from_secs(5);
            while self.ended().is_none() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        self.kill();
    }
}

/// The last `lines` lines of a file; empty when it cannot be read.
pub fn tail(file: &Path, lines: usize) -> String {
    let text = fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Where the program `name` is in `PATH`, or in one of the folders of the system's own tools, which an
/// unprivileged user's `PATH` leaves out.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}
