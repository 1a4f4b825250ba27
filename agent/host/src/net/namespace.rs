//! Network namespaces, named under `/run/netns` by mounting, without the `ip` program.
//!
//! `ip netns add` leaves a mount of `/run/netns` on itself behind for ever; this leaves nothing. A namespace
//! without a name lives as long as its descriptor does, so nothing of it outlives its process.
//! What is inside a namespace is not known here.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
    sys::statfs::{NSFS_MAGIC, statfs},
};

/// The calling thread's.
const OWN: &str = "/proc/thread-self/ns/net";
/// Mounts on top of each other at one place.
const LAYERS_MAX: usize = 8;

/// A network namespace without a name.
#[derive(Debug)]
pub struct Unnamed {
    descriptor: OwnedFd,
}

impl Unnamed {
    /// Makes a namespace and runs `work` inside, on a thread that ends with it. `work` gets the namespace that it
    /// was called from.
    ///
    /// # Errors
    /// Those of the kernel, and of `work`; there is no namespace then.
    pub fn create<E: Send + From<io::Error>>(
        work: impl FnOnce(&OwnedFd) -> Result<(), E> + Send,
    ) -> Result<Self, E> {
        on_own_thread(move || {
            let create = || -> io::Result<(OwnedFd, OwnedFd)> {
                let outside = File::open(OWN)?.into();
                unshare(CloneFlags::CLONE_NEWNET)?;
                Ok((outside, File::open(OWN)?.into()))
            };
            let (outside, descriptor) = create()?;
            work(&outside)?;
            Ok(Self { descriptor })
        })
    }

    /// Runs `work` inside, on a thread that ends with it.
    ///
    /// # Errors
    /// Those of the kernel, and of `work`.
    pub fn enter<T: Send, E: Send + From<io::Error>>(
        &self,
        work: impl FnOnce() -> Result<T, E> + Send,
    ) -> Result<T, E> {
        enter(&self.descriptor, work)
    }

    /// Gives it a name, which must be free. It needs no descriptor any more then.
    ///
    /// # Errors
    /// Those of the kernel; there may be an empty file of that name then.
    pub fn name(self, path: impl Into<PathBuf>) -> io::Result<Namespace> {
        let path = path.into();
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        File::create_new(&path)?;
        let own = format!("/proc/self/fd/{}", self.descriptor.as_raw_fd());
        mount(Some(&*own), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        Ok(Namespace { path })
    }
}

/// A mounted network namespace.
#[derive(Debug, Clone)]
pub struct Namespace {
    path: PathBuf,
}

impl Namespace {
    /// The namespace mounted at `path`, which may not exist yet.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is a namespace, and not just the file that one would be mounted on.
    pub fn exists(&self) -> bool {
        statfs(&self.path).is_ok_and(|found| found.filesystem_type() == NSFS_MAGIC)
    }

    /// Runs `work` inside the namespace, on a thread that ends with it. A process that it spawns stays inside.
    ///
    /// # Errors
    /// Those of the kernel, and of `work`.
    pub fn enter<T: Send, E: Send + From<io::Error>>(
        &self,
        work: impl FnOnce() -> Result<T, E> + Send,
    ) -> Result<T, E> {
        enter(&File::open(&self.path)?, work)
    }

    /// Takes the name away; the kernel frees the namespace when nothing runs in it any more.
    ///
    /// # Errors
    /// Those of the kernel; no such namespace is fine.
    pub fn remove(&self) -> io::Result<()> {
        match self.take_away() {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                on_own_thread(|| self.take_away_below())
            }
            other => other,
        }
    }

    fn take_away(&self) -> io::Result<()> {
        // More than one mount can lie on top of each other.
        for _ in 0..LAYERS_MAX {
            match umount2(&self.path, MntFlags::MNT_DETACH) {
                Ok(()) => {}
                Err(Errno::EINVAL | Errno::ENOENT) => break,
                Err(error) => return Err(error.into()),
            }
        }
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Somebody has bound the folder on itself since this was named, as a machine's first `ip netns add` does: what is
    /// reached there is a copy, and the mount itself lies below. In a mount namespace of this thread the folder can be
    /// uncovered, and a file that is removed in one mount namespace loses its mounts in all of them.
    fn take_away_below(&self) -> io::Result<()> {
        let folder = self.path.parent().unwrap_or(&self.path);
        unshare(CloneFlags::CLONE_NEWNS)?;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
        for _ in 0..LAYERS_MAX {
            umount2(folder, MntFlags::MNT_DETACH)?;
            if !self.path.exists() {
                break;
            }
            match self.take_away() {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
                other => return other,
            }
        }
        Err(Errno::EBUSY.into())
    }
}

fn enter<T: Send, E: Send + From<io::Error>>(
    namespace: &(impl AsFd + Sync),
    work: impl FnOnce() -> Result<T, E> + Send,
) -> Result<T, E> {
    on_own_thread(move || {
        setns(namespace, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)?;
        work()
    })
}

/// A thread that changed its namespace must never run anything else, so it is not one of a pool.
fn on_own_thread<T: Send, E: Send + From<io::Error>>(
    work: impl FnOnce() -> Result<T, E> + Send,
) -> Result<T, E> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".into()).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_goes_also_when_its_folder_was_bound_on_itself_meanwhile() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        // What is mounted here is seen nowhere else.
        on_own_thread(|| {
            unshare(CloneFlags::CLONE_NEWNS)?;
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
            let named = Unnamed::create::<io::Error>(|_| Ok(()))?.name(folder.join("one"))?;
            let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
            mount(Some(folder), folder, None::<&str>, bind, None::<&str>)?;
            assert!(named.exists());
            let busy = named.take_away().unwrap_err();
            assert_eq!(busy.kind(), io::ErrorKind::ResourceBusy, "else this proves nothing");
            named.remove()?;
            assert!(!named.path().exists());
            named.remove()
        })
        .unwrap();
        assert_eq!(std::fs::read_dir(folder).unwrap().count(), 0);
    }
}
