//! What a context holds: every path, and which of them its `.ovenbirdignore` leaves out.

use std::{
    collections::{BTreeMap, HashSet},
    fs::File,
    io::{self, Read},
    ops::ControlFlow,
};

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::{
    check::{Check, Seen},
    entry::{Entry, Kind},
    error::{Code, Error, Refused},
    limits::{IGNORE_BYTES_MAX, IGNORE_LINES_MAX},
    stop::Stop,
    walk::walk,
};

/// Says what `COPY` leaves out, as a `.gitignore` would; in the context's root.
pub const IGNORE_FILE: &str = ".ovenbirdignore";

/// A context that is in order.
#[derive(Debug)]
pub struct Contents {
    /// Entries of the archive.
    pub entries: u64,
    /// Bytes of all its files.
    pub bytes: u64,
    pub(crate) paths: BTreeMap<String, Found>,
}

/// What is at a path.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) kind: Kind,
    /// Entries of the archive for it.
    pub(crate) entries: u32,
    pub(crate) is_ignored: bool,
}

impl Contents {
    /// Reads an archive to its end and checks all of it: its form, every path, link and size, and what each content
    /// really is.
    ///
    /// # Errors
    /// [`Error::Refused`] with the first thing that is wrong; [`Error::Read`], also when it is stopped.
    pub fn of(file: &File, stop: &Stop) -> Result<Self, Error> {
        let packed = file.metadata().map_err(Error::Read)?.len();
        let mut check = Check::new(packed);
        let mut rules = Vec::new();
        walk(file, stop, &mut |entry, content| {
            check.admit(entry)?;
            if entry.path == IGNORE_FILE && entry.kind == Kind::File {
                rules = ignore_file(entry, content)?;
                return Ok(ControlFlow::Continue(()));
            }
            let read = io::copy(content, &mut io::sink())
                .map_err(|error| Error::reading(error, Some(&entry.path)))?;
            whole(entry, read)?;
            Ok(ControlFlow::Continue(()))
        })?;
        let Check { entries, bytes, paths, .. } = check;
        let are_ignored = ignored(&paths, &parse(&rules)?, stop).map_err(Error::Read)?;
        let found = |((path, seen), is_ignored)| {
            let Seen { kind, entries } = seen;
            (path, Found { kind, entries, is_ignored })
        };
        let paths = paths.into_iter().zip(are_ignored).map(found).collect();
        Ok(Self { entries, bytes, paths })
    }

    /// What is at a path, unless it is left out.
    pub(crate) fn get(&self, path: &str) -> Option<&Kind> {
        self.paths.get(path).filter(|found| !found.is_ignored).map(|found| &found.kind)
    }
}

/// Whether each path is left out, from the root down: as git does it, below a directory that is left out nothing comes
/// back, and a path is held against the rules once.
fn ignored(
    paths: &BTreeMap<String, Seen>,
    rules: &Gitignore,
    stop: &Stop,
) -> io::Result<Vec<bool>> {
    let mut directories: HashSet<&str> = HashSet::new();
    let mut ignored = Vec::with_capacity(paths.len());
    for (path, seen) in paths {
        // A pattern may be slow.
        stop.look()?;
        let is_directory = seen.kind == Kind::Directory;
        let is_below = path.rsplit_once('/').is_some_and(|(above, _)| directories.contains(above));
        let is_ignored = is_below || rules.matched(path, is_directory).is_ignore();
        if is_ignored && is_directory {
            directories.insert(path);
        }
        ignored.push(is_ignored);
    }
    Ok(ignored)
}

/// A tar archive may end within its last content.
pub(crate) fn whole(entry: &Entry, read: u64) -> Result<(), Error> {
    if entry.kind == Kind::File && read != entry.size {
        let message = format!("has {read} bytes, and the archive says {}", entry.size);
        return Err(Refused::entry(Code::WrongSize, &entry.path, message).into());
    }
    Ok(())
}

fn ignore_file(entry: &Entry, content: &mut dyn Read) -> Result<Vec<u8>, Error> {
    let mut rules = Vec::new();
    let read = content.take(IGNORE_BYTES_MAX + 1).read_to_end(&mut rules);
    read.map_err(|error| Error::reading(error, Some(&entry.path)))?;
    if rules.len() as u64 > IGNORE_BYTES_MAX {
        let message = format!("is larger than {IGNORE_BYTES_MAX} bytes");
        return Err(Refused::entry(Code::BadIgnore, IGNORE_FILE, message).into());
    }
    whole(entry, rules.len() as u64)?;
    Ok(rules)
}

fn parse(rules: &[u8]) -> Result<Gitignore, Refused> {
    let bad = |message: String| Refused::entry(Code::BadIgnore, IGNORE_FILE, message);
    let text = std::str::from_utf8(rules).map_err(|_| bad("is no UTF-8".into()))?;
    if text.lines().count() > IGNORE_LINES_MAX {
        return Err(bad(format!("has more than {IGNORE_LINES_MAX} lines")));
    }
    let mut builder = GitignoreBuilder::new("");
    for (number, line) in text.lines().enumerate() {
        if let Err(error) = builder.add_line(None, line) {
            return Err(bad(format!("cannot be read in line {}: {error}", number + 1)));
        }
    }
    builder.build().map_err(|error| bad(format!("cannot be read: {error}")))
}
