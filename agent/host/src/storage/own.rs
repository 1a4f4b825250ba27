//! What all drivers do with the files of a sandbox's directory, which is root's alone.

use std::{
    fs::{File, Metadata, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

use super::{Error, check_name};

/// The disk's name in the sandbox's directory, as its machine opens it.
pub(super) const DISK: &str = "disk";
/// The ending of a file that is being written; no checkpoint's name can have it.
const NEW: &str = "+new";

/// Where a checkpoint is.
pub(super) fn kept(dir: &Path, name: &str) -> Result<PathBuf, Error> {
    check_name(name)?;
    Ok(dir.join(format!("{DISK}@{name}")))
}

/// The names of a directory's checkpoints.
pub(super) fn names_kept(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        let kept = name.to_str().and_then(|name| name.strip_prefix(DISK)?.strip_prefix('@'));
        // What has the ending is half-made.
        names.extend(kept.filter(|name| !name.ends_with(NEW)).map(str::to_owned));
    }
    Ok(names)
}

/// What there is at a path, if anything; a link is not followed.
pub(super) fn look(path: &Path) -> Result<Option<Metadata>, Error> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(failed("looked at", path, source)),
    }
}

/// A plain file's, if there is anything; what is no plain file is refused: another driver has made it.
pub(super) fn look_at_file(path: &Path) -> Result<Option<Metadata>, Error> {
    match look(path)? {
        Some(found) if !found.is_file() => {
            let source = io::Error::other("it is no plain file: another storage driver made it");
            Err(failed("used", path, source))
        }
        found => Ok(found),
    }
}

/// Removes a file; none is fine.
pub(super) fn remove_file(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Puts a file in the place of `to`, at once or not at all: `fill` gets an empty one.
pub(super) fn replace<T>(
    to: &Path,
    fill: impl FnOnce(&File) -> io::Result<T>,
) -> io::Result<(File, T)> {
    let mut new = to.as_os_str().to_owned();
    new.push(NEW);
    let new = Path::new(&new);
    let filled = (|| {
        let file = create(new)?;
        let filled = fill(&file)?;
        std::fs::rename(new, to)?;
        Ok((file, filled))
    })();
    if filled.is_err() {
        remove_file(new)?;
    }
    filled
}

/// Opens a file; a link in its place is an error.
pub(super) fn open(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(path)
}

/// An empty file, root's alone until it is complete.
pub(super) fn create(path: &Path) -> io::Result<File> {
    open(OpenOptions::new().write(true).create(true).truncate(true).mode(0o600), path)
}

/// Does blocking work where it holds nobody up.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.expect("disk work does not panic")
}

/// What the kernel's refusal means.
pub(super) fn failed(action: &'static str, path: &Path, source: io::Error) -> Error {
    if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        return Error::Full(path.to_owned());
    }
    Error::Io { action, path: path.to_owned(), source }
}
