//! Network namespaces under `/run/netns`, made by mounting, without the `ip` program.
//!
//! `ip netns add` would leave a mount of `/run/netns` on itself behind for ever; this leaves nothing.
//! What is inside a namespace is not known here.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
};

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

    /// Makes the namespace and runs `work` inside, on a thread that ends with it.
    ///
    /// # Errors
    /// Those of the kernel, and of `work`; the namespace may exist afterwards.
    pub fn create<T: Send, E: Send + From<io::Error>>(
        &self,
        work: impl FnOnce() -> Result<T, E> + Send,
    ) -> Result<T, E> {
        let create = || -> io::Result<()> {
            if let Some(parent) = self.path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            File::create_new(&self.path)?;
            unshare(CloneFlags::CLONE_NEWNET)?;
            let own = Path::new("/proc/thread-self/ns/net");
            Ok(mount(Some(own), &self.path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?)
        };
        on_own_thread(move || {
            create()?;
            work()
        })
    }

    /// Runs `work` inside the namespace, on a thread that ends with it. A process that it spawns stays inside.
    ///
    /// # Errors
    /// Those of the kernel, and of `work`.
    pub fn enter<T: Send, E: Send + From<io::Error>>(
        &self,
        work: impl FnOnce() -> Result<T, E> + Send,
    ) -> Result<T, E> {
        on_own_thread(move || {
            let enter = || -> io::Result<()> {
                Ok(setns(File::open(&self.path)?, CloneFlags::CLONE_NEWNET)?)
            };
            enter()?;
            work()
        })
    }

    /// Takes the name away; the kernel frees the namespace when nothing runs in it any more.
    ///
    /// # Errors
    /// Those of the kernel; no such namespace is fine.
    pub fn remove(&self) -> io::Result<()> {
        use nix::errno::Errno;
        // More than one mount can lie on top of each other when somebody else bound the directory.
        for _ in 0..8 {
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
