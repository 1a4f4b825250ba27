//! The agent's directory: one agent at a time, everything of root's alone.
//!
//! Machines reach their own files by their working directory and by hard links, so no path through here has
//! to be open to them.

use std::{
    fs::{File, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

/// The directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused something.
    #[error("data_dir {} cannot be used", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// Another agent runs with it.
    #[error("data_dir {} is in use by another agent", .0.display())]
    Taken(PathBuf),
}

/// See the module. The directory is this process's as long as the value lives.
#[derive(Debug)]
pub struct DataDir {
    root: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes what is missing and locks the directory.
    ///
    /// # Errors
    /// When it cannot be made, or another agent has it.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Io { path: path.to_owned(), source };
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(path).map_err(failed)?;
        // Processes are recognised by their working directory, which the kernel tells without links.
        let root = path.canonicalize().map_err(failed)?;
        for name in ["images", "snapshots", "sandboxes", "kernels"] {
            let path = root.join(name);
            builder.create(&path).map_err(failed)?;
            // Whoever put the first images there may have made it with wider permissions.
            std::fs::set_permissions(&path, Permissions::from_mode(0o700)).map_err(failed)?;
        }
        let lock = File::options()
            .create(true)
            .write(true)
            .truncate(false)
            .open(root.join("lock"))
            .map_err(failed)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { root, _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::Taken(root)),
            Err(error) => Err(failed(error.into())),
        }
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Image templates.
    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    /// Snapshot templates.
    pub fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    /// Sandboxes.
    pub fn sandboxes(&self) -> PathBuf {
        self.root.join("sandboxes")
    }

    /// The highest attempts of builds.
    pub fn fences(&self) -> PathBuf {
        self.root.join("fences")
    }

    /// Key and certificate of an agent that has registered.
    pub fn identity(&self) -> PathBuf {
        Self::identity_below(&self.root)
    }

    /// The same below a directory that is only looked at.
    pub(crate) fn identity_below(path: &Path) -> PathBuf {
        path.join("identity.json")
    }

    /// One that is registering, until the api has answered.
    pub fn identity_to_be(&self) -> PathBuf {
        self.root.join("identity-to-be.json")
    }

    /// Guest kernels by their digest.
    pub fn kernels(&self) -> PathBuf {
        self.root.join("kernels")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_agent_on_one_directory_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let first = DataDir::open(root.path()).unwrap();
        assert!(matches!(DataDir::open(root.path()), Err(Error::Taken(_))));
        drop(first);
        assert!(DataDir::open(root.path()).unwrap().images().is_dir());
    }

    #[test]
    fn folders_that_were_open_to_others_are_closed() {
        let root = tempfile::tempdir().unwrap();
        let images = root.path().join("images");
        std::fs::create_dir(&images).unwrap();
        std::fs::set_permissions(&images, Permissions::from_mode(0o755)).unwrap();
        DataDir::open(root.path()).unwrap();
        let mode = |name: &str| {
            std::fs::metadata(root.path().join(name)).unwrap().permissions().mode() & 0o777
        };
        for name in ["images", "snapshots", "sandboxes", "kernels"] {
            assert_eq!(mode(name), 0o700, "{name}");
        }
    }
}
