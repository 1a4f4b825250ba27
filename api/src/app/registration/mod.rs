//! How a host joins: an admin announces it and gets a token, its agent comes with the token and a signing request and
//! gets a certificate, and renews that with its key until somebody deletes the host.
//!
//! A token is `ovr_` and 256 random bits in base64url, of which Postgres has the sha256. It is used up by the statement
//! that accepts it. The key that came with it is what counts from then on, so an agent whose answer was lost asks for a
//! renewal.
//!
//! A renewal is a signing request again, for the same key, and its own signature is the proof: whoever made it has the
//! key that registered. That needs neither a client's certificate through the proxy before the api nor a nonce, for
//! whoever sends a captured request again gets a certificate that is worth nothing without the key. Another key comes by
//! another token. What is revoked (a deleted host) or over (a certificate that ended) is not renewed; a host that was
//! deleted is called by nobody, so that its last certificate need not be revoked elsewhere.

mod authority;
mod labels;

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use ovenbird_contract::id::HostId;
use ovenbird_db::{
    entity::host,
    store::{
        audit::NewEntry,
        host::Labels,
        host_admin::HostRow,
        host_registration::{self as store, NewHost, NewToken},
    },
};
use ovenbird_kit::Secret;
use rand::{TryRngCore as _, rngs::OsRng};
use sha2::{Digest as _, Sha256};

use self::authority::{Asked, server_name};
pub use self::{
    authority::{Authority, Error as AuthorityError},
    labels::problems as label_problems,
};
use super::{App, Error, Problem, audit::Deed, keys::Caller};

const PREFIX: &str = "ovr_";

/// How hosts join here.
#[derive(Debug)]
pub struct Registrar {
    authority: Option<Authority>,
    certificate_lifetime: Duration,
    token_lifetime: Duration,
}

impl Registrar {
    /// Certificates of `authority`; without one no host can register.
    pub fn new(
        authority: Option<Authority>,
        certificate_lifetime: Duration,
        token_lifetime: Duration,
    ) -> Self {
        Self { authority, certificate_lifetime, token_lifetime }
    }

    fn authority(&self) -> Result<&Authority, Error> {
        self.authority.as_ref().ok_or(Error::RegistrationOff)
    }

    fn token(&self, by: &Caller) -> Result<(Secret<String>, NewToken), Error> {
        let mut bytes = [0; 32];
        OsRng
            .try_fill_bytes(&mut bytes)
            .map_err(|error| Error::internal("drawing a token", error))?;
        let text = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
        let new = NewToken {
            hash: Sha256::digest(text.as_bytes()).into(),
            created_by: by.name(),
            lifetime: self.token_lifetime,
        };
        Ok((Secret::new(text), new))
    }
}

/// A host to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Its id. The same wish that comes again has the same one, and gets another token.
    pub id: HostId,
    /// What people call it.
    pub name: Option<String>,
    /// Its labels.
    pub labels: Labels,
}

/// A host that waits for its agent.
#[derive(Debug, Clone, PartialEq)]
pub struct Announced {
    /// The host.
    pub row: HostRow,
    /// What its agent is to come with; it is here and nowhere else.
    pub token: Secret<String>,
    /// When that is over.
    pub expires_at: DateTime<Utc>,
}

/// A host's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certified {
    /// The host.
    pub id: HostId,
    /// The name in the certificate.
    pub server_name: String,
    /// The certificate, PEM.
    pub certificate: String,
    /// The authority that signed it, and whose clients the agent is to accept, PEM.
    pub ca: String,
    /// When it was signed.
    pub issued_at: DateTime<Utc>,
    /// When it ends.
    pub expires_at: DateTime<Utc>,
}

impl App {
    /// Makes a host that waits for its agent.
    ///
    /// # Errors
    /// [`Error::RegistrationOff`]; Postgres.
    pub async fn host_announce(&self, caller: &Caller, wish: Wish) -> Result<Announced, Error> {
        self.registrar.authority()?;
        let (token, new) = self.registrar.token(caller)?;
        let Wish { id, name, labels } = wish;
        let host = NewHost { id, name, server_name: server_name(id), labels };
        let (row, expires_at) = self.store.host_announce(&host, &new).await?;
        tracing::info!(host.id = %id, "host announced");
        Ok(Announced { row, token, expires_at })
    }

