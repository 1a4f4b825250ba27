//! The authority that signs the certificates of host agents, from two files of the configuration.
//!
//! Of a signing request only the key counts, and that its signature was made with it: whatever names, usages and
//! extensions it asks for are left out, so that a host gets a certificate of its own and of nobody else. A certificate
//! bears one name, which follows from the host's id. The address is none: it is the host's own word, and callers ask for
//! the name.

use std::{fmt, path::PathBuf, time::Duration};

use chrono::{DateTime, Utc};
use ovenbird_contract::id::HostId;
use ovenbird_kit::Secret;
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PublicKeyData as _,
};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use x509_parser::pem::parse_x509_pem;

use crate::config;

/// Clocks of hosts differ by this much.
const SKEW: Duration = Duration::from_secs(5 * 60);

/// The authority cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that cannot be read.
    #[error("{} cannot be read", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// `registration.authority.cert`.
    #[error("{} holds no certificate (PEM)", .0.display())]
    NoCertificate(PathBuf),
    /// A certificate that signs none.
    #[error("{} holds the certificate of no authority", .0.display())]
    NoAuthority(PathBuf),
    /// `registration.authority.key`.
    #[error("{} holds no private key (PEM, PKCS #8)", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
    /// Two files that do not belong together.
    #[error("{} is the key of another certificate", .0.display())]
    Mismatch(PathBuf),
}

/// A signing request that is in order.
#[derive(Debug)]
pub(super) struct Asked {
    public: rcgen::PublicKey,
    /// sha256 of the public key.
    pub(super) key_hash: [u8; 32],
}

/// A signing request that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unusable {
    #[error("is no certificate signing request (PEM) whose signature is right")]
    Request,
    #[error("must be one for an ECDSA key on P-256")]
    Algorithm,
}

impl Asked {
    /// Reads a signing request and checks that it was signed with its key.
    pub(super) fn read(pem: &str) -> Result<Self, Unusable> {
        let read = CertificateSigningRequestParams::from_pem(pem);
        let public = read.map_err(|_| Unusable::Request)?.public_key;
        if public.algorithm() != &PKCS_ECDSA_P256_SHA256 {
            return Err(Unusable::Algorithm);
        }
        let key_hash = Sha256::digest(public.subject_public_key_info()).into();
        Ok(Self { public, key_hash })
    }
}

/// See the module.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
    ends_at: DateTime<Utc>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("ends_at", &self.ends_at).finish_non_exhaustive()
    }
}

impl Authority {
    /// The authority of these files.
    ///
    /// # Errors
    /// Names the file that cannot be used.
    pub fn read(files: &config::Authority) -> Result<Self, Error> {
        let read = |path: &PathBuf| {
            std::fs::read_to_string(path)
                .map_err(|source| Error::File { path: path.clone(), source })
        };
        let certificate = read(&files.cert)?;
        let key = Secret::new(read(&files.key)?);
        let no_certificate = || Error::NoCertificate(files.cert.clone());
        let (_, pem) = parse_x509_pem(certificate.as_bytes()).map_err(|_| no_certificate())?;
        let parsed = pem.parse_x509().map_err(|_| no_certificate())?;
        if !parsed.is_ca() {
            return Err(Error::NoAuthority(files.cert.clone()));
        }
        let key = KeyPair::from_pem(key.expose())
            .map_err(|source| Error::NoKey { path: files.key.clone(), source })?;
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(Error::Mismatch(files.key.clone()));
        }
        let ends_at = DateTime::from_timestamp(parsed.validity().not_after.timestamp(), 0)
            .unwrap_or(DateTime::<Utc>::MAX_UTC);
        let issuer = Issuer::from_ca_cert_pem(&certificate, key).map_err(|_| no_certificate())?;
        Ok(Self { issuer, certificate, ends_at })
    }

    /// Its certificate, PEM.
    pub(super) fn certificate(&self) -> &str {
        &self.certificate
    }

    /// When a certificate ends that is to last for `lifetime`: no later than the authority's own.
    pub(super) fn end(&self, now: DateTime<Utc>, lifetime: Duration) -> DateTime<Utc> {
        let end =
            chrono::TimeDelta::from_std(lifetime).ok().and_then(|it| now.checked_add_signed(it));
        end.unwrap_or(self.ends_at).min(self.ends_at)
    }

    /// A certificate of `host` for the key that asks for it, PEM.
    pub(super) fn sign(
        &self,
        asked: &Asked,
        host: HostId,
        now: DateTime<Utc>,
        end: DateTime<Utc>,
    ) -> Result<String, rcgen::Error> {
        let name = server_name(host);
        let mut parameters = CertificateParams::new([name.clone()])?;
        parameters.distinguished_name = DistinguishedName::new();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.not_before = moment(now - SKEW);
        parameters.not_after = moment(end);
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // No client's: a host must not pass for a runner at another host.
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        parameters.use_authority_key_identifier_extension = true;
        Ok(parameters.signed_by(&asked.public, &self.issuer)?.pem())
    }
}

