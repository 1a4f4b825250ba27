//! One control group per command: what makes "kill it with all its descendants" true, also for those
//! that took a session of their own.
//!
//! ```text
//!  /sys/fs/cgroup/guest-agent      this program: as much of the processors as all commands, memory of its own
//!  /sys/fs/cgroup/ovenbird         all commands: memory, processes
//!  /sys/fs/cgroup/ovenbird/exec-N  one command: processes
//! ```
//!
//! The limits keep this program answering, whatever the commands do; they guard nothing else, for a command of root
//! can change them. Memory is limited for all commands together only: a group that counts memory stays in the kernel
//! as long as a page of any file that it read first, and a sandbox can run thousands of commands.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::console::say;

const ROOT: &str = "/sys/fs/cgroup";
const OWN: &str = "/sys/fs/cgroup/guest-agent";
const PARENT: &str = "/sys/fs/cgroup/ovenbird";
const MIB: u64 = 1024 * 1024;
/// A process that was killed by SIGKILL, as shells count.
const KILLED: i32 = 137;

/// What commands may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Limits {
    /// Kept for this program and the kernel, in bytes.
    reserve: u64,
    /// All commands' memory, in bytes.
    memory: u64,
    /// All commands' processes and threads.
    all_pids: u64,
    /// One command's.
    pids: u64,
}

impl Limits {
    /// Of a machine with this much memory, and this much of it free, in bytes.
    fn of(total: u64, available: u64) -> Self {
        let reserve = (total / 32).clamp(12 * MIB, 64 * MIB);
        // A process takes some 250 KiB at least, so that not even all that there may be use up the memory. A second
        // command can always start beside one that has used up its own.
        let pids = (total / MIB).clamp(256, 16_384);
        let memory = available.saturating_sub(reserve).max(total / 2);
        Self { reserve, memory, all_pids: pids + pids / 2, pids }
    }
}

/// The groups of all commands.
#[derive(Debug)]
pub(crate) struct Cgroups {
    parent: PathBuf,
    bounds: Option<Arc<Bounds>>,
}

/// Limits that hold.
#[derive(Debug)]
struct Bounds {
    limits: Limits,
    /// What the kernel counts of all commands' memory.
    events: File,
}

impl Bounds {
    /// Makes the limits hold. Single-threaded, with nothing started yet.
    fn set(limits: Limits) -> io::Result<Self> {
        let write =
            |group: &str, file: &str, value: &str| fs::write(format!("{group}/{file}"), value);
        write(OWN, "cgroup.procs", "0")?;
        write(ROOT, "cgroup.subtree_control", "+cpu +memory +pids")?;
        write(OWN, "memory.min", &limits.reserve.to_string())?;
        write(PARENT, "memory.max", &limits.memory.to_string())?;
        write(PARENT, "pids.max", &limits.all_pids.to_string())?;
        write(PARENT, "cgroup.subtree_control", "+pids")?;
        Ok(Self { limits, events: File::open(format!("{PARENT}/memory.events"))? })
    }

    /// Processes that were killed for want of memory, since the boot.
    fn oom_kills(&self) -> u64 {
        let mut text = [0; 256];
        let length = self.events.read_at(&mut text, 0).unwrap_or(0);
        count(&String::from_utf8_lossy(&text[..length]), "oom_kill")
    }
}

/// A line of a file of events.
fn count(events: &str, name: &str) -> u64 {
    let mut lines = events.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(key, _)| *key == name).and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
}

impl Cgroups {
    /// Makes this program's group and the commands' parent, with limits for a machine of this memory. cgroup2 is
    /// mounted by then. A kernel without the controllers gives no limits, and commands all the same.
    pub(crate) fn create(total: u64, available: u64) -> io::Result<Self> {
        for group in [OWN, PARENT] {
            fs::create_dir_all(group)?;
        }
        let bounds = Bounds::set(Limits::of(total, available));
        let bounds = bounds.inspect_err(|error| {
            say!("commands run without limits of memory and processes: {error}")
        });
        Ok(Self { parent: PathBuf::from(PARENT), bounds: bounds.ok().map(Arc::new) })
    }

