//! What an archive may hold in all: the part of the check that remembers the entries before.

use std::collections::BTreeMap;

use crate::{
    entry::{Entry, Kind},
    error::{Code, Refused},
    limits::{ENTRIES_MAX, NAMES_BYTES_MAX, RATIO_MAX, UNPACKED_BYTES_FREE, UNPACKED_BYTES_MAX},
};

/// The entries so far.
#[derive(Debug)]
pub(crate) struct Check {
    /// Bytes of the archive itself.
    packed: u64,
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
    names: u64,
    pub(crate) paths: BTreeMap<String, Seen>,
}

/// What is known of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) kind: Kind,
    /// Entries of its own; none when it is only on the way to others.
    pub(crate) entries: u32,
}

impl Check {
    pub(crate) fn new(packed: u64) -> Self {
        Self { packed, entries: 0, bytes: 0, names: 0, paths: BTreeMap::new() }
    }

    /// Lets an entry in, before its content is read.
    pub(crate) fn admit(&mut self, entry: &Entry) -> Result<(), Refused> {
        let refused = |code, message: String| Err(Refused::entry(code, &entry.path, message));
        self.entries += 1;
        self.names += entry.path.len() as u64;
        if let Kind::Link { to } = &entry.kind {
            self.names += to.len() as u64;
        }
        self.room(entry)?;
        self.bytes = self.bytes.saturating_add(entry.size);
        if self.bytes > UNPACKED_BYTES_MAX {
            let message =
                format!("makes the context larger than {UNPACKED_BYTES_MAX} bytes, unpacked");
            return refused(Code::UnpackedTooLarge, message);
        }
        if self.bytes > UNPACKED_BYTES_FREE && self.bytes / RATIO_MAX > self.packed {
            let message = format!(
                "makes the context more than {RATIO_MAX} times larger than its archive, which \
                 only a bomb is"
            );
            return refused(Code::CompressedTooMuch, message);
        }
        self.place(entry)?;
        // The way to it may be new.
        self.room(entry)
    }

    fn room(&self, entry: &Entry) -> Result<(), Refused> {
        if self.entries > ENTRIES_MAX || self.names > NAMES_BYTES_MAX {
            let message = format!(
                "is one too many: a context has at most {ENTRIES_MAX} entries, with at most \
                 {NAMES_BYTES_MAX} bytes of paths and targets of links"
            );
            return Err(Refused::entry(Code::TooManyEntries, &entry.path, message));
        }
        Ok(())
    }

    fn place(&mut self, entry: &Entry) -> Result<(), Refused> {
        let refused = |code, message: &str| Err(Refused::entry(code, &entry.path, message));
        if entry.path.is_empty() {
            return match entry.kind {
                Kind::Directory => Ok(()),
                _ => refused(Code::BadPath, "is the root, which can only be a directory"),
            };
        }
        for (end, _) in entry.path.match_indices('/') {
            let way = &entry.path[..end];
            match self.paths.get(way) {
                Some(Seen { kind: Kind::Directory, .. }) => {}
                Some(_) => {
                    let message = format!("has a path through {way:?}, which is no directory");
                    return refused(Code::ThroughLink, &message);
                }
                None => {
                    self.names += way.len() as u64;
                    let seen = Seen { kind: Kind::Directory, entries: 0 };
                    self.paths.insert(way.to_owned(), seen);
                }
            }
        }
        match self.paths.get_mut(&entry.path) {
            None => {
                let seen = Seen { kind: entry.kind.clone(), entries: 1 };
                self.paths.insert(entry.path.clone(), seen);
                Ok(())
            }
            // Archives name directories more than once, or after what is in them.
            Some(Seen { kind: Kind::Directory, entries }) if entry.kind == Kind::Directory => {
                *entries += 1;
                Ok(())
            }
            Some(Seen { entries: 0, .. }) => {
                refused(Code::ThroughLink, "is no directory, but the way to an entry before it")
            }
            Some(_) => refused(Code::DuplicateEntry, "is in the archive twice"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, kind: Kind, size: u64) -> Entry {
        Entry { path: path.into(), kind, mode: 0o644, modified: 0, size }
    }

    fn link() -> Kind {
        Kind::Link { to: "x".into() }
    }

    fn refused(entries: &[(&str, Kind)]) -> Option<Code> {
        let mut check = Check::new(1 << 30);
        let mut found = entries.iter().map(|(path, kind)| entry(path, kind.clone(), 0));
        found.find_map(|entry| check.admit(&entry).err()).map(|refused| refused.code)
    }

    #[test]
    fn directories_may_be_named_again_and_late_and_nothing_else_twice() {
        use Kind::{Directory, File};
        assert_eq!(refused(&[("a/b", File), ("a", Directory), ("a", Directory)]), None);
        assert_eq!(refused(&[("a", File), ("a", File)]), Some(Code::DuplicateEntry));
        assert_eq!(refused(&[("a", Directory), ("a", link())]), Some(Code::DuplicateEntry));
        assert_eq!(refused(&[("a", File), ("a", Directory)]), Some(Code::DuplicateEntry));
    }

    #[test]
    fn nothing_leads_through_a_link_whichever_comes_first() {
        use Kind::File;
        assert_eq!(refused(&[("a", link()), ("a/b", File)]), Some(Code::ThroughLink));
        assert_eq!(refused(&[("a/b/c", File), ("a", link())]), Some(Code::ThroughLink));
        assert_eq!(refused(&[("a", File), ("a/b", File)]), Some(Code::ThroughLink));
    }

    #[test]
    fn sizes_are_those_that_a_context_has() {
        let admit = |packed, size| Check::new(packed).admit(&entry("a", Kind::File, size));
        admit(1, UNPACKED_BYTES_FREE).unwrap();
        let bomb = admit(1 << 20, 1 << 30).unwrap_err();
        assert_eq!((bomb.code, bomb.entry.as_deref()), (Code::CompressedTooMuch, Some("a")));
        admit(1 << 25, 1 << 30).unwrap();
        let large = admit(u64::MAX, UNPACKED_BYTES_MAX + 1).unwrap_err();
        assert_eq!(large.code, Code::UnpackedTooLarge);
        let mut check = Check::new(u64::MAX);
        check.admit(&entry("a", Kind::File, u64::MAX)).unwrap_err();
        assert!(check.admit(&entry("b", Kind::File, 2)).is_err(), "it does not wrap");
    }
}
