//! One entry of an archive, and the paths and targets that it may have.

use crate::{
    error::{Code, Refused},
    limits::{NAME_BYTES_MAX, PATH_BYTES_MAX, PATH_DEPTH_MAX},
};

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, to what is within the archive.
    Link {
        /// Relative to where the link is.
        to: String,
    },
}

/// An entry, as its archive has it, with a path that is clean.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Relative, without `.`, `..` and double slashes; empty for the root itself.
    pub(crate) path: String,
    pub(crate) kind: Kind,
    /// Permission bits.
    pub(crate) mode: u32,
    /// Seconds since 1970.
    pub(crate) modified: u64,
    /// Bytes of a file.
    pub(crate) size: u64,
}

/// The clean path of an entry.
pub(crate) fn path(name: &[u8]) -> Result<String, Refused> {
    let shown = String::from_utf8_lossy(name);
    let bad = |message: &str| Err(Refused::entry(Code::BadPath, &shown, message));
    let Ok(name) = std::str::from_utf8(name) else { return bad("has a name that is no UTF-8") };
    if name.is_empty() {
        return bad("has no name");
    }
    if name.starts_with('/') {
        return bad("has an absolute path");
    }
    if name.contains('\0') {
        return bad("has a NUL in its name");
    }
    if name.len() > PATH_BYTES_MAX {
        return bad("has a path of more than 4095 bytes");
    }
    let mut parts = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => return bad("has a path with `..`"),
            part if part.len() > NAME_BYTES_MAX => return bad("has a name of more than 255 bytes"),
            part => parts.push(part),
        }
    }
    if parts.len() > PATH_DEPTH_MAX {
        return bad("has a path of more than 256 names");
    }
    Ok(parts.join("/"))
}

/// The target of a link at `path`, which must be within the archive. `..` may only begin it: after a name it would
/// depend on where that leads.
pub(crate) fn target(path: &str, to: &[u8]) -> Result<String, Refused> {
    let bad = |code, message: String| Err(Refused::entry(code, path, message));
    let Ok(text) = std::str::from_utf8(to) else {
        return bad(Code::BadPath, "is a link to a name that is no UTF-8".into());
    };
    if text.is_empty() || text.contains('\0') || text.len() > PATH_BYTES_MAX {
        return bad(Code::BadPath, "is a link to what is no path".into());
    }
    if text.starts_with('/') {
        let message = format!("is a link to {text:?}, outside of the archive: make it relative");
        return bad(Code::LinkOutside, message);
    }
    let mut up = 0;
    let mut down = false;
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." if down => up = usize::MAX,
            ".." => up += 1,
            _ => down = true,
        }
    }
    if up > path.matches('/').count() {
        let message = format!("is a link to {text:?}, which leads out of the archive");
        return bad(Code::LinkOutside, message);
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_is_cleaned_or_refused() {
        for (name, clean) in
            [("a", "a"), ("./a//b/", "a/b"), (".", ""), ("ä b/…", "ä b/…"), ("..a/b..", "..a/b..")]
        {
            assert_eq!(path(name.as_bytes()).unwrap(), clean);
        }
        let long = format!("a/{}", "n".repeat(256));
        let (longest, deep) = ("a/".repeat(2100), "a/".repeat(257));
        for name in ["", "/etc/passwd", "a/../../b", "..", "a/..", "a\0b", &long, &longest, &deep] {
            assert_eq!(path(name.as_bytes()).unwrap_err().code, Code::BadPath, "{name:?}");
        }
        assert_eq!(path(b"caf\xe9").unwrap_err().code, Code::BadPath);
    }

    #[test]
    fn link_stays_within_the_archive() {
        for (at, to) in
            [("l", "a"), ("a/l", "../b"), ("a/b/l", "../../c/d"), ("l", "./a//b"), ("l", ".")]
        {
            assert_eq!(target(at, to.as_bytes()).unwrap(), to);
        }
        for (at, to) in [
            ("l", "/etc/passwd"),
            ("l", ".."),
            ("a/l", "../../b"),
            ("a/l", "b/../c"),
            ("l", "a/../.."),
        ] {
            assert_eq!(target(at, to.as_bytes()).unwrap_err().code, Code::LinkOutside, "{to}");
        }
        assert_eq!(target("l", b"").unwrap_err().code, Code::BadPath);
    }
}
