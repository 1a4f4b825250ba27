//! Templates of this host: found, listed, published, deleted.
//!
//! ```text
//!  images/<name>/rootfs.ext4
//!  snapshots/<name>/{manifest.json,memory,state,rootfs.ext4}
//!  {images,snapshots}/.draft-<name>     being written: finished or swept at the next start
//!  {images,snapshots}/.deleted-<…>      being deleted: swept then
//! ```
//!
//! Both kinds share one space of names. Which sandboxes use a template is not known here: a fork holds
//! links of its own, so a deleted template's room is free when the last of them ends.

mod digest;
mod found;
mod manifest;

use std::{
    collections::{BTreeMap, HashSet},
    fs::{self, File, Permissions},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

pub use digest::FileDigest;
pub(crate) use found::{Given, Rest};
pub use manifest::{Manifest, VERSION};
pub(crate) use manifest::{difference, hex, unhex};
use serde::{Deserialize, Serialize};

use crate::{data_dir::DataDir, name::TemplateName};

/// The disk of a template of either kind.
const ROOTFS: &str = "rootfs.ext4";
const MANIFEST: &str = "manifest.json";

/// A template could not be found, published or deleted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none of this name.
    #[error("there is no template {0} on this host")]
    Unknown(TemplateName),
    /// There is one already, or one is being made.
    #[error("a template {0} exists already: delete it, or choose another name")]
    Taken(TemplateName),
    /// Its manifest cannot be read.
    #[error("the manifest of template {name} cannot be read: build it again")]
    Manifest {
        /// Whose.
        name: TemplateName,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The kernel refused something.
    #[error("template {name} cannot be {action}")]
    Io {
        /// Which.
        name: String,
        /// What was tried, as a participle.
        action: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

/// The two kinds of templates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A root disk to boot from.
    Image,
    /// Memory, devices and root disk to go on from.
    Snapshot,
}

impl Kind {
    /// As in `GetHost`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Snapshot => "snapshot",
        }
    }
}

/// A template to start from.
#[derive(Debug, Clone)]
pub enum Template {
    /// Boots.
    Image {
        /// Its disk.
        rootfs: PathBuf,
    },
    /// Goes on.
    Snapshot {
        /// Its files.
        dir: PathBuf,
        /// What it was made with.
        manifest: Box<Manifest>,
    },
}

impl Template {
    /// The root disk.
    pub fn rootfs(&self) -> PathBuf {
        match self {
            Self::Image { rootfs } => rootfs.clone(),
            Self::Snapshot { dir, .. } => dir.join(ROOTFS),
        }
    }
}

/// One line of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: Kind,
    /// The room it takes.
    pub bytes: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Templates {
    data: Arc<DataDir>,
    /// Names of templates that are being written.
    reserved: Arc<Mutex<HashSet<TemplateName>>>,
}

impl Templates {
    /// The templates of a directory. What an earlier agent left half-written stays there until the sandboxes are looked
    /// at that it was made of.
    pub fn new(data: Arc<DataDir>) -> Self {
        Self { data, reserved: Arc::default() }
    }

    fn dir(&self, kind: Kind, name: &TemplateName) -> PathBuf {
        let parent = match kind {
            Kind::Image => self.data.images(),
            Kind::Snapshot => self.data.snapshots(),
        };
        parent.join(name.as_str())
    }

    /// Looks a template up.
    ///
    /// # Errors
    /// When there is none, or its manifest is not readable.
    pub fn find(&self, name: &TemplateName) -> Result<Template, Error> {
        let rootfs = self.dir(Kind::Image, name).join(ROOTFS);
        if rootfs.is_file() {
            return Ok(Template::Image { rootfs });
        }
        let dir = self.dir(Kind::Snapshot, name);
        let text = match fs::read(dir.join(MANIFEST)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::Unknown(name.clone()));
            }
            Err(source) => return Err(failed(name, "read")(source)),
        };
        let manifest = serde_json::from_slice(&text)
            .map_err(|source| Error::Manifest { name: name.clone(), source })?;
        Ok(Template::Snapshot { dir, manifest: Box::new(manifest) })
    }

    /// Every template with its size; those that vanish meanwhile are left out.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn list(&self) -> Result<Vec<Listed>, Error> {
        let mut list = Vec::new();
        for (kind, dir) in
            [(Kind::Image, self.data.images()), (Kind::Snapshot, self.data.snapshots())]
        {
            let failed =
                |source| Error::Io { name: dir.display().to_string(), action: "listed", source };
            for entry in fs::read_dir(&dir).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let name = entry.file_name().to_string_lossy().into_owned();
                let complete = entry.path().join(ROOTFS).is_file();
                if TemplateName::new(&name).is_err() || !complete {
                    continue;
                }
                if let Ok(bytes) = size_of_dir(&entry.path()) {
                    list.push(Listed { name, kind, bytes });
                }
            }
        }
        list.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(list)
    }

    /// Takes a name for a template that is going to be written.
    ///
    /// # Errors
    /// [`Error::Taken`].
    pub fn reserve(&self, kind: Kind, name: &TemplateName) -> Result<Reservation, Error> {
        let mut reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        let exists = [Kind::Image, Kind::Snapshot]
            .into_iter()
            .any(|kind| fs::symlink_metadata(self.dir(kind, name)).is_ok());
        if exists || !reserved.insert(name.clone()) {
            return Err(Error::Taken(name.clone()));
        }
        Ok(Reservation {
            name: name.clone(),
            target: self.dir(kind, name),
            reserved: self.reserved.clone(),
        })
    }

    /// Deletes a template. Sandboxes made from it go on.
    ///
    /// # Errors
    /// [`Error::Unknown`], or what the kernel refuses.
    pub fn delete(&self, name: &TemplateName) -> Result<(), Error> {
        let mut found = false;
        for kind in [Kind::Image, Kind::Snapshot] {
            let dir = self.dir(kind, name);
            let away = dir.with_file_name(format!(".deleted-{}", uuid::Uuid::new_v4().simple()));
            match fs::rename(&dir, &away) {
                Ok(()) => {
                    found = true;
                    fs::remove_dir_all(&away).map_err(failed(name, "deleted"))?;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(name, "deleted")(error)),
            }
        }
        if found { Ok(()) } else { Err(Error::Unknown(name.clone())) }
    }
}

