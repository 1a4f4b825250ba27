//! What a source of `COPY` means: a file, a directory's content, or whatever a pattern matches.
//!
//! As in a Dockerfile: of a directory its content is copied and not itself, and several things need a directory to go
//! into. Of what matches a pattern the uppermost goes along: below a directory that matches, nothing else is looked for.

use std::collections::{BTreeMap, BTreeSet};

use globset::GlobBuilder;

use crate::{
    contents::{Contents, Found},
    entry::Kind,
};

/// What is copied of a context by one source: the path of each entry, and where in it its name below the destination
/// begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    pub(crate) names: BTreeMap<String, usize>,
    /// How many entries of the archive that are.
    pub(crate) entries: u64,
    /// It is one file or link, which may get another name.
    pub is_one: bool,
    /// How many things the source named.
    pub matches: usize,
}

/// A source means nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoSelection {
    /// It is no relative path within the context.
    #[error("{0:?} is outside of the context")]
    Outside(String),
    /// It is no pattern.
    #[error("{0:?} is no pattern: {1}")]
    BadPattern(String, String),
    /// There is nothing of this name.
    #[error("{0:?} matches nothing in the context")]
    Nothing(String),
    /// All that there is of this name is left out.
    #[error("all that {0:?} matches in the context is left out by its .ovenbirdignore")]
    Ignored(String),
}

/// Whether a destination can only be a directory.
pub fn names_directory(destination: &str) -> bool {
    matches!(destination.rsplit('/').next(), Some("" | "." | ".."))
}

impl Contents {
    /// What `source` names. It is as large as all paths that it names: one is needed at a time.
    ///
    /// # Errors
    /// [`NoSelection`], with the source.
    pub fn select(&self, source: &str) -> Result<Selection, NoSelection> {
        Ok(self.selection(&self.found(source)?))
    }

    /// How many things `source` names, as [`Selection::matches`].
    ///
    /// # Errors
    /// As [`Contents::select`].
    pub fn matches(&self, source: &str) -> Result<usize, NoSelection> {
        Ok(self.found(source)?.len())
    }

    /// The uppermost paths that `source` names.
    fn found(&self, source: &str) -> Result<Vec<&str>, NoSelection> {
        let clean = clean(source).ok_or_else(|| NoSelection::Outside(source.to_owned()))?;
        if clean.is_empty() {
            return Ok(vec![""]);
        }
        if let Some((path, found)) = self.paths.get_key_value(&clean)
            && !found.is_ignored
        {
            return Ok(vec![path]);
        }
        let glob = GlobBuilder::new(&clean).literal_separator(true).backslash_escape(true).build();
        let glob = glob.map_err(|error| {
            NoSelection::BadPattern(source.to_owned(), error.kind().to_string())
        })?;
        let glob = glob.compile_matcher();
        let all = self.paths.iter().filter(|(path, _)| glob.is_match(path));
        let all: Vec<_> = all.collect();
        let taken = all.iter().filter(|(_, found)| !found.is_ignored);
        let taken: BTreeSet<&str> = taken.map(|(path, _)| path.as_str()).collect();
        let above =
            |path: &str| path.match_indices('/').any(|(end, _)| taken.contains(&path[..end]));
        let found: Vec<_> = taken.iter().copied().filter(|path| !above(path)).collect();
        match (found.is_empty(), all.is_empty() && !self.paths.contains_key(&clean)) {
            (false, _) => Ok(found),
            (true, true) => Err(NoSelection::Nothing(source.to_owned())),
            (true, false) => Err(NoSelection::Ignored(source.to_owned())),
        }
    }

    fn selection(&self, found: &[&str]) -> Selection {
        let mut names = BTreeMap::new();
        let mut entries = 0;
        for &path in found {
            match self.paths.get(path) {
                Some(one @ Found { kind: Kind::File | Kind::Link { .. }, .. }) => {
                    entries += u64::from(one.entries);
                    names.insert(path.to_owned(), path.rfind('/').map_or(0, |slash| slash + 1));
                }
                Some(Found { kind: Kind::Directory, .. }) | None => {
                    let from = if path.is_empty() { String::new() } else { format!("{path}/") };
                    let inner = self.paths.range(from.clone()..);
                    let inner = inner.take_while(|(inner, _)| inner.starts_with(&from));
                    for (inner, found) in inner.filter(|(_, found)| !found.is_ignored) {
                        entries += u64::from(found.entries);
                        names.insert(inner.clone(), from.len());
                    }
                }
            }
        }
        let is_one =
            matches!(found, [one] if matches!(self.get(one), Some(Kind::File | Kind::Link { .. })));
        Selection { names, entries, is_one, matches: found.len() }
    }
}

/// Without `.`, `..` and needless slashes; nothing when it leads out.
fn clean(source: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in source.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}
