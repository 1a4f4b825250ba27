//! One control group per command: what makes "kill it with all its descendants" true, also for those
//! that took a session of their own.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
};

const PARENT: &str = "/sys/fs/cgroup/ovenbird";

/// The groups of all commands.
#[derive(Debug)]
pub(crate) struct Cgroups {
    parent: PathBuf,
}

impl Cgroups {
    /// Makes the parent. cgroup2 is mounted by then.
    pub(crate) fn create() -> io::Result<Self> {
        let parent = PathBuf::from(PARENT);
        fs::create_dir_all(&parent)?;
        Ok(Self { parent })
    }

    /// Makes the group of one command.
    pub(super) fn add(&self, number: u64) -> io::Result<Cgroup> {
        let path = self.parent.join(format!("exec-{number}"));
        fs::create_dir(&path)?;
        Ok(Cgroup { path })
    }

    /// Removes the groups that nobody is in any more. One that background children live in stays.
    pub(super) fn sweep(&self) {
        let Ok(entries) = fs::read_dir(&self.parent) else { return };
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let _ = fs::remove_dir(entry.path());
            }
        }
    }
}

/// The group of one command. It outlives this value: see [`Cgroups::sweep`].
#[derive(Debug)]
pub(super) struct Cgroup {
    path: PathBuf,
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
