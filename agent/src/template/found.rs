//! Templates that an earlier agent was writing when it ended: finished where the sandbox has given its disk away, and
//! swept otherwise.
//!
//! A driver hands a disk over as a file that is writable until it is whole. So a draft with a read-only disk holds
//! all that the sandbox's own directory no longer does, and what was to come next is done once more.

use std::{
    fs::{self, Metadata, Permissions},
    io,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
};

use super::{Draft, Error, Kind, MANIFEST, Manifest, ROOTFS, Templates, failed, remove};
use crate::name::TemplateName;

/// How much of a sandbox is a template's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Given {
    /// Nothing: all of it lies in its own directory.
    Nothing,
    /// Its disk, and maybe its memory and its state, in a draft.
    Draft,
    /// Everything, under the template's name.
    Published,
}

/// What makes a snapshot of a draft.
#[derive(Debug)]
pub(crate) struct Rest<'a> {
    /// The sandbox's directory, where files may still be.
    pub(crate) dir: &'a Path,
    /// Their names.
    pub(crate) files: [&'a str; 2],
    /// For the disk's length.
    pub(crate) manifest: Manifest,
}

impl Templates {
    /// How far the agent came that was writing this template. Nobody else had its name.
    pub(crate) fn given(&self, kind: Kind, name: &TemplateName) -> Given {
        let target = self.dir(kind, name);
        let whole = |disk: Metadata| disk.is_file() && disk.permissions().readonly();
        if fs::symlink_metadata(target.join(ROOTFS)).is_ok_and(whole) {
            Given::Published
        } else if fs::symlink_metadata(draft(&target, name).join(ROOTFS)).is_ok_and(whole) {
            Given::Draft
        } else {
            Given::Nothing
        }
    }

    /// Publishes the draft of an earlier agent, with the rest of a snapshot. Blocking. Returns the bytes it takes.
    ///
    /// # Errors
    /// Those of the kernel; the draft is gone then.
    pub(crate) fn finish(
        &self,
        kind: Kind,
        name: &TemplateName,
        rest: Option<Rest<'_>>,
    ) -> Result<u64, Error> {
        let reservation = self.reserve(kind, name)?;
        let dir = draft(&reservation.target, name);
        let mut draft = Draft { reservation, dir, manifest: None, published: false };
        let failed = failed(name, "finished");
        match fs::remove_file(draft.dir.join(MANIFEST)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        if let Some(Rest { dir, files, manifest }) = rest {
            for file in files {
                take_again(&dir.join(file), &draft.dir.join(file)).map_err(&failed)?;
            }
            let disk_bytes = fs::metadata(draft.rootfs()).map_err(&failed)?.len();
            draft.describe(Manifest { disk_bytes, ..manifest });
        }
        draft.publish()
    }

    /// Removes what is half-written or half-deleted: at the start, once what could be finished is.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub(crate) fn sweep(&self) -> Result<(), Error> {
        for dir in [self.data.images(), self.data.snapshots()] {
            let name = dir.display().to_string();
            sweep(&dir).map_err(|source| Error::Io { name, action: "swept", source })?;
        }
        Ok(())
    }
}

/// Where a template is while it is being written.
pub(super) fn draft(target: &Path, name: &TemplateName) -> std::path::PathBuf {
    target.with_file_name(format!(".draft-{name}"))
}

/// [`Draft::take`] of what may be there already.
fn take_again(file: &Path, target: &Path) -> io::Result<()> {
    match fs::rename(file, target) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    chown(target, Some(0), Some(0))?;
    fs::set_permissions(target, Permissions::from_mode(0o444))
}

fn sweep(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with('.') {
            remove(&entry.path())?;
        }
    }
    Ok(())
}
