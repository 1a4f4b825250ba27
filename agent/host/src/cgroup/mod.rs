//! Control groups: how much of the host one machine can use, whatever happens inside of it.
//!
//! ```text
//!  <parent>/ovenbird-<instance>/<slot>      limits of memory, processors, processes
//!  └ v1: in each hierarchy, below the agent's own group
//!  └ v2: below the delegated group of the agent's service, else below the root
//! ```
//!
//! A machine's process enters before it becomes QEMU, so nothing of it is ever outside. The groups outlive the agent:
//! another one finds them by slot, also where it was started in another group than the one before it.
//!
//! Which version there is decides [`Cgroups::open`]; how it is laid out is `v1`'s and `v2`'s business, and all the
//! rest is the same for both.

mod group;
mod places;
#[cfg(test)]
mod tests;
mod v1;
mod v2;

use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use serde::Deserialize;

use crate::{Instance, Slot};
use places::Host;

pub use group::Group;

/// How often the scheduler looks at a group's processor time, in microseconds.
const PERIOD_US: u64 = 100_000;
/// For killed processes to have left their group.
const LEAVE_PATIENCE: Duration = Duration::from_secs(10);
/// Between two tries of a removal, at first and at most.
const LEAVE_POLL: (Duration, Duration) = (Duration::from_micros(200), Duration::from_millis(50));

/// Whether machines are kept in control groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Where the host can; it is said where it cannot.
    Auto,
    /// Always: a host that cannot is refused.
    Require,
    /// Never.
    Off,
}

/// What one machine may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Memory in bytes, its page cache included; there is no swap on top.
    pub memory_bytes: u64,
    /// Processors' worth of time, and its share where there is not enough for all.
    pub vcpus: u32,
    /// Threads and processes.
    pub pids: u32,
}

/// Groups cannot be used, made or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host has none that fit.
    #[error(
        "control groups cannot be used: {0}; mount cgroup2 with the controllers memory, cpu and pids (a systemd \
         service needs Delegate=yes), or set cgroups = \"off\""
    )]
    Unusable(String),
    /// The kernel refused something.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io { action, path: path.to_owned(), source }
}

/// One file of a group.
#[derive(Debug, PartialEq, Eq)]
struct Setting {
    file: &'static str,
    value: String,
    /// Kernels of some versions or configurations do not have it.
    is_optional: bool,
}

impl Setting {
    fn of(file: &'static str, value: impl ToString) -> Self {
        Self { file, value: value.to_string(), is_optional: false }
    }

    fn where_known(file: &'static str, value: impl ToString) -> Self {
        Self { is_optional: true, ..Self::of(file, value) }
    }

    fn write(&self, group: &Path) -> Result<(), Error> {
        let path = group.join(self.file);
        match OpenOptions::new().write(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.is_optional => Ok(()),
            opened => opened
                .and_then(|mut file| io::Write::write_all(&mut file, self.value.as_bytes()))
                .map_err(failed("set the limit", &path)),
        }
    }
}

/// What a group is given for its limits.
type Settings = fn(&Limits) -> Vec<Setting>;

/// One tree of groups.
#[derive(Debug)]
struct Hierarchy {
    /// The folder of the agent's groups; what an agent that was started elsewhere left comes after it.
    homes: Vec<PathBuf>,
    /// The settings of a group.
    settings: Settings,
    /// Whether memory is counted here.
    has_memory: bool,
}

/// What a version is laid out as.
#[derive(Debug)]
struct Layout {
    version: &'static str,
    hierarchies: Vec<Hierarchy>,
    /// What a process writes "0" into to enter.
    door: &'static str,
    /// Prepares the folder of the agent's groups.
    set_up_home: fn(&Path) -> Result<(), Error>,
    /// Where the kernel counts processes that were killed for want of memory.
    oom_file: &'static str,
    /// What ends all that is in a group when "1" is written into it, where there is such a file.
    kill_file: Option<&'static str>,
}

/// See the module. Cheap to clone. Every method blocks for less than a millisecond, but for [`Cgroups::remove`] of a
/// group whose processes are still on their way out.
#[derive(Debug, Clone)]
pub struct Cgroups {
    layout: Option<Arc<Layout>>,
    reason: String,
}

impl Cgroups {
    /// Finds out what this host has, and prepares it.
    ///
    /// # Errors
    /// [`Error::Unusable`] where groups are required and there are none.
    pub fn open(instance: &Instance, mode: Mode) -> Result<Self, Error> {
        if mode == Mode::Off {
            return Ok(Self { layout: None, reason: "turned off by configuration".into() });
        }
        let home = home_name(instance);
        let opened = Host::look().and_then(|host| {
            let version_2 = v2::layout(&host, &home);
            // Version 2 may be mounted only for its processes, with all controllers in version 1.
            version_2.or_else(|newer| {
                v1::layout(&host, &home).map_err(|older| {
                    let reason = format!("version 2: {}; version 1: {}", why(&newer), why(&older));
                    Error::Unusable(reason)
                })
            })
        });
        match opened {
            Ok(layout) => Ok(Self { reason: String::new(), layout: Some(Arc::new(layout)) }),
            Err(error) if mode == Mode::Require => Err(error),
            Err(error) => Ok(Self { layout: None, reason: why(&error) }),
        }
    }

