//! Key and certificate of a registered agent, in one file that is root's alone and is written whole.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use chrono::{DateTime, Utc};
use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt as _;
use ovenbird_kit::{Secret, tls::Pem};
use rcgen::KeyPair;
use serde::{Deserialize, Serialize, Serializer};

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused something.
    #[error("the agent's identity cannot be read or kept")]
    Io(#[from] io::Error),
    /// What is in it is none.
    #[error("{} holds no identity: remove it, and register again with a new token", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Why; nothing of the content.
        #[source]
        source: serde_json::Error,
    },
}

/// What an agent is.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Identity {
    /// Base URL of the api that renews its certificate.
    pub(super) api: String,
    /// The authority of that api.
    pub(super) api_ca: Option<PathBuf>,
    /// The private key, PEM.
    #[serde(serialize_with = "exposed")]
    pub(super) key: Secret<String>,
    /// Where it said that it is reached when it registered; absent in files of older agents.
    #[serde(default)]
    pub(super) address: Option<String>,
    /// The certificate; absent until the api has given one.
    pub(super) certificate: Option<Certificate>,
}

/// The api's answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Certificate {
    /// The host's id.
    pub(super) host_id: String,
    /// The certificate, PEM.
    pub(super) certificate: String,
    /// Who signed it, and whose clients are accepted, PEM.
    pub(super) ca: String,
    /// When it was signed, by the api's clock.
    pub(super) issued_at: DateTime<Utc>,
    /// When it ends.
    pub(super) expires_at: DateTime<Utc>,
}

impl Identity {
    /// A new key.
    pub(super) fn new(api: String, api_ca: Option<PathBuf>) -> Result<Self, rcgen::Error> {
        let key = Secret::new(KeyPair::generate()?.serialize_pem());
        Ok(Self { api, api_ca, key, address: None, certificate: None })
    }

    /// What TLS needs, once there is a certificate.
    pub(super) fn pem(&self) -> Option<Pem> {
        let held = self.certificate.as_ref()?;
        Some(Pem {
            ca: held.ca.clone().into(),
            cert: held.certificate.clone().into(),
            key: Secret::new(self.key.expose().clone().into()),
        })
    }
}

/// This file is the one place where the key is written.
fn exposed<S: Serializer>(key: &Secret<String>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(key.expose())
}

/// The identity that is kept, if any.
pub(super) fn read(path: &Path) -> Result<Option<Identity>, Error> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let read = serde_json::from_slice(&text);
    read.map(Some).map_err(|source| Error::Content { path: path.to_owned(), source })
}

/// Forgets one.
pub(super) fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Keeps an identity, whole or not at all, also when the machine fails.
pub(super) fn write(path: &Path, identity: &Identity) -> Result<(), Error> {
    let content = |source| Error::Content { path: path.to_owned(), source };
    let text = Secret::new(serde_json::to_vec(identity).map_err(content)?);
    let draft = path.with_extension("new");
    // One that was left behind may have other permissions.
    remove(&draft)?;
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(text.expose())?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    if let Some(folder) = path.parent() {
        fs::File::open(folder)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn identity_is_kept_for_its_owner_alone_and_never_printed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.json");
        assert!(read(&path).unwrap().is_none());
        std::fs::write(path.with_extension("new"), "left behind").unwrap();
        let made = Identity::new("http://api".into(), None).unwrap();
        write(&path, &made).unwrap();
        write(&path, &made).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let again = read(&path).unwrap().unwrap();
        assert_eq!(again.key, made.key);
        assert!(again.pem().is_none() && !format!("{again:?}").contains("PRIVATE"));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_identity_is_named_without_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.json");
        std::fs::write(&path, r#"{"api": "x", "key": ["hunter2"]}"#).unwrap();
        let error = ovenbird_kit::telemetry::chain(&read(&path).unwrap_err());
        assert!(error.contains("identity.json") && !error.contains("hunter2"), "{error}");
    }
}
