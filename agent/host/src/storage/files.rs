//! Disks that are plain files: `disk` in the sandbox's directory, cloned or copied from the template's.
//!
//! Publishing renames the file, since the sandbox it belonged to ends: no bytes are copied.

use std::{
    fs::{File, Metadata, OpenOptions, Permissions},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt, fchown},
    path::{Path, PathBuf},
};

use async_trait::async_trait;

use super::{
    Driver, Error, Request, Volume, Volumes,
    own::{self, DISK, blocking, failed, kept, look, look_at_file, names_kept, remove_file},
    sparse,
};
use crate::Identity;

/// The `reflink` and `copy` drivers.
#[derive(Debug, Clone)]
pub struct FileVolumes {
    fill: Fill,
}

/// How an empty file gets the content of another.
#[derive(Debug, Clone, Copy)]
enum Fill {
    Clone,
    Copy,
}

impl FileVolumes {
    /// Disks that share blocks.
    ///
    /// # Errors
    /// When the file system of `data_dir` cannot clone files, or nothing can be written there.
    pub fn reflink(data_dir: &Path) -> Result<Self, Error> {
        if !can_clone(data_dir)? {
            return Err(Error::NoReflink(data_dir.to_owned()));
        }
        Ok(Self { fill: Fill::Clone })
    }

    /// Disks that are sparse copies.
    pub fn copy() -> Self {
        Self { fill: Fill::Copy }
    }
}

#[async_trait]
impl Volumes for FileVolumes {
    fn driver(&self) -> Driver {
        match self.fill {
            Fill::Clone => Driver::Reflink,
            Fill::Copy => Driver::Copy,
        }
    }

    async fn ensure(&self, request: &Request) -> Result<Volume, Error> {
        let (by, request) = (self.fill, request.clone());
        blocking(move || ensure(by, &request)).await
    }

    async fn publish(&self, dir: &Path, target: &Path) -> Result<u64, Error> {
        let (disk, target) = (dir.join(DISK), target.to_owned());
        blocking(move || publish(&disk, &target)).await
    }

    async fn find(&self, dir: &Path) -> Result<Option<Volume>, Error> {
        let disk = dir.join(DISK);
        blocking(move || {
            let found = look_at_file(&disk)?;
            Ok(found.map(|disk| Volume { path: PathBuf::from(DISK), bytes: disk.len() }))
        })
        .await
    }

    async fn checkpoint(&self, dir: &Path, name: &str) -> Result<u64, Error> {
        let (by, disk, kept) = (self.fill, dir.join(DISK), kept(dir, name)?);
        blocking(move || {
            let copied = copy_whole(by, &disk, &kept, Identity { uid: 0, gid: 0 });
            let copied = copied.map_err(|source| failed("kept", &disk, source))?;
            Ok(copied.blocks() * 512)
        })
        .await
    }

    async fn checkpoints(&self, dir: &Path) -> Result<Vec<String>, Error> {
        let dir = dir.to_owned();
        blocking(move || names_kept(&dir).map_err(|source| failed("looked for", &dir, source)))
            .await
    }

    async fn restore(&self, dir: &Path, name: &str, owner: Identity) -> Result<Volume, Error> {
        let (by, disk, kept) = (self.fill, dir.join(DISK), kept(dir, name)?);
        let missing = Error::NoCheckpoint { dir: dir.to_owned(), name: name.to_owned() };
        blocking(move || {
            look_at_file(&disk)?;
            if look_at_file(&kept)?.is_none() {
                return Err(missing);
            }
            let copied = copy_whole(by, &kept, &disk, owner);
            let copied = copied.map_err(|source| failed("restored", &disk, source))?;
            Ok(Volume { path: PathBuf::from(DISK), bytes: copied.len() })
        })
        .await
    }

    async fn used(&self, dir: &Path) -> Result<u64, Error> {
        let disk = dir.join(DISK);
        blocking(move || Ok(look(&disk)?.map_or(0, |disk| disk.blocks() * 512))).await
    }

    async fn remove(&self, dir: &Path) -> Result<(), Error> {
        let disk = dir.join(DISK);
        blocking(move || remove_file(&disk).map_err(|source| failed("removed", &disk, source)))
            .await
    }

    /// Nothing of these disks is in the kernel.
    async fn sweep(&self, _keep: &[PathBuf]) -> Result<usize, Error> {
        Ok(0)
    }

    async fn close(&self) {}
}

