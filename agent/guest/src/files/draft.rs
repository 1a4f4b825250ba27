//! A file on its way to its name: a temporary one beside it, and what has to go again when it is not finished.
//!
//! Temporary files are called `.ovenbird-<number>.tmp` with the lowest number that no other write of this program
//! has. So one that lies there under a number that was just given out is of a machine that ended in the middle of a
//! write, or of a disk that was copied then, and is replaced: such leftovers do not pile up.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, chown, lchown, symlink},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use ovenbird_guest_protocol::v1::WriteFileMeta;

use super::{MODE, check_path};
use crate::{error::Error, users};

/// The numbers of the writes that are going on.
static TAKEN: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

fn taken() -> MutexGuard<'static, BTreeSet<u32>> {
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A number that is one write's alone for as long as it lasts.
struct Number(u32);

impl Number {
    fn take() -> Self {
        let mut taken = taken();
        let free = (0..).find(|number| !taken.contains(number));
        let number = free.expect("there are fewer writes than numbers");
        taken.insert(number);
        Self(number)
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        taken().remove(&self.0);
    }
}

/// Ids of a user and of its group.
#[derive(Clone, Copy)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// See the module. Dropping it without [`Draft::publish`] takes everything away again.
pub(super) struct Draft {
    pub(super) mode: u32,
    pub(super) owner: Owner,
    pub(super) folder: PathBuf,
    path: PathBuf,
    temporary: PathBuf,
    /// Folders that were made for it, from the top.
    parents: Vec<PathBuf>,
    is_published: bool,
    _number: Number,
}

impl Draft {
    /// Checks what is asked for, makes the folders that are missing, and opens an empty temporary file.
    ///
    /// Blocking, and on purpose not in the background: a call that ends meanwhile would leave a file that is made
    /// after it.
    pub(super) fn begin(meta: &WriteFileMeta) -> Result<(Self, File), Error> {
        let path = Path::new(&meta.path);
        let folder = check(meta, path)?;
        let asked = match meta.user.as_str() {
            "" => None,
            name => Some(users::find(name)?),
        };
        let asked = asked.map(|user| Owner { uid: user.uid, gid: user.gid });
        let failed = || Error::file(&meta.path);
        let mut draft = Self::new(path, folder, asked.unwrap_or(Owner { uid: 0, gid: 0 }));
        draft.mode = meta.mode;
        let replaced = replaced(path)?;
        if meta.mode == 0 {
            draft.mode = replaced.as_ref().map_or(0o644, |file| file.mode() & MODE);
        }
        if let (None, true, Some(file)) = (asked, meta.keep_owner, replaced) {
            draft.owner = Owner { uid: file.uid(), gid: file.gid() };
        }
        if meta.make_parents {
            draft.make_parents().map_err(failed())?;
        }
        let file = draft.open().map_err(failed())?;
        Ok((draft, file))
    }

    fn new(path: &Path, folder: &Path, owner: Owner) -> Self {
        let number = Number::take();
        Self {
            mode: 0,
            owner,
            folder: folder.to_owned(),
            path: path.to_owned(),
            temporary: folder.join(format!(".ovenbird-{}.tmp", number.0)),
            parents: Vec::new(),
            is_published: false,
            _number: number,
        }
    }

    /// As [`Draft::begin`], for a file in a folder that is there.
    pub(super) fn of_file(path: &Path, folder: &Path, owner: Owner) -> io::Result<(Self, File)> {
        let draft = Self::new(path, folder, owner);
        let file = draft.open()?;
        Ok((draft, file))
    }

    /// A symbolic link in a folder that is there.
    pub(super) fn of_link(path: &Path, folder: &Path, owner: Owner, to: &Path) -> io::Result<Self> {
        let draft = Self::new(path, folder, owner);
        draft.clear()?;
        symlink(to, &draft.temporary)?;
        lchown(&draft.temporary, Some(owner.uid), Some(owner.gid))?;
        Ok(draft)
    }