    /// Makes the group of one command.
    pub(super) fn add(&self, number: u64) -> io::Result<Cgroup> {
        let path = self.parent.join(format!("exec-{number}"));
        fs::create_dir(&path)?;
        let mut oom_kills = 0;
        if let Some(bounds) = &self.bounds {
            oom_kills = bounds.oom_kills();
            // Not there any more when a command has changed the parent: others run all the same.
            let _ = fs::write(path.join("pids.max"), bounds.limits.pids.to_string());
        }
        Ok(Cgroup { path, bounds: self.bounds.clone(), oom_kills })
    }

    /// Removes the groups that nobody is in any more, but for those of commands whose end is still to be told. One
    /// that background children live in stays.
    pub(super) fn sweep(&self, running: &[&Cgroup]) {
        let Ok(entries) = fs::read_dir(&self.parent) else { return };
        for entry in entries.flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir())
                && !running.iter().any(|group| group.path == path)
            {
                let _ = fs::remove_dir(entry.path());
            }
        }
    }
}

/// The group of one command. It outlives this value: see [`Cgroups::sweep`].
#[derive(Debug)]
pub(super) struct Cgroup {
    path: PathBuf,
    bounds: Option<Arc<Bounds>>,
    /// When it was made.
    oom_kills: u64,
}

impl Cgroup {
    /// The file that a process writes itself into.
    pub(super) fn door(&self) -> io::Result<File> {
        OpenOptions::new().write(true).open(self.path.join("cgroup.procs"))
    }

    /// Kills everything in it, at once and without a race against fork.
    pub(super) fn kill(&self) -> io::Result<()> {
        gone_is_done(fs::write(self.path.join("cgroup.kill"), "1"))
    }

    /// The processes in it.
    pub(super) fn processes(&self) -> io::Result<Vec<i32>> {
        match fs::read_to_string(self.path.join("cgroup.procs")) {
            Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).collect()),
            Err(error) => gone_is_done(Err(error)).map(|()| Vec::new()),
        }
    }

    /// Which limit a command ran into that has ended badly, if it was one. Memory counts for every command that ends
    /// badly while it runs out.
    pub(super) fn blame(&self, code: i32, timed_out: bool) -> Option<String> {
        let bounds = self.bounds.as_ref()?;
        let Limits { memory, pids, .. } = bounds.limits;
        if code == 0 && !timed_out {
            return None;
        }
        if bounds.oom_kills() > self.oom_kills {
            let what = if code == KILLED && !timed_out {
                "killed: out of memory"
            } else {
                "out of memory: a process was killed"
            };
            let memory = memory / MIB;
            return Some(format!(
                "{what} (commands of this guest can use {memory} MiB; use a larger memory_mb)"
            ));
        }
        let events = fs::read_to_string(self.path.join("pids.events")).unwrap_or_default();
        (count(&events, "max") > 0).then(|| {
            format!(
                "it could start no more processes ({pids} at once; use a larger memory_mb for more)"
            )
        })
    }

    /// Removes a group that was never entered.
    pub(super) fn remove(&self) {
        let _ = fs::remove_dir(Path::new(&self.path));
    }
}

/// A group that was swept has nobody left to kill.
fn gone_is_done(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                || error.raw_os_error() == Some(libc::ENODEV) =>
        {
            Ok(())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_leave_room_for_this_program_and_processes_grow_with_the_memory() {
        let small = Limits::of(222 * MIB, 190 * MIB);
        assert_eq!((small.memory, small.pids, small.all_pids), (178 * MIB, 256, 384));
        let large = Limits::of(8000 * MIB, 7900 * MIB);
        assert_eq!((large.memory, large.pids), (7836 * MIB, 8000));
        // Whatever the kernel says is free.
        assert_eq!(Limits::of(100 * MIB, 0).memory, 50 * MIB);
    }

    #[test]
    fn events_are_counted_by_their_whole_name() {
        let events = "low 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n";
        assert_eq!(
            (count(events, "oom_kill"), count(events, "oom"), count(events, "max")),
            (2, 3, 12)
        );
        assert_eq!(count("", "max"), 0);
    }
}
