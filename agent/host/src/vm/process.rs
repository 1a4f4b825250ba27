//! One QEMU process: started without root's powers, watched and ended through its pidfd.
//!
//! The process is not tied to this one's life: it goes on when the agent ends, until somebody ends it.

use std::{
    fs::File,
    io,
    ops::Range,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd, RawFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::{Interest, unix::AsyncFd};

use crate::Identity;

/// For a killed process to be gone, in milliseconds.
const KILL_PATIENCE: u16 = 10_000;

/// What to start, and as whom.
pub(super) struct Launch<'a> {
    pub(super) program: &'a str,
    pub(super) arguments: &'a [String],
    /// Its working directory.
    pub(super) directory: &'a Path,
    pub(super) identity: Identity,
    /// No file can grow beyond this by what the process writes.
    pub(super) file_bytes_max: u64,
    /// A further group: that of `/dev/kvm`, where it is used.
    pub(super) group: Option<u32>,
    /// What the process writes "0" into before anything else, to be in its control group.
    pub(super) doors: &'a [File],
    /// Open descriptors, inherited under the numbers they have here, which `arguments` name.
    pub(super) inherited: &'a [RawFd],
    pub(super) log: File,
}

impl Launch<'_> {
    /// Starts the process in the network namespace of the calling thread.
    pub(super) fn spawn(self) -> io::Result<Child> {
        let mut command = Command::new(self.program);
        command
            .args(self.arguments)
            .env_clear()
            .current_dir(self.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(self.log);
        let inherited = self.inherited.to_owned();
        let doors: Vec<RawFd> = self.doors.iter().map(AsRawFd::as_raw_fd).collect();
        let (identity, group, bytes) = (self.identity, self.group, self.file_bytes_max);
        #[allow(unsafe_code)]
        // SAFETY: between fork and exec only system calls are made, on numbers and on memory that was
        // allocated before; no lock is taken and nothing is allocated.
        unsafe {
            command.pre_exec(move || {
                enter(&doors)?;
                bound_files(bytes)?;
                give_up_powers(identity, group.as_slice(), &inherited)
            });
        }
        command.spawn()
    }
}

fn checked(result: libc::c_int) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// `struct __user_cap_header_struct` and `__user_cap_data_struct` of capset(2).
#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: libc::c_int,
}
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// Puts the calling process, which has one thread, into its control group.
#[allow(unsafe_code)]
fn enter(doors: &[RawFd]) -> io::Result<()> {
    for door in doors {
        // SAFETY: a plain system call; the byte is a constant. Open files are closed by exec.
        if unsafe { libc::write(*door, c"0".as_ptr().cast(), 1) } != 1 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Bounds the length of what the calling process writes. A write beyond it fails and does not end the process, so that
/// a machine outlives a state that is too long.
#[allow(unsafe_code)]
fn bound_files(bytes: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    // SAFETY: plain system calls; the pointer is to a local. What is ignored stays so over exec.
    unsafe {
        if libc::signal(libc::SIGXFSZ, libc::SIG_IGN) == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
        checked(libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit))
    }
}

#[allow(unsafe_code)]
fn give_up_powers(identity: Identity, groups: &[u32], inherited: &[RawFd]) -> io::Result<()> {
    // SAFETY: plain system calls; every pointer is to a local or null where the call allows it.
    unsafe {
        for fd in inherited {
            checked(libc::fcntl(*fd, libc::F_SETFD, 0))?;
        }
        // A session of its own: signals of the agent's terminal are not for the machines.
        checked(libc::setsid())?;
        libc::umask(0o077);
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        checked(libc::setrlimit(libc::RLIMIT_CORE, &raw const none))?;
        for capability in 0..64 {
            if libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) == -1 {
                break; // The kernel knows no more of them.
            }
        }
        checked(libc::setgroups(groups.len(), groups.as_ptr()))?;
        checked(libc::setresgid(identity.gid, identity.gid, identity.gid))?;
        checked(libc::setresuid(identity.uid, identity.uid, identity.uid))?;
        let header = CapabilityHeader { version: CAPABILITY_VERSION_3, pid: 0 };
        let no_capabilities = [0_u32; 6];
        if libc::syscall(libc::SYS_capset, &raw const header, no_capabilities.as_ptr()) == -1 {
            return Err(io::Error::last_os_error());
        }
        checked(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    }
}

fn watch(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    #[allow(unsafe_code)]
    // SAFETY: an OwnedFd stays open, and the same, until it is dropped with the AsyncFd.
    let watched = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) };
    Ok(watched?)
}