/// The name in a host's certificates. The id has an underscore, which is in no DNS name.
pub(super) fn server_name(host: HostId) -> String {
    format!("{}.host.ovenbird", host.to_string().replace('_', "-"))
}

fn moment(at: DateTime<Utc>) -> OffsetDateTime {
    // Years beyond 9999 are in no certificate.
    OffsetDateTime::from_unix_timestamp(at.timestamp())
        .unwrap_or_else(|_| rcgen::date_time_ymd(9999, 12, 31))
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, IsCa, SanType};

    use super::*;

    struct Files {
        folder: tempfile::TempDir,
    }

    impl Files {
        /// An authority's files, and a key of somebody else.
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let key = KeyPair::generate().unwrap();
            let mut parameters = CertificateParams::default();
            parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            parameters.not_after = rcgen::date_time_ymd(2999, 1, 1);
            let leaf = CertificateParams::default().self_signed(&key).unwrap();
            for (name, text) in [
                ("ca.crt", parameters.self_signed(&key).unwrap().pem()),
                ("leaf.crt", leaf.pem()),
                ("ca.key", key.serialize_pem()),
                ("other.key", KeyPair::generate().unwrap().serialize_pem()),
            ] {
                std::fs::write(folder.path().join(name), text).unwrap();
            }
            Self { folder }
        }

        fn read(&self, cert: &str, key: &str) -> Result<Authority, Error> {
            let path = |name| self.folder.path().join(name);
            Authority::read(&config::Authority { cert: path(cert), key: path(key) })
        }
    }

    fn request(change: impl FnOnce(&mut CertificateParams), key: &KeyPair) -> String {
        let mut parameters = CertificateParams::default();
        change(&mut parameters);
        parameters.serialize_request(key).unwrap().pem().unwrap()
    }

    #[test]
    fn certificate_bears_the_hosts_name_alone_whatever_was_asked_for() {
        let files = Files::new();
        let authority = files.read("ca.crt", "ca.key").unwrap();
        let key = KeyPair::generate().unwrap();
        let asked = request(
            |parameters| {
                parameters.subject_alt_names =
                    vec![SanType::DnsName("another.host.ovenbird".try_into().unwrap())];
                parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
                parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
                parameters.distinguished_name.push(DnType::CommonName, "api");
            },
            &key,
        );
        let (host, now) = (HostId::new(), Utc::now());
        let end = authority.end(now, Duration::from_secs(60));
        let asked = Asked::read(&asked).unwrap();
        let signed = authority.sign(&asked, host, now, end).unwrap();
        let (_, pem) = parse_x509_pem(signed.as_bytes()).unwrap();
        let signed = pem.parse_x509().unwrap();
        assert!(!signed.is_ca());
        assert_eq!(signed.subject().to_string(), format!("CN={}", server_name(host)));
        let names = signed.subject_alternative_name().unwrap().unwrap().value;
        let names: Vec<_> = names.general_names.iter().map(ToString::to_string).collect();
        assert_eq!(names, [format!("DNSName({})", server_name(host))]);
        let usages = signed.extended_key_usage().unwrap().unwrap().value;
        assert!(usages.server_auth && !usages.client_auth && !usages.any);
        assert_eq!(signed.validity().not_after.timestamp(), (now + SKEW / 5).timestamp());
        assert_eq!(signed.public_key().raw, key.subject_public_key_info());
    }

    #[test]
    fn certificate_ends_with_its_authority_at_the_latest() {
        let authority = Files::new().read("ca.crt", "ca.key").unwrap();
        assert_eq!(authority.end(Utc::now(), Duration::MAX), authority.ends_at);
    }

    #[test]
    fn files_that_do_not_belong_together_are_refused() {
        let files = Files::new();
        let of = |cert, key| files.read(cert, key).unwrap_err();
        assert!(matches!(of("ca.crt", "other.key"), Error::Mismatch(_)));
        assert!(matches!(of("leaf.crt", "ca.key"), Error::NoAuthority(_)));
        assert!(matches!(of("ca.key", "ca.key"), Error::NoCertificate(_)));
        assert!(matches!(of("ca.crt", "ca.crt"), Error::NoKey { .. }));
        assert!(matches!(of("none", "ca.key"), Error::File { .. }));
    }

    #[test]
    fn request_that_was_not_signed_with_its_key_is_none() {
        let key = KeyPair::generate().unwrap();
        let right = CertificateParams::default().serialize_request(&key).unwrap();
        let mut broken = right.der().to_vec();
        *broken.last_mut().unwrap() ^= 1;
        let broken = pem_of(&broken);
        assert_eq!(Asked::read(&broken).unwrap_err(), Unusable::Request);
        assert_eq!(Asked::read("").unwrap_err(), Unusable::Request);
        let edwards = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        assert_eq!(Asked::read(&request(|_| {}, &edwards)).unwrap_err(), Unusable::Algorithm);
    }

    fn pem_of(der: &[u8]) -> String {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let text = STANDARD.encode(der);
        format!("-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n")
    }
}