    fn make_parents(&mut self) -> io::Result<()> {
        let folder = self.folder.clone();
        let missing: Vec<_> = folder.ancestors().take_while(|path| !path.exists()).collect();
        for path in missing.into_iter().rev() {
            match DirBuilder::new().mode(0o755).create(path) {
                // A process of the guest was faster.
                Err(_) if path.is_dir() => continue,
                made => made?,
            }
            self.parents.push(path.to_owned());
            chown(path, Some(self.owner.uid), Some(self.owner.gid))?;
        }
        Ok(())
    }

    /// Takes away what a machine left that ended in the middle.
    fn clear(&self) -> io::Result<()> {
        match fs::remove_file(&self.temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn open(&self) -> io::Result<File> {
        self.clear()?;
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.temporary)
    }

    /// Gives the file its name. What was there before is gone from here on, and not a moment earlier.
    ///
    /// Blocking, as [`Draft::begin`]: a rename that comes after the end of its call could meet the next one's file.
    pub(super) fn publish(mut self) -> io::Result<()> {
        fs::rename(&self.temporary, &self.path)?;
        self.is_published = true;
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.is_published {
            return;
        }
        let _ = fs::remove_file(&self.temporary);
        for parent in self.parents.iter().rev() {
            // Somebody else may have put something there.
            let _ = fs::remove_dir(parent);
        }
    }
}

/// Refuses what names no file; the folder that it is to be in.
fn check<'a>(meta: &WriteFileMeta, path: &'a Path) -> Result<&'a Path, Error> {
    check_path("path", &meta.path)?;
    if meta.mode & !MODE != 0 {
        return Err(Error::argument("mode", "has more than permission bits"));
    }
    if meta.path.ends_with('/') {
        return Err(Error::argument("path", "ends with a slash: name a file in that folder"));
    }
    match (path.parent(), path.file_name()) {
        (Some(folder), Some(_)) => Ok(folder),
        _ => Err(Error::argument("path", "names no file")),
    }
}

/// The file that is about to be replaced, or nothing where there is none or a link.
fn replaced(path: &Path) -> Result<Option<fs::Metadata>, Error> {
    let name = || path.to_string_lossy().into_owned();
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_file() => Ok(Some(found)),
        Ok(found) if found.is_symlink() => Ok(None),
        Ok(found) if found.is_dir() => Err(Error::Folder { path: name() }),
        Ok(_) => Err(Error::NotRegular { path: name() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file(&name())(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(path: &Path) -> WriteFileMeta {
        WriteFileMeta {
            path: path.to_str().unwrap().into(),
            make_parents: true,
            keep_owner: true,
            ..WriteFileMeta::default()
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap().flatten();
        let mut names: Vec<_> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn draft_that_is_dropped_takes_its_file_and_its_folders_along_but_not_what_others_put_there() {
        let root = tempfile::tempdir().unwrap();
        let (draft, _) = Draft::begin(&meta(&root.path().join("a/b/c/file"))).unwrap();
        assert_eq!(names(&root.path().join("a/b/c")).len(), 1);
        fs::write(root.path().join("a/other"), "x").unwrap();
        drop(draft);
        assert_eq!(names(root.path()), ["a"]);
        assert_eq!(names(&root.path().join("a")), ["other"]);
    }

    #[test]
    fn leftover_of_a_machine_that_ended_in_the_middle_is_replaced_by_the_next_write() {
        let root = tempfile::tempdir().unwrap();
        // Other tests take numbers at the same time.
        for number in 0..8 {
            fs::write(root.path().join(format!(".ovenbird-{number}.tmp")), "half").unwrap();
        }
        let (draft, _) = Draft::begin(&meta(&root.path().join("file"))).unwrap();
        assert_eq!(fs::metadata(&draft.temporary).unwrap().len(), 0);
        draft.publish().unwrap();
        let names = names(root.path());
        assert!(names.len() == 8 && names.contains(&"file".to_owned()), "{names:?}");
    }

    #[test]
    fn writes_at_the_same_time_have_files_of_their_own_and_the_last_one_stays() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        let (one, _) = Draft::begin(&meta(&path)).unwrap();
        let (two, _) = Draft::begin(&meta(&path)).unwrap();
        assert_ne!(one.temporary, two.temporary);
        fs::write(&one.temporary, "one").unwrap();
        fs::write(&two.temporary, "two").unwrap();
        two.publish().unwrap();
        one.publish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(names(root.path()), ["file"]);
    }
}
