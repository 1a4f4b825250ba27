//! A folder that goes with its handle.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// A temporary folder, removed with all that is in it when dropped (kept when `OVENBIRD_KEEP` is set).
///
/// Others may enter it, because Postgres and QEMU run as users of their own; what is secret in it has
/// permissions of its own.
#[derive(Debug)]
pub struct Folder {
    inner: Option<tempfile::TempDir>,
    path: PathBuf,
}

impl Folder {
    /// A new folder `ovenbird-<name>-…` in the system's folder for temporary files.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(name: &str) -> io::Result<Self> {
        let inner = tempfile::Builder::new().prefix(&format!("ovenbird-{name}-")).tempdir()?;
        fs::set_permissions(inner.path(), fs::Permissions::from_mode(0o755))?;
        let path = inner.path().to_owned();
        Ok(Self { inner: Some(inner), path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of `name` in it; nothing is made.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let Some(inner) = self.inner.take() else { return };
        if std::env::var_os("OVENBIRD_KEEP").is_some() {
            eprintln!("kept {}", inner.keep().display());
        } else if let Err(error) = inner.close() {
            eprintln!("could not remove {}: {error}", self.path.display());
        }
    }
}
