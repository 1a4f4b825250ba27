//! A machine's directory: root's, passable for the machine's user, with files given to it one by one.
//!
//! The machine's user can create and rename nothing in it, so no name in it can be turned into a link to
//! somewhere else. Sockets are bound by the agent and handed over open.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown, fchown},
    path::{Path, PathBuf},
};

use crate::Identity;

/// The names in a machine's directory.
pub mod file {
    /// The guest's memory.
    pub const MEMORY: &str = "memory";
    /// The saved state of devices, and of memory where it is in no file.
    pub const STATE: &str = "state";
    /// The guest kernel, of a machine that boots.
    pub const KERNEL: &str = "vmlinux";
    /// The guest's initramfs, likewise.
    pub const INITRD: &str = "initrd";
    /// QEMU's standard error.
    pub const LOG: &str = "qemu.log";
    /// The guest's port.
    pub const GUEST_SOCKET: &str = "guest.sock";
    /// QEMU's control socket.
    pub const CONTROL_SOCKET: &str = "qmp.sock";
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    path: PathBuf,
    owner: Identity,
}

impl Directory {
    /// Makes the directory.
    ///
    /// # Errors
    /// `AlreadyExists` when there is one; what else the kernel refuses.
    pub fn create(path: &Path, owner: Identity) -> io::Result<Self> {
        std::fs::DirBuilder::new().mode(0o700).create(path)?;
        let directory = Self { path: path.to_owned(), owner };
        // By name, since it is new and its parent is root's. Passable for the group, listable for nobody.
        let opened = chown(path, Some(0), Some(owner.gid))
            .and_then(|()| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o710)));
        if let Err(error) = opened {
            std::fs::remove_dir(path)?;
            return Err(error);
        }
        Ok(directory)
    }

    /// The directory that an earlier agent made.
    pub fn found(path: &Path, owner: Identity) -> Self {
        Self { path: path.to_owned(), owner }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The machine's user.
    pub fn owner(&self) -> Identity {
        self.owner
    }

    /// Makes an empty file of `bytes` length that belongs to the machine. What had the name before loses it,
    /// and is itself left alone: it may be a template's, under another link.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn add(&self, name: &str, bytes: u64) -> io::Result<File> {
        self.discard(name)?;
        let path = self.path.join(name);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(0o600).open(path)?;
        file.set_len(bytes)?;
        fchown(&file, Some(self.owner.uid), Some(self.owner.gid))?;
        Ok(file)
    }

    /// Gives the machine a file of root's to read, by a hard link: the file stays until the last link goes.
    /// What had the name before loses it.
    ///
    /// # Errors
    /// `NotFound` when the source does not exist; what else the kernel refuses.
    pub fn link(&self, source: &Path, name: &str) -> io::Result<()> {
        self.discard(name)?;
        std::fs::hard_link(source, self.path.join(name))
    }

    /// Takes a file away. None is fine.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn discard(&self, name: &str) -> io::Result<()> {
        match std::fs::remove_file(self.path.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes the directory with all that is in it. None is fine.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn remove(path: &Path) -> io::Result<()> {
        match std::fs::remove_dir_all(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    const OWNER: Identity = Identity { uid: 61_000, gid: 61_001 };

    #[test]
    fn machine_can_pass_but_not_change_its_directory() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a");
        let directory = Directory::create(&path, OWNER).unwrap();
        let metadata = std::fs::metadata(&path).unwrap();
        assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o777), (0, 61_001, 0o710));
        directory.add(file::STATE, 10).unwrap();
        let metadata = std::fs::metadata(path.join("state")).unwrap();
        assert_eq!((metadata.uid(), metadata.len(), metadata.mode() & 0o777), (61_000, 10, 0o600));
    }

    #[test]
    fn file_that_replaces_a_link_leaves_the_linked_file_alone() {
        let root = tempfile::tempdir().unwrap();
        let template = root.path().join("template");
        std::fs::write(&template, "kept").unwrap();
        let directory = Directory::create(&root.path().join("a"), OWNER).unwrap();
        directory.link(&template, file::STATE).unwrap();
        directory.add(file::STATE, 0).unwrap();
        assert_eq!(std::fs::read(&template).unwrap(), b"kept");
        assert_eq!(std::fs::read(directory.path().join(file::STATE)).unwrap(), b"");
    }

    #[test]
    fn second_directory_of_a_name_is_refused_and_removal_repeats() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a");
        Directory::create(&path, OWNER).unwrap();
        let error = Directory::create(&path, OWNER).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        Directory::remove(&path).unwrap();
        Directory::remove(&path).unwrap();
        assert!(!path.exists());
    }
}
