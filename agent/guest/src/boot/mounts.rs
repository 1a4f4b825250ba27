//! The mounts of the machine: kernel file systems first, then the root disk in their place, then what
//! a Linux userland expects.

use std::{fs, io, path::Path};

use nix::{
    mount::{MsFlags, mount},
    unistd::{chdir, chroot},
};

/// Where the root disk is mounted before it becomes `/`.
pub(super) const NEW_ROOT: &str = "/newroot";

/// A mount failed.
#[derive(Debug, thiserror::Error)]
#[error("mounting {path}")]
pub(crate) struct Error {
    path: String,
    source: io::Error,
}

fn failed(path: &str, source: impl Into<io::Error>) -> Error {
    Error { path: path.to_owned(), source: source.into() }
}

const SAFE: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

/// Mounts what the rest of the boot reads.
pub(super) fn early() -> Result<(), Error> {
    kernel_fs("proc", "/proc", SAFE, "")?;
    kernel_fs("sysfs", "/sys", SAFE, "")?;
    kernel_fs("devtmpfs", "/dev", MsFlags::MS_NOSUID, "mode=0755")
}

/// Makes the mounted root disk `/`. The initramfs is emptied first: nothing sees it again, and its
/// files are memory of the sandbox. This program goes on from the pages it is running from.
pub(super) fn switch_root() -> Result<(), Error> {
    for path in ["/proc", "/sys", "/dev"] {
        let target = format!("{NEW_ROOT}{path}");
        make_folder(&target)?;
        mount(Some(path), target.as_str(), None::<&str>, MsFlags::MS_MOVE, None::<&str>)
            .map_err(|errno| failed(&target, errno))?;
    }
    let _ = fs::remove_dir_all("/modules");
    let _ = fs::remove_file("/init");
    chdir(NEW_ROOT).map_err(|errno| failed("/", errno))?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)
        .map_err(|errno| failed("/", errno))?;
    chroot(".").map_err(|errno| failed("/", errno))?;
    chdir("/").map_err(|errno| failed("/", errno))
}

/// Mounts what programs expect of a running system.
pub(super) fn late() -> Result<(), Error> {
    let no_exec = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let no_dev = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    kernel_fs("devpts", "/dev/pts", no_exec, "gid=5,mode=0620,ptmxmode=0666")?;
    kernel_fs("tmpfs", "/dev/shm", no_dev, "mode=1777,size=50%")?;
    kernel_fs("tmpfs", "/run", no_dev, "mode=0755,size=25%")?;
    make_folder("/run/lock")?;
    // Every command enters a group of its own; without `favordynmods` each entry waits for all processors.
    kernel_fs("cgroup2", "/sys/fs/cgroup", SAFE, "nsdelegate,favordynmods")
}

fn kernel_fs(kind: &str, path: &str, flags: MsFlags, options: &str) -> Result<(), Error> {
    make_folder(path)?;
    mount(Some(kind), path, Some(kind), flags, Some(options)).map_err(|errno| failed(path, errno))
}

/// sysfs refuses new folders, but has those that are asked for here.
fn make_folder(path: &str) -> Result<(), Error> {
    if Path::new(path).is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path).map_err(|error| failed(path, error))
}
