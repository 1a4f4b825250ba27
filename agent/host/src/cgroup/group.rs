//! The group of one machine: made, limited, emptied, removed.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::{Error, Layout, Limits, failed, is_gone, is_occupied};

/// The group of one slot, in every hierarchy.
#[derive(Debug, Clone)]
pub struct Group {
    pub(super) layout: Arc<Layout>,
    /// In the order of the layout's hierarchies.
    pub(super) dirs: Vec<PathBuf>,
}

impl Group {
    /// Its folders, one in each hierarchy.
    pub fn dirs(&self) -> &[PathBuf] {
        &self.dirs
    }

    /// Opens the ways in: a process writes "0" into each, and is in.
    pub(crate) fn doors(&self) -> io::Result<Vec<File>> {
        let open = |dir: &PathBuf| OpenOptions::new().write(true).open(dir.join(self.layout.door));
        self.dirs.iter().map(open).collect()
    }

    /// Processes of it that were killed because it needed more memory than it may have. 0 when it cannot be read.
    pub fn oom_kills(&self) -> u64 {
        let of = |dir: &PathBuf| {
            let text = fs::read_to_string(dir.join(self.layout.oom_file)).ok()?;
            text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
        };
        let mut hierarchies = self.layout.hierarchies.iter().zip(&self.dirs);
        let memory = hierarchies.find(|(hierarchy, _)| hierarchy.has_memory);
        memory.and_then(|(_, dir)| of(dir)).unwrap_or(0)
    }

    pub(super) fn make(&self) -> Result<(), Error> {
        for (hierarchy, dir) in self.layout.hierarchies.iter().zip(&self.dirs) {
            let make = || match fs::create_dir(dir) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                other => other,
            };
            let made = match make() {
                // Somebody has tidied up since the start.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.layout.prepare(&hierarchy.homes[0])?;
                    make()
                }
                other => other,
            };
            made.map_err(failed("make the control group", dir))?;
        }
        Ok(())
    }

    pub(super) fn set(&self, limits: &Limits) -> Result<(), Error> {
        for (hierarchy, dir) in self.layout.hierarchies.iter().zip(&self.dirs) {
            for setting in (hierarchy.settings)(limits) {
                setting.write(dir)?;
            }
        }
        Ok(())
    }

    /// Ends whoever is in it now. Who is being born may be missed: do it until it can be removed.
    pub(super) fn kill(&self) -> Result<(), Error> {
        for dir in &self.dirs {
            let at_once = self.layout.kill_file.map(|file| dir.join(file));
            match at_once.filter(|path| path.exists()) {
                Some(path) => unless_gone(fs::write(&path, "1"), "end who is in", &path)?,
                None => self.kill_each(dir)?,
            }
        }
        Ok(())
    }

    fn kill_each(&self, dir: &Path) -> Result<(), Error> {
        let path = dir.join("cgroup.procs");
        let text = fs::read_to_string(&path);
        let pids = text.as_deref().unwrap_or_default().lines();
        for pid in pids.filter_map(|pid| Pid::from_raw(pid.parse().ok()?)) {
            // The number may be another's by now, unless it is here still.
            let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
            let is_here = |text: String| text.lines().any(|line| line == pid.to_string());
            if fs::read_to_string(&path).is_ok_and(is_here) {
                // One that has ended meanwhile is fine, and one that cannot be killed is seen by who waits.
                let _ = pidfd_send_signal(pidfd, Signal::KILL);
            }
        }
        unless_gone(text.map(drop), "read", &path)
    }

    /// Removes it where nobody is in it; whether it is gone.
    pub(super) fn try_remove(&self) -> Result<bool, Error> {
        let mut is_gone_everywhere = true;
        for dir in &self.dirs {
            match fs::remove_dir(dir) {
                Ok(()) => {}
                Err(error) if is_gone(&error) => {}
                Err(error) if is_occupied(&error) => is_gone_everywhere = false,
                Err(error) => return Err(failed("remove the control group", dir)(error)),
            }
        }
        Ok(is_gone_everywhere)
    }
}

/// What cannot be done to a group that is gone need not be done.
fn unless_gone(done: io::Result<()>, action: &'static str, path: &Path) -> Result<(), Error> {
    match done {
        Err(error) if !is_gone(&error) => Err(failed(action, path)(error)),
        _ => Ok(()),
    }
}