    /// Makes another token for a host: the one before is worth nothing from now on.
    ///
    /// # Errors
    /// [`Error::RegistrationOff`]; [`Error::NotFound`], also for a host that is in the bridges' configuration.
    pub async fn host_token(&self, caller: &Caller, id: HostId) -> Result<Announced, Error> {
        self.registrar.authority()?;
        let (token, new) = self.registrar.token(caller)?;
        let found = self.store.host_token(id, &new).await?;
        let (row, expires_at) =
            found.ok_or_else(|| Error::NotFound(format!("host {id}, as one that registers,")))?;
        Ok(Announced { row, token, expires_at })
    }

    /// Gives the agent that comes with `token` a certificate for the key of `csr`.
    ///
    /// # Errors
    /// [`Error::RegistrationOff`]; [`Error::Invalid`]; [`Error::RegistrationRefused`]; [`Error::HostTaken`]. The
    /// token can still be used then.
    pub async fn host_register(
        &self,
        token: &Secret<String>,
        csr: &str,
        address: &str,
        deed: &Deed,
    ) -> Result<Certified, Error> {
        let authority = self.registrar.authority()?;
        let asked = Asked::read(csr).map_err(bad_request)?;
        let now = Utc::now();
        let expires_at = authority.end(now, self.registrar.certificate_lifetime);
        let registration = store::Registration {
            token_hash: Sha256::digest(token.expose().as_bytes()).into(),
            key_hash: asked.key_hash,
            address: address.to_owned(),
            expires_at,
        };
        let registered = self.store.host_register(&registration, &granted(deed)).await?;
        let host = registered.map_err(|refused| match refused {
            store::Refused::Token => Error::RegistrationRefused,
            store::Refused::Address => Error::HostTaken("address"),
            store::Refused::Key => Error::HostTaken("key"),
        })?;
        tracing::info!(host.id = %HostId::from_uuid(host.id), host.address = address, "host registered");
        certified(authority, &asked, &host, now, expires_at)
    }

    /// Gives the agent that signed `csr` with the key it registered with another certificate for it.
    ///
    /// # Errors
    /// [`Error::RegistrationOff`]; [`Error::Invalid`]; [`Error::RenewalRefused`].
    pub async fn host_renew(&self, csr: &str, deed: &Deed) -> Result<Certified, Error> {
        let authority = self.registrar.authority()?;
        let asked = Asked::read(csr).map_err(bad_request)?;
        let now = Utc::now();
        let expires_at = authority.end(now, self.registrar.certificate_lifetime);
        let renewed = self.store.host_renew(asked.key_hash, expires_at, &granted(deed)).await?;
        let host = renewed.ok_or(Error::RenewalRefused)?;
        tracing::info!(host.id = %HostId::from_uuid(host.id), "certificate of a host renewed");
        certified(authority, &asked, &host, now, expires_at)
    }
}

fn bad_request(unusable: authority::Unusable) -> Error {
    Error::Invalid(vec![Problem::new("csr", "wrong_form", unusable.to_string())])
}

/// The entry that is written with the change.
fn granted(deed: &Deed) -> NewEntry {
    deed.entry(String::new(), Some(200))
}

fn certified(
    authority: &Authority,
    asked: &Asked,
    host: &host::Model,
    issued_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
) -> Result<Certified, Error> {
    let id = HostId::from_uuid(host.id);
    let signed = authority.sign(asked, id, issued_at, expires_at);
    let certificate = signed.map_err(|error| Error::internal("signing a certificate", error))?;
    let (server_name, ca) = (host.server_name.clone(), authority.certificate().to_owned());
    Ok(Certified { id, server_name, certificate, ca, issued_at, expires_at })
}
