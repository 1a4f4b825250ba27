//! What was selected of an archive, as one plain tar: no owners, no long-gone formats, nothing that was not checked.

use std::{
    fs::File,
    io::{self, Read, Write},
    ops::ControlFlow,
};

use tar::{Builder, EntryType, Header};

use crate::{
    contents::whole,
    entry::{Entry, Kind},
    error::Error,
    select::Selection,
    stop::Stop,
    walk::walk,
};

/// How much was packed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Packed {
    /// Regular files.
    pub files: u64,
    /// Directories that have an entry.
    pub directories: u64,
    /// Symbolic links.
    pub links: u64,
    /// Bytes of the files.
    pub bytes: u64,
}

/// Writes what `selection` takes of an archive that was found in order. Modes and times are kept; everything is root's.
/// The archive is read no further than to the last of it.
///
/// # Errors
/// [`Error::Write`] when `out` takes no more; as [`Contents::of`](crate::Contents::of).
pub fn pack(
    file: &File,
    selection: &Selection,
    stop: &Stop,
    out: impl Write,
) -> Result<Packed, Error> {
    let mut builder = Builder::new(out);
    let mut packed = Packed::default();
    let mut left = selection.entries;
    if left > 0 {
        walk(file, stop, &mut |entry, content| {
            if let Some(&name) = selection.names.get(&entry.path) {
                append(&mut builder, entry, &entry.path[name..], content, &mut packed)?;
                left -= 1;
            }
            Ok(if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
    }
    builder.into_inner().and_then(|mut out| out.flush()).map_err(Error::Write)?;
    Ok(packed)
}

fn append(
    builder: &mut Builder<impl Write>,
    entry: &Entry,
    name: &str,
    content: &mut dyn Read,
    packed: &mut Packed,
) -> Result<(), Error> {
    let mut header = Header::new_gnu();
    header.set_mode(entry.mode);
    header.set_mtime(entry.modified);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    match &entry.kind {
        Kind::Directory => {
            packed.directories += 1;
            header.set_entry_type(EntryType::Directory);
            builder.append_data(&mut header, name, io::empty()).map_err(Error::Write)
        }
        Kind::Link { to } => {
            packed.links += 1;
            header.set_entry_type(EntryType::Symlink);
            builder.append_link(&mut header, name, to).map_err(Error::Write)
        }
        Kind::File => {
            packed.files += 1;
            packed.bytes += entry.size;
            header.set_entry_type(EntryType::Regular);
            header.set_size(entry.size);
            let mut source = Source { inner: content.take(entry.size), read: 0, failure: None };
            let written = builder.append_data(&mut header, name, &mut source);
            if let Some(error) = source.failure.take() {
                return Err(Error::reading(error, Some(&entry.path)));
            }
            written.map_err(Error::Write)?;
            whole(entry, source.read)
        }
    }
}

/// Tells an archive that cannot be read from a reader that goes away.
struct Source<'a> {
    inner: io::Take<&'a mut dyn Read>,
    read: u64,
    failure: Option<io::Error>,
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.inner.read(buffer) {
            Ok(read) => {
                self.read += read as u64;
                Ok(read)
            }
            Err(error) => {
                let kind = error.kind();
                self.failure = Some(error);
                Err(kind.into())
            }
        }
    }
}