/// A process that was started, or found.
#[derive(Debug)]
pub(super) struct Process {
    pid: Pid,
    pidfd: AsyncFd<OwnedFd>,
    child: Mutex<Option<Child>>,
}

impl Process {
    /// Takes over a child.
    pub(super) fn of_child(mut child: Child) -> io::Result<Self> {
        let pid = Pid::from_child(&child);
        match pidfd_open(pid, PidfdFlags::NONBLOCK).map_err(io::Error::from).and_then(watch) {
            Ok(pidfd) => Ok(Self { pid, pidfd, child: Mutex::new(Some(child)) }),
            Err(error) => {
                child.kill()?;
                child.wait()?;
                Err(error)
            }
        }
    }

    /// The one process of a user that works in a directory; none when there is not exactly one.
    pub(super) fn find(dir: &Path, user: u32) -> io::Result<Option<Self>> {
        let found = others()?.into_iter().filter(|process| process.is_of(dir, user));
        let mut found = found.collect::<Vec<_>>();
        match (found.pop(), found.is_empty()) {
            (Some(Found { pid, pidfd, .. }), true) => {
                Ok(Some(Self { pid, pidfd: watch(pidfd)?, child: Mutex::new(None) }))
            }
            _ => Ok(None),
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().cast_unsigned()
    }

    /// Waits until the process has ended, and reaps it when it is a child.
    pub(super) async fn exited(&self) {
        // An error would mean that the runtime is going down: nobody waits then.
        let _ = self.pidfd.readable().await;
        let mut child = self.child.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(ended) = child.as_mut()
            && !matches!(ended.try_wait(), Ok(None))
        {
            *child = None;
        }
    }

    /// Ends the process at once. One that has ended is fine.
    pub(super) fn kill(&self) -> io::Result<()> {
        match pidfd_send_signal(&self.pidfd, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// A process of a user other than root.
struct Found {
    pid: Pid,
    /// From here on it is this very process, whatever becomes of the number.
    pidfd: OwnedFd,
    /// Where it works; `None` when its first thread has ended and others go on.
    dir: Option<PathBuf>,
    user: u32,
}

impl Found {
    fn id(&self) -> u32 {
        self.pid.as_raw_nonzero().get().cast_unsigned()
    }

    fn is_below(&self, root: &Path) -> bool {
        self.dir.as_ref().is_some_and(|dir| dir.starts_with(root))
    }

    fn is_of(&self, dir: &Path, user: u32) -> bool {
        self.user == user && self.dir.as_deref() == Some(dir)
    }

    /// Ends it and waits for that. Blocking.
    fn kill(&self) -> io::Result<()> {
        match pidfd_send_signal(&self.pidfd, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
        if has_ended(&self.pidfd, KILL_PATIENCE)? {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "a killed process does not go"))
    }
}

/// All processes of users other than root that run.
fn others() -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let Some(pid) = Pid::from_raw(pid) else { continue };
        let path = Path::new("/proc").join(&name);
        // The pidfd comes first: what is read afterwards is about no other process.
        let Ok(pidfd) = pidfd_open(pid, PidfdFlags::NONBLOCK) else { continue };
        let status = std::fs::read_to_string(path.join("status")).ok();
        let Some(user) = status.and_then(|status| user_in(&status)) else { continue };
        let dir = std::fs::read_link(path.join("cwd")).ok();
        if user != 0 && !has_ended(&pidfd, 0)? {
            found.push(Found { pid, pidfd, dir, user });
        }
    }
    Ok(found)
}

/// How many processes of a user work in a directory: a machine that runs is one.
///
/// # Errors
/// Those of the kernel.
pub fn count_in(dir: &Path, user: u32) -> io::Result<usize> {
    Ok(others()?.iter().filter(|process| process.is_of(dir, user)).count())
}

/// Ends every machine whose working directory is below `root`, and waits for them. Blocking. Returns their ids.
///
/// Nobody but root and the machines can be in there, and a person's root shell is left alone. This finds machines
/// that an agent left behind when it was killed, even when it died before it had noted their ids.
///
/// # Errors
/// Those of the kernel, and `TimedOut` when one does not go.
pub fn kill_all_below(root: &Path) -> io::Result<Vec<u32>> {
    kill(others()?.into_iter().filter(|process| process.is_below(root)))
}

/// Ends every process of a machine's user, which nobody else has, and waits for them. Blocking. Returns their ids.
///
/// Wherever they work: a QEMU that its guest has taken over can go to another directory.
///
/// # Errors
/// Those of the kernel, and `TimedOut` when one does not go.
pub fn kill_all_of(user: u32) -> io::Result<Vec<u32>> {
    kill(others()?.into_iter().filter(|process| process.user == user))
}

/// Ends every process that works below `root`, also in a directory that is gone, or that has one of the `users`, and
/// is no machine to keep: those are known by directory and user. Blocking. Returns their ids.
///
/// # Errors
/// Those of the kernel, and `TimedOut` when one does not go.
pub fn kill_strays(
    root: &Path,
    users: &Range<u32>,
    keep: &[(PathBuf, u32)],
) -> io::Result<Vec<u32>> {
    let is_ours = |process: &Found| process.is_below(root) || users.contains(&process.user);
    let is_kept = |process: &Found| keep.iter().any(|(dir, user)| process.is_of(dir, *user));
    kill(others()?.into_iter().filter(|process| is_ours(process) && !is_kept(process)))
}

fn kill(processes: impl Iterator<Item = Found>) -> io::Result<Vec<u32>> {
    processes.map(|process| process.kill().map(|()| process.id())).collect()
}

/// The effective user in a `/proc/<pid>/status`.
fn user_in(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Whether all threads of a process end within this time. Blocking.
fn has_ended(pidfd: &OwnedFd, patience_ms: u16) -> io::Result<bool> {
    let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    Ok(poll(&mut fds, PollTimeout::from(patience_ms))? != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process that works in `/` as a user that nobody else has, also of another run of this test.
    fn elsewhere(number: u32) -> (Child, u32) {
        let user = 40_000_000 + std::process::id() * 4 + number;
        let mut command = Command::new("sleep");
        let child = command.arg("600").current_dir("/").uid(user).gid(user).spawn().unwrap();
        (child, user)
    }

    #[test]
    fn process_of_a_machines_user_is_ended_wherever_it_works() {
        let (mut child, user) = elsewhere(0);
        let root = tempfile::tempdir().unwrap();
        assert!(kill_all_below(root.path()).unwrap().is_empty());
        assert!(kill_all_of(user + 1).unwrap().is_empty());
        assert_eq!(kill_all_of(user).unwrap(), [child.id()]);
        // It has ended, though it is not reaped.
        assert!(kill_all_of(user).unwrap().is_empty());
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn stray_is_known_by_its_user_unless_it_is_kept_where_it_works() {
        let (mut child, user) = elsewhere(2);
        let root = tempfile::tempdir().unwrap();
        let strays = |keep: &str| {
            kill_strays(root.path(), &(user..user + 1), &[(keep.into(), user)]).unwrap()
        };
        assert!(strays("/").is_empty());
        assert!(kill_strays(root.path(), &(user + 1..user + 2), &[]).unwrap().is_empty());
        assert_eq!(strays("/data/sandboxes/a"), [child.id()]);
        assert!(!child.wait().unwrap().success());
    }
}
