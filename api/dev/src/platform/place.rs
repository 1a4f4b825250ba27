//! The folder of one running platform, `.ovenbird/run-…`, and who owns it.
//!
//! A lock held on a file in it says that its owner lives; nothing else does, least of all a process id. Postgres
//! runs as a user of its own: where that user may not enter the source tree (a home folder of root, say) the
//! real folder is under `/var/tmp`, and `.ovenbird/run-…` a link to it.

use std::{
    fs::File,
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use fs_err as fs;
use nix::fcntl::{Flock, FlockArg};

const PREFIX: &str = "run-";
const OWNER: &str = "owner";

/// The folder of a platform; it goes when dropped.
#[derive(Debug)]
pub struct Place {
    /// `.ovenbird/run-…`: the folder, or a link to it.
    name: PathBuf,
    real: PathBuf,
    owner: Option<Flock<File>>,
}

impl Place {
    /// A new folder in `scratch`; `kind` is a word in its name.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(scratch: &Path, kind: &str) -> anyhow::Result<Self> {
        fs::create_dir_all(scratch)?;
        let scratch = fs::canonicalize(scratch)?;
        let name = format!("{PREFIX}{kind}-{}", std::process::id());
        // Two platforms of one process are told apart by the random part.
        let made =
            tempfile::Builder::new().prefix(&format!("{name}-")).tempdir_in(&scratch)?.keep();
        let real = if others_may_enter(&scratch) {
            made.clone()
        } else {
            fs::remove_dir(&made)?;
            let real =
                tempfile::Builder::new().prefix("ovenbird-run-").tempdir_in("/var/tmp")?.keep();
            fs::os::unix::fs::symlink(&real, &made)?;
            real
        };
        fs::set_permissions(&real, std::fs::Permissions::from_mode(0o755))?;
        // Locked before it has its name, so that nobody takes it for an abandoned one.
        let unnamed = real.join("owner.new");
        let owner = exclusive(&unnamed)?.context("a new folder is already somebody's")?;
        fs::rename(unnamed, real.join(OWNER))?;
        Ok(Self { name: made, real, owner: Some(owner) })
    }

    /// Those of platforms whose process is gone.
    ///
    /// # Errors
    /// When a folder cannot be read.
    pub fn abandoned(scratch: &Path) -> anyhow::Result<Vec<Self>> {
        let mut found = Vec::new();
        // With the cache elsewhere it is not there before the first platform.
        fs::create_dir_all(scratch)?;
        for entry in fs::read_dir(scratch)? {
            let name = entry?.path();
            let is_run =
                name.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX));
            if !is_run {
                continue;
            }
            match fs::canonicalize(&name) {
                Ok(real) => match fs::File::open(real.join(OWNER)) {
                    Ok(file) => {
                        let owner = lock(file.into(), &real)?;
                        // Else its owner was removing it.
                        if let Some(owner) = owner.filter(|_| real.join(OWNER).exists()) {
                            found.push(Self { name, real, owner: Some(owner) });
                        }
                    }
                    // Its owner is making or removing it. One that was killed just then leaves it, all but empty.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error.into()),
                },
                // A link to a folder that a reboot took away, or a folder that its owner has just removed.
                Err(_) => match fs::remove_file(&name) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(error.into());
                    }
                    _ => {}
                },
            }
        }
        Ok(found)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.real
    }

    /// Removes it with all that is in it.
    ///
    /// # Errors
    /// When something in it cannot be removed.
    pub fn remove(mut self) -> anyhow::Result<()> {
        self.clear()
    }

    fn clear(&mut self) -> anyhow::Result<()> {
        if self.owner.is_none() {
            return Ok(());
        }
        // Its owner goes last: a folder without one is nobody's to remove.
        for entry in fs::read_dir(&self.real)? {
            let entry = entry?;
            if entry.file_name() == OWNER {
                continue;
            }
            match entry.file_type()?.is_dir() {
                true => fs::remove_dir_all(entry.path())?,
                false => fs::remove_file(entry.path())?,
            }
        }
        fs::remove_dir_all(&self.real)?;
        if self.name != self.real {
            fs::remove_file(&self.name)?;
        }
        self.owner = None;
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = self.clear() {
            eprintln!("could not remove {}: {error:#}", self.real.display());
        }
    }
}

/// The lock on a file, unless somebody has it.
///
/// # Errors
/// When the file cannot be made or locked.
pub fn exclusive(path: &Path) -> anyhow::Result<Option<Flock<File>>> {
    lock(fs::File::create(path)?.into(), path)
}

fn lock(file: File, path: &Path) -> anyhow::Result<Option<Flock<File>>> {
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, error)) => Err(io::Error::from(error)).with_context(|| path.display().to_string()),
    }
}

fn others_may_enter(folder: &Path) -> bool {
    folder.ancestors().all(|folder| {
        fs::metadata(folder).is_ok_and(|metadata| metadata.permissions().mode() & 0o001 != 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn place_is_abandoned_only_once_its_owner_is_gone_and_goes_with_its_handle() {
        let scratch = tempfile::tempdir().unwrap();
        let place = Place::create(scratch.path(), "test").unwrap();
        assert_eq!(Place::abandoned(scratch.path()).unwrap().len(), 0);

        // What a kill leaves: the folder without the lock.
        let (name, real) = (place.name.clone(), place.real.clone());
        drop({
            let mut place = place;
            place.owner.take()
        });
        assert!(real.exists());
        let mut abandoned = Place::abandoned(scratch.path()).unwrap();
        assert_eq!(abandoned.len(), 1);
        assert_eq!(abandoned[0].path(), real);
        abandoned.remove(0).remove().unwrap();
        assert!(!real.exists() && name.symlink_metadata().is_err());
    }

    #[test]
    fn place_is_elsewhere_when_others_may_not_enter_the_tree() {
        let scratch = tempfile::tempdir().unwrap();
        let owner_only = std::fs::Permissions::from_mode(0o700);
        fs::set_permissions(scratch.path(), owner_only).unwrap();
        let place = Place::create(scratch.path(), "test").unwrap();
        let (name, real) = (place.name.clone(), place.real.clone());
        assert!(real.starts_with("/var/tmp") && others_may_enter(&real));
        assert_eq!(fs::read_link(&name).unwrap(), real);
        drop(place);
        assert!(!real.exists() && name.symlink_metadata().is_err());
    }
}
