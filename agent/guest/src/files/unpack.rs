//! Archives: a tar stream becomes files, directories and symbolic links, entry by entry.
//!
//! ```text
//!  messages ── chunks ──► queue of two ──► one blocking thread: entry ─► draft ─► its name
//! ```
//!
//! What is there already and is a directory stays as it is, also where the way to it leads over a link: a program of
//! the sandbox could have made it, and may have any place in it written anyway. Everything else is replaced, whole.
//! The caller decided what is in the archive; here it is only kept below the place that was named.

use std::{
    collections::HashSet,
    fs::{self, DirBuilder, Permissions},
    io::{self, Read},
    os::unix::fs::{DirBuilderExt, PermissionsExt, chown, fchown},
    path::{Component, Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use bytes::{Buf as _, Bytes};
use futures::{Stream, StreamExt as _};
use ovenbird_guest_protocol::{
    WRITE_CHUNK_MAX,
    v1::{
        UnpackMeta, UnpackResponse, WriteFileMeta, WriteFileRequest, write_file_request::Content,
    },
};
use tar::{Archive, Entry, EntryType};
use tokio::sync::mpsc;
use tonic::Status;

use super::{
    MODE, check_path,
    draft::{Draft, Owner},
};
use crate::{error::Error, users};

/// Chunks that wait for the disk.
const QUEUE: usize = 2;
const DIRECTORY_MODE: u32 = 0o755;

/// Unpacks the archive that the messages are; what was made.
pub(crate) async fn unpack(
    mut messages: impl Stream<Item = Result<WriteFileRequest, Status>> + Unpin,
) -> Result<UnpackResponse, Error> {
    let first = messages.next().await.transpose().map_err(Error::Upload)?;
    let Some(WriteFileRequest { content: Some(Content::Meta(meta)) }) = first else {
        return Err(Error::argument("meta", "is not in the first message"));
    };
    let (sender, pieces) = mpsc::channel(QUEUE);
    let source = Source { pieces, rest: Bytes::new(), is_whole: false };
    let work = tokio::task::spawn_blocking(move || Unpacking::begin(meta)?.run(source));
    let fed = feed(&mut messages, &sender).await;
    // Without its sender an archive that is not whole ends here.
    drop(sender);
    let done = work.await.map_err(|error| Error::system("unpacking")(io::Error::other(error)))?;
    fed.and(done)
}

enum Piece {
    Chunk(Bytes),
    Last,
}

/// Hands the chunks over, as long as somebody takes them: who does not says why.
async fn feed(
    messages: &mut (impl Stream<Item = Result<WriteFileRequest, Status>> + Unpin),
    pieces: &mpsc::Sender<Piece>,
) -> Result<(), Error> {
    while let Some(message) = messages.next().await {
        let Some(Content::Chunk(chunk)) = message.map_err(Error::Upload)?.content else {
            return Err(Error::argument("content", "is not a chunk"));
        };
        if chunk.len() > WRITE_CHUNK_MAX {
            return Err(Error::argument("chunk", "is longer than 1 MiB"));
        }
        if pieces.send(Piece::Chunk(chunk)).await.is_err() {
            return Ok(());
        }
    }
    let _ = pieces.send(Piece::Last).await;
    Ok(())
}

/// The chunks as one stream of bytes. An end that nobody said is an error.
struct Source {
    pieces: mpsc::Receiver<Piece>,
    rest: Bytes,
    is_whole: bool,
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() && !self.is_whole {
            match self.pieces.blocking_recv() {
                Some(Piece::Chunk(chunk)) => self.rest = chunk,
                Some(Piece::Last) => self.is_whole = true,
                None => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it broke off")),
            }
        }
        let length = self.rest.len().min(buffer.len());
        self.rest.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

struct Unpacking {
    /// Where entries go, or the one file.
    path: PathBuf,
    as_file: bool,
    owner: Owner,
    done: UnpackResponse,
    /// Directories that were needed before their entry, if it comes at all.
    early: HashSet<PathBuf>,
}

impl Unpacking {
    fn begin(meta: WriteFileMeta) -> Result<Self, Error> {
        let WriteFileMeta { path, user, unpack: Some(UnpackMeta { group, as_file }), .. } = meta
        else {
            return Err(Error::argument("unpack", "is missing"));
        };
        check_path("path", &path)?;
        let (uid, gid) = users::owner(&user, &group)?;
        let is_directory = path.ends_with('/') || Path::new(&path).is_dir();
        let as_file = as_file && !is_directory;
        let done = UnpackResponse::default();
        let (owner, early) = (Owner { uid, gid }, HashSet::new());
        Ok(Self { path: PathBuf::from(path), as_file, owner, done, early })
    }

    fn run(mut self, source: Source) -> Result<UnpackResponse, Error> {
        if !self.as_file {
            self.folder(&self.path.clone())?;
        }
        let mut archive = Archive::new(source);
        for entry in archive.entries().map_err(Error::Archive)? {
            let mut entry = entry.map_err(Error::Archive)?;
            let path = self.place(&entry)?;
            let mode = entry.header().mode().map_err(Error::Archive)? & MODE;
            match entry.header().entry_type() {
                EntryType::Directory => self.directory(&path, mode)?,
                EntryType::Regular => self.file(&path, mode, &mut entry)?,
                EntryType::Symlink => self.link(&path, &entry)?,
                _ => return Err(Error::argument("archive", "holds more than files and links")),
            }
            self.done.entries += 1;
        }
        // What follows the archive, and the word that it was whole.
        io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(Error::Archive)?;
        Ok(self.done)
    }

    /// Where an entry goes.
    fn place(&self, entry: &Entry<'_, Source>) -> Result<PathBuf, Error> {
        if self.as_file {
            return match self.done.entries {
                0 if entry.header().entry_type() != EntryType::Directory => Ok(self.path.clone()),
                _ => Err(Error::argument("archive", "holds more than the one file")),
            };
        }
        let name = entry.path().map_err(Error::Archive)?;
        let is_below = name.components().all(|part| matches!(part, Component::Normal(_)));
        if !is_below || name.as_os_str().is_empty() {
            return Err(Error::argument("archive", "holds a path that leads out of it"));
        }
        let path = self.path.join(name);
        check_path("path", &path.to_string_lossy())?;
        Ok(path)
    }

    /// Makes what is missing of a folder and of those above it.
    fn folder(&mut self, path: &Path) -> Result<(), Error> {
        let missing: Vec<_> = path.ancestors().take_while(|path| !path.is_dir()).collect();
        for path in missing.into_iter().rev() {
            self.make(path, DIRECTORY_MODE)?;
            self.early.insert(path.to_owned());
        }
        Ok(())
    }

    fn directory(&mut self, path: &Path, mode: u32) -> Result<(), Error> {
        if path.is_dir() {
            // One that was there before this keeps its own.
            return match self.early.remove(path) {
                true => set_mode(path, mode),
                false => Ok(()),
            };
        }
        self.folder(above(path))?;
        self.make(path, mode)
    }

    fn make(&self, path: &Path, mode: u32) -> Result<(), Error> {
        let name = path.to_string_lossy();
        let failed = || Error::file(&name);
        match DirBuilder::new().mode(0o700).create(path) {
            // A process of the guest was faster.
            Err(_) if path.is_dir() => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let path = name.into_owned();
                return Err(Error::InTheWay { path, is: "no directory", what: "a directory" });
            }
            made => made.map_err(failed())?,
        }
        chown(path, Some(self.owner.uid), Some(self.owner.gid)).map_err(failed())?;
        set_mode(path, mode)
    }

    fn file(&mut self, path: &Path, mode: u32, entry: &mut Entry<'_, Source>) -> Result<(), Error> {
        let name = path.to_string_lossy();
        let failed = || Error::file(&name);
        self.free(path, "a file")?;
        let (draft, mut file) = Draft::of_file(path, above(path), self.owner).map_err(failed())?;
        self.done.bytes += copy(entry, &mut file, failed)?;
        // The owner first: a change of owner takes the set-user-id bits away.
        fchown(&file, Some(self.owner.uid), Some(self.owner.gid)).map_err(failed())?;
        file.set_permissions(Permissions::from_mode(mode)).map_err(failed())?;
        let modified = entry.header().mtime().map_err(Error::Archive)?;
        // Later than a file system can say is no reason to fail.
        let _ = UNIX_EPOCH
            .checked_add(Duration::from_secs(modified))
            .map(|modified| file.set_modified(modified));
        draft.publish().map_err(failed())
    }

    fn link(&mut self, path: &Path, entry: &Entry<'_, Source>) -> Result<(), Error> {
        let name = path.to_string_lossy();
        let failed = || Error::file(&name);
        let Some(to) = entry.link_name().map_err(Error::Archive)? else {
            return Err(Error::argument("archive", "holds a link to nothing"));
        };
        self.free(path, "a link")?;
        let draft = Draft::of_link(path, above(path), self.owner, &to).map_err(failed())?;
        draft.publish().map_err(failed())
    }

    /// Makes the folder of what is to come, which must not replace a directory.
    fn free(&mut self, path: &Path, what: &'static str) -> Result<(), Error> {
        self.folder(above(path))?;
        match fs::symlink_metadata(path) {
            Ok(found) if found.is_dir() => {
                let path = path.to_string_lossy().into_owned();
                Err(Error::InTheWay { path, is: "a directory", what })
            }
            _ => Ok(()),
        }
    }
}

fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    let name = path.to_string_lossy();
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(Error::file(&name))
}

fn above(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// Copies an entry, and tells an archive that breaks off from a disk that is full.
fn copy<F: FnOnce(io::Error) -> Error>(
    entry: &mut Entry<'_, Source>,
    file: &mut fs::File,
    failed: impl Fn() -> F,
) -> Result<u64, Error> {
    let mut buffer = vec![0; 64 * 1024];
    let (size, mut copied) = (entry.size(), 0);
    loop {
        let read = entry.read(&mut buffer).map_err(Error::Archive)?;
        if read == 0 {
            break;
        }
        io::Write::write_all(file, &buffer[..read]).map_err(failed())?;
        copied += read as u64;
    }
    if copied < size {
        return Err(Error::Archive(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(copied)
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
