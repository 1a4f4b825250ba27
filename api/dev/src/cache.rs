//! The cache folder: things that are made once, each in a folder named after what it is made from.
//!
//! An entry appears whole or not at all (made beside its place, then renamed). One process makes things at a
//! time. `artifacts.json` in it says which entries are the current ones, so that tests find them without
//! making anything.

use std::{
    fs::File,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use fs_err as fs;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::progress::{Step, Ui};

/// The cache folder.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

/// What the platform needs beside programs: all made by `cargo dev setup`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Artifacts {
    /// The guest kernel, an ELF `vmlinux`.
    pub kernel: PathBuf,
    /// The guest's initramfs.
    pub initrd: PathBuf,
    /// The folder of modules with which the guest kernel is a host itself, in test VMs.
    pub host_modules: PathBuf,
    /// Root disk of the base template `minimal`.
    pub image: PathBuf,
    /// The NATS server.
    pub nats_server: PathBuf,
}

impl Artifacts {
    /// Those that the last set-up made.
    ///
    /// # Errors
    /// When there was none, or one of its files is gone.
    pub fn locate(cache: &Cache) -> anyhow::Result<Self> {
        let read = || -> anyhow::Result<Self> {
            let found: Self =
                serde_json::from_slice(&fs::read(cache.root.join("artifacts.json"))?)?;
            for file in [&found.kernel, &found.initrd, &found.image, &found.nats_server] {
                anyhow::ensure!(file.is_file(), "{} is gone", file.display());
            }
            let folder = &found.host_modules;
            anyhow::ensure!(folder.is_dir(), "{} is gone", folder.display());
            Ok(found)
        };
        read().context("the set-up is missing or incomplete: run `cargo dev setup`")
    }

    /// Makes these the current ones.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn store(&self, cache: &Cache) -> anyhow::Result<()> {
        write_whole(&cache.root.join("artifacts.json"), &serde_json::to_vec_pretty(self)?)
    }

    /// The environment by which tests find them.
    pub fn environment(&self) -> [(&'static str, &Path); 5] {
        [
            ("OVENBIRD_KERNEL", &self.kernel),
            ("OVENBIRD_INITRD", &self.initrd),
            ("OVENBIRD_HOST_MODULES", &self.host_modules),
            ("OVENBIRD_IMAGE", &self.image),
            (ovenbird_testkit::nats::SERVER_VARIABLE, &self.nats_server),
        ]
    }
}

impl Cache {
    /// The cache of this source tree, or the one that `OVENBIRD_CACHE` names.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn open() -> anyhow::Result<Self> {
        let root = ovenbird_testkit::nats::cache();
        fs::create_dir_all(&root)?;
        Ok(Self { root: fs::canonicalize(root)? })
    }

    /// Its folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The entry `<kind>-<key>`, if it has been made.
    pub fn get(&self, kind: &str, key: &str) -> Option<PathBuf> {
        let entry = self.root.join(format!("{kind}-{key}"));
        entry.is_dir().then_some(entry)
    }

    /// The newest entry of a kind.
    pub fn newest(&self, kind: &str) -> Option<PathBuf> {
        self.entries(kind).pop()
    }

    /// A folder to make an entry in; it goes when dropped.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn workbench(&self) -> anyhow::Result<tempfile::TempDir> {
        Ok(tempfile::Builder::new().prefix(".making-").tempdir_in(&self.root)?)
    }

    /// Moves what was made in `folder` to its place, in the stead of what stood there.
    ///
    /// # Errors
    /// When it cannot be moved.
    pub fn put(&self, kind: &str, key: &str, folder: &Path) -> anyhow::Result<PathBuf> {
        let entry = self.root.join(format!("{kind}-{key}"));
        if entry.exists() {
            // Renamed first: a reader sees the old entry or the new one, never half of one.
            let old = self.workbench()?;
            fs::rename(&entry, old.path().join("old"))?;
        }
        // QEMU reads from here as a user of its own.
        fs::set_permissions(folder, PermissionsExt::from_mode(0o755))?;
        fs::rename(folder, &entry)?;
        Ok(entry)
    }

    /// Removes all but the newest `keep` entries of a kind.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub fn prune(&self, kind: &str, keep: usize) -> anyhow::Result<()> {
        let mut entries = self.entries(kind);
        entries.truncate(entries.len().saturating_sub(keep));
        for entry in entries {
            fs::remove_dir_all(entry)?;
        }
        Ok(())
    }

    /// Entries of a kind, oldest first.
    fn entries(&self, kind: &str) -> Vec<PathBuf> {
        let prefix = format!("{kind}-");
        let mut entries: Vec<_> = fs::read_dir(&self.root)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect();
        entries.sort();
        entries.into_iter().map(|(_, path)| path).collect()
    }

    /// Waits until no other process makes things here.
    ///
    /// # Errors
    /// When the lock file cannot be made.
    pub async fn lock(&self, ui: &Ui) -> anyhow::Result<Flock<File>> {
        let path = self.root.join(".lock");
        let mut waiting: Option<Step> = None;
        loop {
            let file: File = fs::File::create(&path)?.into();
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => {
                    if let Some(waited) = waiting {
                        waited.done("");
                    }
                    return Ok(lock);
                }
                Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                    waiting.get_or_insert_with(|| ui.step("wait for another set-up to end"));
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                Err((_, error)) => return Err(error).context("lock the cache folder"),
            }
        }
    }
}

/// Writes a file so that readers see the old content or the new, never a part.
///
/// # Errors
/// When it cannot be written.
pub fn write_whole(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let folder = path.parent().context("a file without a folder")?;
    let new = tempfile::NamedTempFile::new_in(folder)?;
    fs::write(new.path(), content)?;
    new.persist(path)?;
    Ok(())
}

/// A short key for what something is made from.
pub fn digest(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hex::encode(&hash.finalize()[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_replaces_the_one_before_it_and_older_ones_are_pruned() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache { root: folder.path().to_owned() };
        for (key, text) in [("a", "1"), ("b", "2"), ("b", "3")] {
            let bench = cache.workbench().unwrap();
            let entry = bench.path().join("entry");
            fs::create_dir(&entry).unwrap();
            fs::write(entry.join("text"), text).unwrap();
            cache.put("thing", key, &entry).unwrap();
        }
        assert_eq!(fs::read_to_string(cache.newest("thing").unwrap().join("text")).unwrap(), "3");
        cache.prune("thing", 1).unwrap();
        assert!(cache.get("thing", "a").is_none() && cache.get("thing", "b").is_some());
        let left = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 1, "a workbench or an old entry stayed");
    }
}
