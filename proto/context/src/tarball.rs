//! Tar archives, as POSIX and GNU write them.

use std::io::{self, Read};

use tar::{Archive, EntryType};

use crate::{
    entry::{self, Entry, Kind},
    error::{Code, Error, Refused},
    meter::{Allowance, Metered},
    stop::Stop,
    walk::Visit,
};

const MODE: u32 = 0o7777;
/// Contents are filled up to whole blocks.
const BLOCK: u64 = 512;

/// Visits every entry.
pub(crate) fn walk(reader: impl Read, stop: &Stop, visit: &mut Visit<'_>) -> Result<(), Error> {
    let allowance = Allowance::new();
    let mut archive = Archive::new(Metered::new(reader, allowance.clone()));
    let mut last: Option<String> = None;
    let mut entries = archive.entries().map_err(|error| Error::reading(error, None))?;
    loop {
        stop.look().map_err(Error::Read)?;
        allowance.headers();
        let Some(read) = entries.next() else { break };
        let mut found = read.map_err(|error| Error::reading(error, last.as_deref()))?;
        // What git writes about the whole archive.
        if found.header().entry_type() == EntryType::XGlobalHeader {
            // Still a header: its size is bounded as theirs.
            skip(&mut stop.of(&mut found), last.as_deref())?;
            continue;
        }
        let entry = of(&mut found)?;
        allowance.content(entry.size.saturating_add(BLOCK));
        let mut content = stop.of(&mut found);
        if visit(&entry, &mut content)?.is_break() {
            return Ok(());
        }
        skip(&mut content, Some(&entry.path))?;
        drop(content);
        last = Some(entry.path);
    }
    Ok(())
}

/// To the end of what is left of an entry.
fn skip(found: &mut impl Read, name: Option<&str>) -> Result<(), Error> {
    io::copy(found, &mut io::sink()).map_err(|error| Error::reading(error, name))?;
    Ok(())
}

fn of<R: Read>(found: &mut tar::Entry<'_, R>) -> Result<Entry, Error> {
    let path = entry::path(&found.path_bytes())?;
    let broken = |error: io::Error| Error::reading(error, Some(&path));
    let unsupported = |what: &str, hint: &str| -> Error {
        let message = format!("is {what}, which a context cannot have: {hint}");
        Refused::entry(Code::UnsupportedEntry, &path, message).into()
    };
    let header = found.header();
    let mode = header.mode().map_err(broken)? & MODE;
    let modified = header.mtime().unwrap_or_default();
    let of_kind = header.entry_type();
    let kind = match of_kind {
        EntryType::Regular | EntryType::Continuous => Kind::File,
        EntryType::Directory => Kind::Directory,
        EntryType::Symlink => {
            let to = found.link_name_bytes().unwrap_or_default();
            Kind::Link { to: entry::target(&path, &to)? }
        }
        EntryType::Link => {
            return Err(unsupported("a hard link", "make the archive with tar --hard-dereference"));
        }
        EntryType::GNUSparse => {
            return Err(unsupported("a sparse file", "make the archive without --sparse"));
        }
        EntryType::Char | EntryType::Block => return Err(unsupported("a device", "leave it out")),
        EntryType::Fifo => return Err(unsupported("a FIFO", "leave it out")),
        _ => return Err(unsupported("of an unknown kind", "leave it out")),
    };
    // The newer form of sparse files looks like a plain one.
    let extensions = found.pax_extensions().map_err(|error| Error::reading(error, Some(&path)))?;
    for extension in extensions.into_iter().flatten() {
        let extension = extension.map_err(|error| Error::reading(error, Some(&path)))?;
        if extension.key_bytes().starts_with(b"GNU.sparse.") {
            return Err(unsupported("a sparse file", "make the archive without --sparse"));
        }
    }
    let size = found.size();
    // It would be read, and be counted nowhere.
    if kind != Kind::File && size > 0 {
        let message = format!("is no file, and the archive says that it has {size} bytes");
        return Err(Refused::entry(Code::WrongSize, &path, message).into());
    }
    Ok(Entry { path, kind, mode, modified, size })
}