/// A name that is nobody else's until this is dropped.
#[derive(Debug)]
pub struct Reservation {
    name: TemplateName,
    target: PathBuf,
    reserved: Arc<Mutex<HashSet<TemplateName>>>,
}

impl Reservation {
    /// The name.
    pub fn name(&self) -> &TemplateName {
        &self.name
    }

    /// Begins to write the template.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn draft(self) -> Result<Draft, Error> {
        let dir = found::draft(&self.target, &self.name);
        let make = || -> io::Result<()> {
            remove(&dir)?;
            fs::create_dir(&dir)?;
            fs::set_permissions(&dir, Permissions::from_mode(0o700))
        };
        make().map_err(failed(&self.name, "written"))?;
        Ok(Draft { reservation: self, dir, manifest: None, published: false })
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.reserved.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

/// A template that is being written. Dropped before it is published, it is gone.
#[derive(Debug)]
pub struct Draft {
    reservation: Reservation,
    dir: PathBuf,
    manifest: Option<Manifest>,
    published: bool,
}

impl Draft {
    /// Where its disk is to be put.
    pub fn rootfs(&self) -> PathBuf {
        self.dir.join(ROOTFS)
    }

    /// Takes over a file of an ended machine, for every later machine to read.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn take(&self, file: &Path, name: &str) -> Result<(), Error> {
        let take = || -> io::Result<()> {
            let target = self.dir.join(name);
            fs::rename(file, &target)?;
            chown(&target, Some(0), Some(0))?;
            fs::set_permissions(&target, Permissions::from_mode(0o444))
        };
        take().map_err(failed(&self.reservation.name, "written"))
    }

    /// Gives the template a manifest. The digests of its files are added when it is published.
    pub fn describe(&mut self, manifest: Manifest) {
        self.manifest = Some(manifest);
    }

    /// Syncs everything and gives the template its name. Blocking. Returns the bytes it takes.
    ///
    /// # Errors
    /// Those of the kernel; the draft is gone then.
    pub fn publish(mut self) -> Result<u64, Error> {
        let target = self.reservation.target.clone();
        let manifest = self.manifest.take();
        let publish = || -> io::Result<u64> {
            let files = sync_all(&self.dir, manifest.is_some())?;
            if let Some(manifest) = manifest {
                let text = serde_json::to_vec_pretty(&Manifest { files, ..manifest })?;
                let path = self.dir.join(MANIFEST);
                fs::write(&path, text)?;
                fs::set_permissions(&path, Permissions::from_mode(0o600))?;
                File::open(&path)?.sync_all()?;
            }
            File::open(&self.dir)?.sync_all()?;
            let bytes = size_of_dir(&self.dir)?;
            fs::rename(&self.dir, &target)?;
            if let Some(parent) = target.parent() {
                File::open(parent)?.sync_all()?;
            }
            Ok(bytes)
        };
        let bytes = publish().map_err(failed(&self.reservation.name, "published"))?;
        self.published = true;
        Ok(bytes)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.published
            && let Err(error) = remove(&self.dir)
        {
            tracing::warn!(%error, dir = %self.dir.display(), "half-written template stays until the next start");
        }
    }
}

/// Syncs the files of a directory, and reads them for their digests meanwhile: the medium and a processor are busy
/// at the same time.
fn sync_all(dir: &Path, digests: bool) -> io::Result<BTreeMap<String, FileDigest>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let file = File::open(entry.path())?;
        let digest = thread::scope(|scope| {
            let synced = scope.spawn(|| file.sync_all());
            let digest = digests.then(|| FileDigest::of(&file)).transpose();
            synced.join().map_err(|_| io::Error::other("a thread panicked"))??;
            digest
        })?;
        files.extend(digest.map(|digest| (entry.file_name().to_string_lossy().into(), digest)));
    }
    Ok(files)
}

fn failed(name: &TemplateName, action: &'static str) -> impl Fn(io::Error) -> Error {
    let name = name.to_string();
    move |source| Error::Io { name: name.clone(), action, source }
}

fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn size_of_dir(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        bytes += entry?.metadata()?.blocks() * 512;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
