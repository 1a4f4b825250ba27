//! Why an archive is not taken.

use std::io;

/// As much of an entry's name as is shown, in characters.
const SHOWN_MAX: usize = 200;

macro_rules! codes {
    ($($name:ident = $word:literal, $meaning:literal;)+) => {
        /// What is wrong with an archive: a closed set, for programs.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {
            $(#[doc = $meaning] $name,)+
        }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The word in JSON.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)+ }
            }

            /// A sentence about it.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning,)+ }
            }
        }
    };
}

codes! {
    NotAnArchive = "not_an_archive", "The file is no tar, tar.gz or zip archive.";
    BrokenArchive = "broken_archive", "The archive ends early, or contradicts itself.";
    BadPath = "bad_path", "The entry's path is absolute, leads out of the archive, or is none that Linux takes.";
    LinkOutside = "link_outside", "The symbolic link leads out of the archive.";
    ThroughLink = "through_link", "The entry's path leads through a link or a file of the archive.";
    DuplicateEntry = "duplicate_entry", "The archive has two entries of this path.";
    UnsupportedEntry = "unsupported_entry", "The entry is a device, FIFO, socket, hard link or sparse file, is \
        encrypted, or compressed in a way that is not read here.";
    WrongSize = "wrong_size", "The entry has another size than the archive says.";
    TooManyEntries = "too_many_entries", "The archive has more entries than a context may have.";
    UnpackedTooLarge = "unpacked_too_large", "The archive's files are larger than a context's may be.";
    CompressedTooMuch = "compressed_too_much", "The archive is compressed as no context is, but a bomb.";
    BadIgnore = "bad_ignore", "The .ovenbirdignore has a pattern that cannot be read, or is too long.";
}

/// An archive that is not taken: the first thing that is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// What is wrong, for programs.
    pub code: Code,
    /// The entry's path as far as it can be shown, unless it is about the whole archive.
    pub entry: Option<String>,
    /// What is wrong and what to do, for people.
    pub message: String,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.entry {
            Some(entry) => write!(f, "the entry {entry:?} {}", self.message),
            None => write!(f, "the archive {}", self.message),
        }
    }
}

impl std::error::Error for Refused {}

impl Refused {
    pub(crate) fn archive(code: Code, message: impl Into<String>) -> Self {
        Self { code, entry: None, message: message.into() }
    }

    pub(crate) fn entry(code: Code, name: &str, message: impl Into<String>) -> Self {
        let mut entry: String = name.chars().take(SHOWN_MAX).collect();
        if entry.len() < name.len() {
            entry.push('…');
        }
        Self { code, entry: Some(entry), message: message.into() }
    }
}

/// Why an archive could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is the archive's fault.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The file that holds it cannot be read.
    #[error("the archive's file cannot be read")]
    Read(#[source] io::Error),
    /// What was packed was not taken.
    #[error("what was packed was not taken")]
    Write(#[source] io::Error),
}

impl Error {
    /// An error while an archive was read: of the file behind it, or of what it holds.
    pub(crate) fn reading(error: io::Error, last: Option<&str>) -> Self {
        if error.raw_os_error().is_some() {
            return Self::Read(error);
        }
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Refused>()) {
            Some(refused) => Self::Refused(refused.clone()),
            None => Self::Refused(broken(&error.to_string(), last)),
        }
    }
}

/// It cannot be read on from here.
pub(crate) fn broken(why: &str, last: Option<&str>) -> Refused {
    let why = why.trim_end_matches('.');
    match last {
        Some(last) => Refused::entry(
            Code::BrokenArchive,
            last,
            format!("is broken, or what follows it: {why}"),
        ),
        None => Refused::archive(Code::BrokenArchive, format!("is broken: {why}")),
    }
}
