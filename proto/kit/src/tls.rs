//! Where a process finds its TLS identity.

use std::path::PathBuf;

use serde::Deserialize;

/// PEM files of one side of a mutual TLS connection.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Files {
    /// The authority that signed the other side's certificate.
    pub ca: PathBuf,
    /// This side's certificate.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// The three PEM texts.
#[derive(Debug)]
pub struct Pem {
    /// The authority.
    pub ca: Vec<u8>,
    /// The certificate.
    pub cert: Vec<u8>,
    /// The key.
    pub key: crate::Secret<Vec<u8>>,
}

/// A file could not be read.
#[derive(Debug, thiserror::Error)]
#[error("TLS file {} cannot be read: check the [tls] section of the configuration", path.display())]
pub struct Error {
    path: PathBuf,
    #[source]
    source: std::io::Error,
}

impl Files {
    /// Reads the three files.
    ///
    /// # Errors
    /// Names the file that cannot be read.
    pub fn read(&self) -> Result<Pem, Error> {
        let read = |path: &PathBuf| {
            std::fs::read(path).map_err(|source| Error { path: path.clone(), source })
        };
        Ok(Pem {
            ca: read(&self.ca)?,
            cert: read(&self.cert)?,
            key: crate::Secret::new(read(&self.key)?),
        })
    }
}
