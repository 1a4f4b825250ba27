//! Starts one command: its own session and control group, the user's identity, two pipes.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::process::CommandExt,
    },
    process::{Command, Stdio},
};

use nix::{fcntl::OFlag, unistd::pipe2};
use ovenbird_guest_protocol::v1::{ExecContext, StartExecRequest};
use tokio::{net::unix::pipe::Receiver, sync::oneshot};

use super::{
    cgroup::Cgroup,
    reaper::{Code, Reaper},
};
use crate::{
    console::Chain,
    error::Error,
    users::{self, User},
};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A command that runs.
pub(super) struct Launched {
    pub(super) pid: u32,
    pub(super) exit: oneshot::Receiver<Code>,
    pub(super) stdout: Receiver,
    pub(super) stderr: Receiver,
}

/// Why a command could not be started, as its end says it.
#[derive(Debug)]
pub(super) struct NotStarted {
    /// 127 when the program is missing, else 126: as shells have it.
    pub(super) code: Code,
    pub(super) error: String,
}

impl NotStarted {
    fn because(error: &dyn std::error::Error) -> Self {
        Self { code: 126, error: Chain(error).to_string() }
    }

    fn in_workdir(workdir: &str, problem: impl std::fmt::Display) -> Self {
        Self { code: 126, error: format!("workdir {workdir}: {problem}") }
    }
}

/// Refuses what no system could run, before anything is started.
pub(super) fn check(request: &StartExecRequest) -> Result<(), Error> {
    let id = request.exec_id.as_bytes();
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"._:-".contains(byte);
    if id.is_empty() || id.len() > 128 || !id.iter().all(allowed) {
        return Err(Error::argument("exec_id", "is 1 to 128 of [A-Za-z0-9._:-]"));
    }
    if request.cmd.is_empty() {
        return Err(Error::argument("cmd", "is empty"));
    }
    if request.cmd.contains('\0') || request.args.iter().any(|arg| arg.contains('\0')) {
        return Err(Error::argument("cmd and args", "must not contain NUL"));
    }
    let Some(context) = &request.context else { return Ok(()) };
    for (name, value) in &context.env {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(Error::argument("env", "has a name or value that no environment can hold"));
        }
    }
    if !context.workdir.is_empty() {
        crate::files::check_path("workdir", &context.workdir)?;
    }
    if context.user.contains([':', '\0', '\n']) {
        return Err(Error::argument("user", "is not a user's name"));
    }
    Ok(())
}

/// Starts it. The request has passed [`check`].
pub(super) fn launch(
    request: &StartExecRequest,
    cgroup: &Cgroup,
    reaper: &Reaper,
) -> Result<Launched, NotStarted> {
    let none = ExecContext::default();
    let context = request.context.as_ref().unwrap_or(&none);
    let user = users::find(&context.user).map_err(|error| NotStarted::because(&error))?;
    let workdir = if context.workdir.is_empty() { "/" } else { context.workdir.as_str() };
    // Looked at here, because a failed exec does not tell a missing folder from a missing program.
    match fs::metadata(workdir) {
        Ok(meta) if meta.is_dir() => {}
        Ok(_) => return Err(NotStarted::in_workdir(workdir, "not a folder")),
        Err(error) => return Err(NotStarted::in_workdir(workdir, error)),
    }
    let (stdout, stdout_end) = pipe().map_err(|error| NotStarted::because(&error))?;
    let (stderr, stderr_end) = pipe().map_err(|error| NotStarted::because(&error))?;
    let door = cgroup.door().map_err(|error| NotStarted::because(&error))?;
    let mut command = Command::new(&request.cmd);
    command
        .args(&request.args)
        .env_clear()
        .envs(environment(&user, context))
        .current_dir(workdir)
        .stdin(Stdio::null())
        .stdout(stdout_end)
        .stderr(stderr_end);
    enter_own_world(&mut command, &door, user);
    let (pid, exit) = reaper.start(|| command.spawn()).map_err(|error| NotStarted {
        code: if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 },
        error: format!("{}: {error}", request.cmd),
    })?;
    Ok(Launched { pid, exit, stdout, stderr })
}

/// A pipe: our end never blocks, the command's end does.
fn pipe() -> io::Result<(Receiver, OwnedFd)> {
    let (ours, theirs) = pipe2(OFlag::O_CLOEXEC)?;
    Ok((Receiver::from_owned_fd(ours)?, theirs))
}

fn environment(user: &User, context: &ExecContext) -> BTreeMap<String, String> {
    let mut environment: BTreeMap<_, _> = [
        ("PATH", PATH),
        ("HOME", user.home.as_str()),
        ("USER", user.name.as_str()),
        ("LANG", "C.UTF-8"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    environment.extend(context.env.iter().map(|(name, value)| (name.clone(), value.clone())));
    environment
}

/// What the child does between fork and exec.
#[allow(unsafe_code)]
fn enter_own_world(command: &mut Command, door: &File, user: User) {
    let door = door.as_raw_fd();
    let enter = move || {
        // Raw calls throughout: the C library's own setters would try to carry the change over to
        // threads that the fork did not take along.
        call(libc::SYS_setsid, [0; 3])?;
        write_raw(door, b"0")?;
        forget_oom_protection()?;
        call(libc::SYS_setgroups, [user.groups.len(), user.groups.as_ptr() as usize, 0])?;
        call(libc::SYS_setgid, [user.gid as usize, 0, 0])?;
        call(libc::SYS_setuid, [user.uid as usize, 0, 0])
    };
    // SAFETY: the closure only makes system calls, neither allocating nor taking a lock; the
    // descriptor stays open in `launch` until the child has been spawned.
    unsafe { command.pre_exec(enter) };
}

/// This process is exempt from the out-of-memory killer, and children inherit that.
fn forget_oom_protection() -> io::Result<()> {
    let path = c"/proc/self/oom_score_adj".as_ptr() as usize;
    let flags = usize::try_from(libc::O_WRONLY | libc::O_CLOEXEC).unwrap_or_default();
    let file = call_value(libc::SYS_open, [path, flags, 0])?;
    let file = RawFd::try_from(file).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // Closed by exec.
    write_raw(file, b"0")
}

fn write_raw(file: RawFd, bytes: &[u8]) -> io::Result<()> {
    call(libc::SYS_write, [file as usize, bytes.as_ptr() as usize, bytes.len()])
}

fn call(number: libc::c_long, arguments: [usize; 3]) -> io::Result<()> {
    call_value(number, arguments).map(|_| ())
}

#[allow(unsafe_code)]
fn call_value(number: libc::c_long, [a, b, c]: [usize; 3]) -> io::Result<libc::c_long> {
    // SAFETY: the callers above pass numbers, and addresses of memory that outlives the call.
    let value = unsafe { libc::syscall(number, a, b, c) };
    if value < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}
