//! A value that cannot be printed.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

/// A file with a secret could not be read.
#[derive(Debug, thiserror::Error)]
#[error("secret file {} cannot be read", path.display())]
pub struct Error {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Holds a secret; `Debug` and `Display` show `[secret]`, and it does not serialize.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Wraps a secret.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The secret itself, for the one call that needs it.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl Secret<String> {
    /// The secret that is all of a file, but for white space around it.
    ///
    /// # Errors
    /// Names the file; never says what is in it.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| Error { path: path.to_owned(), source })?;
        Ok(Self(text.trim().to_owned()))
    }
}

impl<T> std::fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

impl<T> std::fmt::Display for Secret<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

#[cfg(test)]
mod tests {
    use super::Secret;

    #[test]
    fn secret_is_not_printed() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret} {secret:?}"), "[secret] [secret]");
    }

    #[test]
    fn secret_of_a_file_is_read_without_its_newline() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "hunter2\n").unwrap();
        assert_eq!(Secret::read(file.path()).unwrap().expose(), "hunter2");
        let error = Secret::read(std::path::Path::new("/no/such.nk")).unwrap_err();
        assert!(error.to_string().contains("/no/such.nk"), "{error}");
    }
}
