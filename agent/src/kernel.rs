//! The guest kernel and its initramfs, kept under their digest.
//!
//! A copy, so that a file replaced while machines run changes nothing. Snapshots have their kernel in their
//! memory and need none.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use ring::digest::{Context, SHA256};

use crate::data_dir::DataDir;

/// An initramfs of another length hangs the guest at times, before its first line.
const INITRD_UNIT: u64 = 4096;

/// A kernel file cannot be read, copied or removed.
#[derive(Debug, thiserror::Error)]
#[error("guest kernel file {} cannot be used", path.display())]
pub struct Error {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// A kernel of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    digest: String,
    dir: PathBuf,
}

impl Kernel {
    /// Takes a kernel and an initramfs into the store, unless they are there.
    ///
    /// # Errors
    /// When a file cannot be read or copied.
    pub fn import(data: &DataDir, kernel: &Path, initrd: &Path) -> Result<Self, Error> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| Error { path, source }
        };
        let store = data.kernels();
        let draft = store.join(".draft");
        remove(&draft).map_err(failed(&draft))?;
        std::fs::create_dir(&draft).map_err(failed(&draft))?;
        let mut digest = Context::new(&SHA256);
        copy(kernel, &draft.join("vmlinux"), 1, &mut digest).map_err(failed(kernel))?;
        copy(initrd, &draft.join("initrd"), INITRD_UNIT, &mut digest).map_err(failed(initrd))?;
        let digest = hex::encode(digest.finish());
        let dir = store.join(&digest);
        if dir.is_dir() {
            remove(&draft).map_err(failed(&draft))?;
        } else {
            std::fs::rename(&draft, &dir).map_err(failed(&dir))?;
        }
        Ok(Self { digest, dir })
    }

    /// Removes every other kernel.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub fn sweep_others(&self, data: &DataDir) -> Result<(), Error> {
        let store = data.kernels();
        let failed = |source| Error { path: store.clone(), source };
        for entry in std::fs::read_dir(&store).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path != self.dir {
                remove(&path).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// SHA-256 of both files, in hexadecimal.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The kernel.
    pub fn kernel(&self) -> PathBuf {
        self.dir.join("vmlinux")
    }

    /// The initramfs.
    pub fn initrd(&self) -> PathBuf {
        self.dir.join("initrd")
    }
}

fn remove(dir: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Copies a file, filled up with zeros to a multiple of `unit`, for everybody to read.
fn copy(from: &Path, to: &Path, unit: u64, digest: &mut Context) -> io::Result<()> {
    let (mut from, mut to) = (File::open(from)?, File::create_new(to)?);
    let mut buffer = vec![0; 1 << 20];
    let mut length = 0_u64;
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        length += read as u64;
        digest.update(&buffer[..read]);
        to.write_all(&buffer[..read])?;
    }
    to.set_len(length.next_multiple_of(unit))?;
    digest.update(&length.to_le_bytes());
    to.set_permissions(std::fs::Permissions::from_mode(0o444))?;
    to.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn initrd_is_padded_and_the_same_files_are_kept_once() {
        let root = tempfile::tempdir().unwrap();
        let (kernel, initrd) = (root.path().join("k"), root.path().join("i"));
        std::fs::write(&kernel, "kernel").unwrap();
        std::fs::write(&initrd, vec![1; 5000]).unwrap();
        let data = DataDir::open(&root.path().join("data")).unwrap();
        let first = Kernel::import(&data, &kernel, &initrd).unwrap();
        assert_eq!(first, Kernel::import(&data, &kernel, &initrd).unwrap());
        assert_eq!(std::fs::metadata(first.initrd()).unwrap().len(), 8192);

        std::fs::write(&kernel, "another").unwrap();
        let second = Kernel::import(&data, &kernel, &initrd).unwrap();
        assert_ne!(first.digest(), second.digest());
        second.sweep_others(&data).unwrap();
        assert!(second.kernel().is_file() && !first.kernel().exists());
    }
}
