//! Two folders, file by file.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use anyhow::Context;
use fs_err as fs;

/// Relative names of files that are in one folder only, or are not the same in both.
pub(super) fn between(fresh: &Path, place: &Path) -> anyhow::Result<Vec<String>> {
    let mut names = BTreeSet::new();
    for folder in [fresh, place] {
        if folder.exists() {
            collect(folder, folder, &mut names)?;
        }
    }
    let differs =
        |name: &String| fs::read(fresh.join(name)).ok() != fs::read(place.join(name)).ok();
    Ok(names.into_iter().filter(differs).collect())
}

/// Makes `place` hold what `fresh` holds.
pub(super) fn apply(names: &[String], fresh: &Path, place: &Path) -> anyhow::Result<()> {
    for name in names {
        let (from, to) = (fresh.join(name), place.join(name));
        if from.exists() {
            fs::create_dir_all(to.parent().context("a file without a folder")?)?;
            fs::copy(from, to)?;
        } else {
            fs::remove_file(to)?;
        }
    }
    Ok(())
}

fn collect(root: &Path, folder: &Path, names: &mut BTreeSet<String>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path: PathBuf = entry?.path();
        // What Python leaves where it ran.
        if path.ends_with("__pycache__") {
            continue;
        }
        if path.is_dir() {
            collect(root, &path, names)?;
        } else {
            names.insert(path.strip_prefix(root)?.to_string_lossy().into_owned());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_changed_and_removed_files_differ_until_they_are_applied() {
        let (fresh, place) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let write = |folder: &tempfile::TempDir, name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        for (name, text) in [("same", "a"), ("changed", "a"), ("new/file", "a")] {
            write(&fresh, name, text);
        }
        for (name, text) in [("same", "a"), ("changed", "b"), ("gone", "b")] {
            write(&place, name, text);
        }
        let names = between(fresh.path(), place.path()).unwrap();
        assert_eq!(names, ["changed", "gone", "new/file"]);
        apply(&names, fresh.path(), place.path()).unwrap();
        assert_eq!(between(fresh.path(), place.path()).unwrap(), [""; 0]);
    }
}