    /// "v1", "v2" or "none".
    pub fn version(&self) -> &'static str {
        self.layout.as_ref().map_or("none", |layout| layout.version)
    }

    /// Why there are none; empty where there are.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Makes a slot's group with these limits, empty and with its counters at zero; one that somebody is in is kept
    /// and gets the limits. `None` where groups are not used.
    ///
    /// # Errors
    /// Those of the kernel; nothing is left then of what was not there before.
    pub fn ensure(&self, slot: Slot, limits: &Limits) -> Result<Option<Group>, Error> {
        let Some(layout) = &self.layout else { return Ok(None) };
        if let Some(group) = self.find(slot)
            && !group.try_remove()?
        {
            group.set(limits)?;
            return Ok(Some(group));
        }
        let group = Group {
            layout: layout.clone(),
            dirs: layout.hierarchies.iter().map(|h| h.homes[0].join(slot.to_string())).collect(),
        };
        let made = group.make().and_then(|()| group.set(limits));
        if let Err(error) = made {
            group.try_remove()?;
            return Err(error);
        }
        Ok(Some(group))
    }

    /// The group of a slot, if it is there.
    pub fn find(&self, slot: Slot) -> Option<Group> {
        let layout = self.layout.as_ref()?;
        let name = slot.to_string();
        let dirs: Vec<PathBuf> = layout
            .hierarchies
            .iter()
            .map(|hierarchy| {
                let mut places = hierarchy.homes.iter().map(|home| home.join(&name));
                places.find(|dir| dir.is_dir()).unwrap_or_else(|| hierarchy.homes[0].join(&name))
            })
            .collect();
        let is_there = dirs.iter().any(|dir| dir.is_dir());
        is_there.then(|| Group { layout: layout.clone(), dirs })
    }

    /// Ends what is still in the group of a slot, and removes it. None is fine.
    ///
    /// # Errors
    /// When somebody stays in it.
    pub fn remove(&self, slot: Slot) -> Result<(), Error> {
        let deadline = Instant::now() + LEAVE_PATIENCE;
        let mut pause = LEAVE_POLL.0;
        // Once for each home that has one.
        while let Some(group) = self.find(slot) {
            if group.try_remove()? {
                continue;
            }
            group.kill()?;
            if Instant::now() > deadline {
                let source = io::ErrorKind::ResourceBusy.into();
                return Err(failed("remove the control group", &group.dirs[0])(source));
            }
            thread::sleep(pause);
            pause = LEAVE_POLL.1.min(pause * 2);
        }
        Ok(())
    }

    /// Slots with a group.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn list(&self) -> Result<Vec<Slot>, Error> {
        let mut slots = BTreeSet::new();
        for home in self.homes() {
            for dir in dirs_in(home).map_err(failed("list the control groups in", home))? {
                let name = dir.file_name().and_then(|name| name.to_str());
                slots.extend(name.and_then(|name| name.parse().ok()).map(Slot));
            }
        }
        Ok(slots.into_iter().collect())
    }

    /// Removes what the agent itself has made, where no machine is left. They can be used all the same afterwards.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn close(&self) -> Result<(), Error> {
        for home in self.homes() {
            match fs::remove_dir(home) {
                Err(error) if !is_gone(&error) && !is_occupied(&error) => {
                    return Err(failed("remove the control group", home)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn homes(&self) -> impl Iterator<Item = &PathBuf> {
        let hierarchies = self.layout.iter().flat_map(|layout| &layout.hierarchies);
        hierarchies.flat_map(|hierarchy| &hierarchy.homes)
    }
}

fn why(error: &Error) -> String {
    match error {
        Error::Unusable(reason) => reason.clone(),
        Error::Io { source, .. } => format!("{error}: {source}"),
    }
}

fn home_name(instance: &Instance) -> String {
    format!("ovenbird-{instance}")
}

/// Folders in a folder, which may not be there.
fn dirs_in(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if is_gone(&error) => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut dirs = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            dirs.push(entry.path());
        }
    }
    Ok(dirs)
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

fn is_occupied(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBUSY | libc::ENOTEMPTY))
}

impl Layout {
    /// Makes the folder of an agent's groups.
    fn prepare(&self, home: &Path) -> Result<(), Error> {
        match fs::create_dir(home) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed("make the control group", home)(error));
            }
            _ => {}
        }
        (self.set_up_home)(home)
    }
}

/// Processors of this host.
fn cpus() -> u64 {
    thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64)
}
