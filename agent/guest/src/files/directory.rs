//! Directories: listed in pages, made, and removed. Nothing follows a symbolic link at the end of a path but a listing.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs, io,
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{DirBuilderExt, MetadataExt},
    },
    path::Path,
};

use ovenbird_guest_protocol::v1::{
    DirectoryEntry, FileKind, ListDirectoryRequest, ListDirectoryResponse, MakeDirectoryRequest,
    MakeDirectoryResponse, RemovePathRequest,
};

use super::{MODE, check_path};
use crate::error::Error;

/// Entries of one answer: some 300 KiB at most.
const PAGE_MAX: usize = 1000;
const DIRECTORY_MODE: u32 = 0o755;

/// A page of a directory.
pub(crate) async fn list(request: ListDirectoryRequest) -> Result<ListDirectoryResponse, Error> {
    let path = request.path;
    check_path("path", &path)?;
    let limit = match request.limit {
        0 => PAGE_MAX,
        limit => usize::try_from(limit).unwrap_or(PAGE_MAX).min(PAGE_MAX),
    };
    blocking(path, move |path| page(path, &request.after, limit)).await
}

/// No more names are held than one page has, however many there are.
fn page(path: &Path, after: &[u8], limit: usize) -> io::Result<ListDirectoryResponse> {
    let mut names = BTreeSet::new();
    let mut more = false;
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name().into_vec();
        if name.as_slice() > after {
            names.insert(name);
        }
        if names.len() > limit {
            names.pop_last();
            more = true;
        }
    }
    let entries = names.into_iter().filter_map(|name| {
        // It may be gone by now.
        let meta = fs::symlink_metadata(path.join(OsStr::from_bytes(&name))).ok()?;
        Some(entry(name, &meta))
    });
    Ok(ListDirectoryResponse { entries: entries.collect(), more })
}

fn entry(name: Vec<u8>, meta: &fs::Metadata) -> DirectoryEntry {
    let kind = match meta.file_type() {
        kind if kind.is_file() => FileKind::File,
        kind if kind.is_dir() => FileKind::Directory,
        kind if kind.is_symlink() => FileKind::Link,
        _ => FileKind::Other,
    };
    DirectoryEntry {
        name: name.into(),
        kind: kind.into(),
        size: meta.len(),
        mode: meta.mode() & MODE,
        modified_unix: meta.mtime(),
    }
}

/// Makes a directory, unless it is there.
pub(crate) async fn make(request: MakeDirectoryRequest) -> Result<MakeDirectoryResponse, Error> {
    let MakeDirectoryRequest { path, make_parents } = request;
    check_path("path", &path)?;
    let make = move |path: &Path| {
        let mut builder = fs::DirBuilder::new();
        builder.mode(DIRECTORY_MODE);
        if make_parents && let Some(parent) = path.parent() {
            builder.recursive(true).create(parent)?;
            builder.recursive(false);
        }
        match builder.create(path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let is_directory = fs::metadata(path).is_ok_and(|meta| meta.is_dir());
                if is_directory { Ok(false) } else { Err(error) }
            }
            Err(error) => Err(error),
        }
    };
    Ok(MakeDirectoryResponse { made: blocking(path, make).await? })
}

/// Removes what is at a path.
pub(crate) async fn remove(request: RemovePathRequest) -> Result<(), Error> {
    let RemovePathRequest { path, recursive } = request;
    check_path("path", &path)?;
    if path.bytes().all(|byte| byte == b'/') {
        return Err(Error::argument("path", "is the root, which cannot be removed"));
    }
    // Of a link, not of what it points to, also when the path ends with a slash.
    let path = path.trim_end_matches('/').to_owned();
    let remove = move |path: &Path| match fs::symlink_metadata(path)?.is_dir() {
        true if recursive => fs::remove_dir_all(path),
        true => fs::remove_dir(path),
        false => fs::remove_file(path),
    };
    blocking(path, remove).await
}

async fn blocking<T: Send + 'static>(
    path: String,
    work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> Result<T, Error> {
    let work = move || work(Path::new(&path)).map_err(Error::file(&path));
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|panic| Error::system("working in a directory")(io::Error::other(panic)))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn directory_is_listed_in_pages_without_a_gap_and_made_and_removed_again() {
        let root = std::env::temp_dir().join(format!("directory-{}", std::process::id()));
        let path = |name: &str| format!("{}/{name}", root.display());
        let make = |name: &str| make(MakeDirectoryRequest { path: path(name), make_parents: true });
        assert!(make("a/b").await.unwrap().made && !make("a/b").await.unwrap().made);
        for name in ["a/z", "a/\u{e4}", "a/m"] {
            fs::write(path(name), "four").unwrap();
        }
        std::os::unix::fs::symlink("/", path("a/link")).unwrap();
        let (mut seen, mut after) = (Vec::new(), Vec::new());
        loop {
            let request = ListDirectoryRequest { path: path("a"), after: after.into(), limit: 2 };
            let page = list(request).await.unwrap();
            assert!(page.entries.len() <= 2);
            after = page.entries.last().unwrap().name.to_vec();
            seen.extend(
                page.entries
                    .into_iter()
                    .map(|entry| (String::from_utf8(entry.name.to_vec()).unwrap(), entry.kind())),
            );
            if !page.more {
                break;
            }
        }
        use FileKind::{Directory, File, Link};
        let all = [("b", Directory), ("link", Link), ("m", File), ("z", File), ("\u{e4}", File)];
        assert_eq!(seen, all.map(|(name, kind)| (name.to_owned(), kind)));

        let remove =
            |name: &str, recursive| remove(RemovePathRequest { path: path(name), recursive });
        assert!(remove("a", false).await.is_err(), "it is not empty");
        remove("a/link/", false).await.unwrap();
        assert!(Path::new("/proc").exists(), "what a link points to stays");
        assert!(make("a/m").await.is_err(), "a file is there");
        remove("a", true).await.unwrap();
        assert!(remove("a", true).await.is_err());
        for root in ["/", "//"] {
            let request = RemovePathRequest { path: root.into(), recursive: true };
            assert!(matches!(super::remove(request).await, Err(Error::Argument { .. })));
        }
        fs::remove_dir_all(root).unwrap();
    }
}