/// Puts a copy of `from` in the place of `to`, at once or not at all.
fn copy_whole(by: Fill, from: &Path, to: &Path, owner: Identity) -> io::Result<Metadata> {
    let source = own::open(OpenOptions::new().read(true), from)?;
    let (copy, ()) = own::replace(to, |copy| {
        fill(by, &source, copy)?;
        fchown(copy, Some(owner.uid), Some(owner.gid))
    })?;
    copy.metadata()
}

fn fill(by: Fill, from: &File, to: &File) -> io::Result<()> {
    match by {
        Fill::Clone => sparse::clone(from, to),
        Fill::Copy => sparse::copy(from, to),
    }
}

fn can_clone(dir: &Path) -> Result<bool, Error> {
    let probe = || -> io::Result<bool> {
        let (from, to) = (tempfile::tempfile_in(dir)?, tempfile::tempfile_in(dir)?);
        std::os::unix::fs::FileExt::write_all_at(&from, &[1; 4096], 0)?;
        Ok(sparse::clone(&from, &to).is_ok())
    };
    probe().map_err(|source| failed("probed", dir, source))
}

fn ensure(by: Fill, request: &Request) -> Result<Volume, Error> {
    let origin = File::open(&request.origin).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => Error::NoOrigin(request.origin.clone()),
        _ => failed("opened", &request.origin, source),
    })?;
    let path = request.dir.join(DISK);
    let make = || -> io::Result<u64> {
        let disk = own::create(&path)?;
        fill(by, &origin, &disk)?;
        let bytes = origin.metadata()?.len().max(request.bytes_min);
        disk.set_len(bytes)?;
        fchown(&disk, Some(request.owner.uid), Some(request.owner.gid))?;
        Ok(bytes)
    };
    let bytes = make().map_err(|source| failed("made", &path, source))?;
    Ok(Volume { path: PathBuf::from(DISK), bytes })
}

fn publish(disk: &Path, target: &Path) -> Result<u64, Error> {
    let hand_over = || -> io::Result<u64> {
        let file = own::open(OpenOptions::new().read(true).write(true), disk)?;
        fchown(&file, Some(0), Some(0))?;
        file.set_permissions(Permissions::from_mode(0o444))?;
        let bytes = sparse::punch_zeros(&file)?;
        std::fs::rename(disk, target)?;
        Ok(bytes)
    };
    hand_over().map_err(|source| failed("published", target, source))
}

/// What all drivers have in common is tried in `tests/storage`.
#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn link_in_the_disks_place_is_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let (dir, origin) = (root.path().join("sandbox"), root.path().join("origin"));
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(&origin, vec![5; 300_000]).unwrap();
        let secret = root.path().join("secret");
        std::fs::write(&secret, "root only").unwrap();
        std::os::unix::fs::symlink(&secret, dir.join(DISK)).unwrap();
        let volumes = FileVolumes::copy();
        assert!(volumes.publish(&dir, &root.path().join("rootfs.ext4")).await.is_err());
        let owner = Identity { uid: 61_000, gid: 61_000 };
        let request = Request { origin, dir, bytes_min: 1 << 20, owner };
        assert!(volumes.ensure(&request).await.is_err());
        assert_eq!(std::fs::read(&secret).unwrap(), b"root only");
    }

    #[tokio::test]
    async fn what_is_no_plain_file_is_neither_found_nor_restored() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path();
        let owner = Identity { uid: 61_000, gid: 61_000 };
        let volumes = FileVolumes::copy();
        let refused = |error: Error| {
            let source = std::error::Error::source(&error).unwrap().to_string();
            assert!(source.contains("no plain file"), "{error}: {source}");
        };
        // As a device of another driver.
        let odd = std::os::unix::net::UnixListener::bind(dir.join(DISK)).unwrap();
        std::fs::write(dir.join("disk@one"), vec![5; 4096]).unwrap();
        refused(volumes.find(dir).await.unwrap_err());
        refused(volumes.restore(dir, "one", owner).await.unwrap_err());
        drop(odd);
        std::fs::remove_file(dir.join(DISK)).unwrap();
        std::os::unix::fs::symlink(dir.join("disk@one"), dir.join("disk@two")).unwrap();
        refused(volumes.restore(dir, "two", owner).await.unwrap_err());
        volumes.restore(dir, "one", owner).await.unwrap();
        assert_eq!(volumes.find(dir).await.unwrap().unwrap().bytes, 4096);
    }

    #[test]
    fn reflink_is_refused_where_the_file_system_cannot() {
        let root = tempfile::tempdir().unwrap();
        if can_clone(root.path()).unwrap() {
            return;
        }
        let error = FileVolumes::reflink(root.path()).unwrap_err();
        assert!(matches!(error, Error::NoReflink(_)));
    }
}
