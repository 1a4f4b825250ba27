//! Where a process finds its TLS identity, and whom it trusts.

use std::path::{Path, PathBuf};

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

/// A file is not usable.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("TLS file {} cannot be read: check `{key}` in the configuration", path.display())]
    Read {
        /// Which key of the configuration names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// There is no certificate in it.
    #[error("{} holds no certificate in PEM: check `{key}` in the configuration", path.display())]
    NoCertificate {
        /// Which key of the configuration names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
    },
}

/// The PEM text of the authority in the file that `key` of the configuration names.
///
/// # Errors
/// Names the key and the file.
pub fn authority(key: &'static str, path: &Path) -> Result<Vec<u8>, Error> {
    let pem =
        std::fs::read(path).map_err(|source| Error::Read { key, path: path.to_owned(), source })?;
    let begin = b"-----BEGIN CERTIFICATE-----";
    if pem.windows(begin.len()).any(|window| window == begin) {
        return Ok(pem);
    }
    Err(Error::NoCertificate { key, path: path.to_owned() })
}

impl Files {
    /// Reads the three files.
    ///
    /// # Errors
    /// Names the file that cannot be read.
    pub fn read(&self) -> Result<Pem, Error> {
        let read = |path: &PathBuf| {
            let key = "tls";
            std::fs::read(path).map_err(|source| Error::Read { key, path: path.clone(), source })
        };
        Ok(Pem {
            ca: read(&self.ca)?,
            cert: read(&self.cert)?,
            key: crate::Secret::new(read(&self.key)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authority_that_is_none_is_named_with_its_key() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "-----BEGIN PRIVATE KEY-----\n").unwrap();
        for path in [Path::new("/no/such.pem"), file.path()] {
            let error = authority("nats_ca", path).unwrap_err().to_string();
            assert!(error.contains("`nats_ca`"), "{error}");
            assert!(error.contains(&*path.to_string_lossy()), "{error}");
        }
        std::fs::write(file.path(), "# ours\n-----BEGIN CERTIFICATE-----\n").unwrap();
        assert!(authority("nats_ca", file.path()).is_ok());
    }
}
