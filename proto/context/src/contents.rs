//! What a context holds: every path, and which of them its `.ovenbirdignore` leaves out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Read},
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
    pub(crate) paths: BTreeMap<String, Kind>,
    pub(crate) ignored: BTreeSet<String>,
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
                return Ok(());
            }
            let read = io::copy(content, &mut io::sink())
                .map_err(|error| Error::reading(error, Some(&entry.path)))?;
            whole(entry, read)
        })?;
        let Check { entries, bytes, paths, .. } = check;
        let paths: BTreeMap<_, _> =
            paths.into_iter().map(|(path, Seen { kind, .. })| (path, kind)).collect();
        let rules = parse(&rules)?;
        let is_ignored = |path: &str, kind: &Kind| {
            rules.matched_path_or_any_parents(path, *kind == Kind::Directory).is_ignore()
        };
        let ignored = match rules.is_empty() {
            true => BTreeSet::new(),
            false => {
                let ignored = paths.iter().filter(|(path, kind)| is_ignored(path, kind));
                ignored.map(|(path, _)| path.clone()).collect()
            }
        };
        Ok(Self { entries, bytes, paths, ignored })
    }

    /// What is at a path, unless it is left out.
    pub(crate) fn get(&self, path: &str) -> Option<&Kind> {
        self.paths.get(path).filter(|_| !self.ignored.contains(path))
    }
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
