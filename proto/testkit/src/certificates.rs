//! A private certificate authority, for mTLS between processes of one set-up.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};

/// An authority whose key lives in memory, unless it is written for a process that signs with it.
pub struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, both PEM.
pub struct Leaf {
    /// The certificate.
    pub certificate: String,
    /// The private key.
    pub key: String,
}

/// Where a leaf was written.
#[derive(Debug, Clone)]
pub struct Files {
    /// The authority's certificate.
    pub ca: PathBuf,
    /// The leaf's certificate.
    pub cert: PathBuf,
    /// The leaf's key, readable by its owner only.
    pub key: PathBuf,
}

impl Authority {
    /// A new authority.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn new() -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = name("Ovenbird private authority");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = parameters.self_signed(&key)?.pem();
        Ok(Self { certificate, issuer: Issuer::new(parameters, key) })
    }

    /// The authority's certificate, PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Writes certificate and key to `dir` as `authority.crt` and `authority.key`, for a process that signs.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write_signer(&self, dir: &Path) -> io::Result<(PathBuf, PathBuf)> {
        let key = self.issuer.key().serialize_pem();
        let leaf = Leaf { certificate: self.certificate.clone(), key };
        let files = self.write(&leaf, dir, "authority")?;
        Ok((files.cert, files.key))
    }

    /// A server's certificate for the given DNS names and addresses.
    ///
    /// # Errors
    /// When a name is none.
    pub fn server(&self, names: &[&str]) -> Result<Leaf, rcgen::Error> {
        self.leaf(names, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A client's certificate.
    ///
    /// # Errors
    /// When the name is none.
    pub fn client(&self, client: &str) -> Result<Leaf, rcgen::Error> {
        self.leaf(&[client], ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn leaf(&self, names: &[&str], usage: ExtendedKeyUsagePurpose) -> Result<Leaf, rcgen::Error> {
        let key = KeyPair::generate()?;
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut parameters = CertificateParams::new(names.clone())?;
        parameters.distinguished_name = name(names.first().map_or("", String::as_str));
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![usage];
        parameters.use_authority_key_identifier_extension = true;
        let certificate = parameters.signed_by(&key, &self.issuer)?.pem();
        Ok(Leaf { certificate, key: key.serialize_pem() })
    }

    /// Writes `leaf` and the authority's certificate to `dir` as `<name>.crt`, `<name>.key`, `ca.crt`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, leaf: &Leaf, dir: &Path, name: &str) -> io::Result<Files> {
        fs::create_dir_all(dir)?;
        let files = Files {
            ca: dir.join("ca.crt"),
            cert: dir.join(format!("{name}.crt")),
            key: dir.join(format!("{name}.key")),
        };
        for (path, text, mode) in [
            (&files.ca, &self.certificate, 0o644),
            (&files.cert, &leaf.certificate, 0o644),
            (&files.key, &leaf.key, 0o600),
        ] {
            // Whole or not at all: `ca.crt` is written again with each leaf, while processes read it.
            let mut file = tempfile::NamedTempFile::new_in(dir)?;
            file.write_all(text.as_bytes())?;
            file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
            file.persist(path)?;
        }
        Ok(files)
    }
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}
