//! The configuration files of the processes of one platform, readable by their owner only.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use fs_err::{self as fs, os::unix::fs::OpenOptionsExt};
use ovenbird_testkit::certificates::Files;
use serde_json::{Value, json};

/// Writes `<dir>/<name>.toml`.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn write(dir: &Path, name: &str, content: &Value) -> anyhow::Result<PathBuf> {
    let path = dir.join(format!("{name}.toml"));
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(&path)?.write_all(toml::to_string(content)?.as_bytes())?;
    Ok(path)
}

/// Writes a secret to a file of its owner's alone.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn write_secret(path: &Path, text: &str) -> anyhow::Result<PathBuf> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path)?.write_all(text.as_bytes())?;
    Ok(path.to_owned())
}

/// The `[tls]` section for these files.
pub(crate) fn tls(files: &Files) -> Value {
    json!({ "ca": files.ca, "cert": files.cert, "key": files.key })
}
