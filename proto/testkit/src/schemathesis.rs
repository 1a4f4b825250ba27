//! Where schemathesis is, the program that holds a running API against its specification. `cargo dev setup`
//! puts it into the cache folder, in a Python environment of its own; nothing here fetches anything.

use std::path::{Path, PathBuf};

use anyhow::Context;
use sha2::{Digest, Sha256};

/// What pip installs, every package pinned by version and hash.
pub const REQUIREMENTS: &str = include_str!("schemathesis.txt");
/// The kind of its entry in the cache folder.
pub const KIND: &str = "schemathesis";

/// The key of its entry: another list of requirements is another entry.
pub fn key() -> String {
    hex::encode(&Sha256::digest(REQUIREMENTS)[..8])
}

/// The Python of its environment in the cache folder. Its own program names the folder in which it was made,
/// so start the module `schemathesis.cli` instead.
pub fn cached_python(cache: &Path) -> PathBuf {
    cache.join(format!("{KIND}-{}", key())).join("bin/python")
}

/// The Python that has it.
///
/// # Errors
/// When the set-up has not been run.
pub fn python() -> anyhow::Result<PathBuf> {
    let python = cached_python(&crate::nats::cache());
    python.is_file().then_some(python).context("no schemathesis: run `cargo dev setup`")
}
