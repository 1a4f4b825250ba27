//! How an agent comes to its certificate: from files, or from the api, for a key that it makes itself and that never
//! leaves it.
//!
//! ```text
//!  no key ── a key is made and kept ──► key ── token, signing request ──► certificate ─┐
//!                                        │                                    ▲        │ two thirds of its time
//!                                        └── its answer was lost: renewal ────┴────────┘ are over: renewal
//! ```
//!
//! Key and certificate lie in one file of `data_dir`, of root's alone, written whole. The key is there before the token
//! is used, so whatever is lost on the way, the next start goes on: a renewal needs the key only. The api is needed for
//! the first certificate and for renewals; an agent with a certificate that lasts starts without it.

mod client;
mod file;
mod renewal;

use std::{path::PathBuf, time::Duration};

use chrono::Utc;
use ovenbird_kit::{Secret, secret, telemetry, tls};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use tokio::time::{Instant, sleep};

pub(crate) use self::renewal::Renewal;
use self::{client::Client, file::Identity};
use crate::{config::Config, data_dir::DataDir};

/// How long a starting agent waits for an api that does not answer. Whoever started it starts it again.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two questions then; doubles up to the second one.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The agent has no certificate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing says how to come to one.
    #[error(
        "the configuration has neither [tls] nor [registration], and this agent has not registered yet"
    )]
    NoIdentity,
    /// There is no token to register with.
    #[error(
        "this agent has no certificate and no token: set registration.token_file, or run `ovenbird-agent register`"
    )]
    NoToken,
    /// `registration.token_file`.
    #[error("registration.token_file cannot be used")]
    Token(#[from] secret::Error),
    /// The identity cannot be read or kept.
    #[error(transparent)]
    File(#[from] file::Error),
    /// The api did not answer with one.
    #[error("the api gives this agent no certificate")]
    Api(#[from] client::Error),
    /// No key.
    #[error("no key or signing request can be made")]
    Key(#[from] rcgen::Error),
    /// `[tls]`.
    #[error(transparent)]
    Tls(#[from] tls::Error),
}

/// Where to register, and how the agent is reached.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Base URL of the api.
    pub api: String,
    /// The authority of the api's own certificate, where it is none that the system knows.
    pub ca: Option<PathBuf>,
    /// The file that holds the token.
    pub token_file: Option<PathBuf>,
    /// `host:port` under which the agent is reached.
    pub address: String,
}

/// What the agent shows to its clients.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) pem: tls::Pem,
    /// Keeps it from ending; none for files, whose owner does that.
    pub(crate) renewal: Option<Renewal>,
}

/// Comes to an identity; see the module.
///
/// # Errors
/// Says what is missing, or what the api refuses.
pub(crate) async fn open(config: &Config, data: &DataDir) -> Result<Shown, Error> {
    if let Some(files) = &config.tls {
        return Ok(Shown { pem: files.read()?, renewal: None });
    }
    let path = data.identity();
    let mut identity = file::read(&path)?;
    if let Some(settings) = config.registration_settings() {
        identity = Some(match identity {
            // A move of the api needs no other key.
            Some(identity) => Identity { api: settings.api, api_ca: settings.ca, ..identity },
            None => {
                let made = Identity::new(settings.api, settings.ca)?;
                file::write(&path, &made)?;
                made
            }
        });
    }
    let mut identity = identity.ok_or(Error::NoIdentity)?;
    let client = Client::new(&identity)?;
    if identity.certificate.as_ref().is_none_or(|held| held.expires_at <= Utc::now()) {
        let settings = config.registration_settings();
        let token_file = settings.as_ref().and_then(|settings| settings.token_file.clone());
        let address = settings.map(|settings| settings.address).unwrap_or_default();
        let certificate =
            patiently(|| ask(&client, &identity, token_file.as_ref(), &address)).await?;
        tracing::info!(host.id = certificate.host_id, expires_at = %certificate.expires_at, "registered");
        identity.certificate = Some(certificate);
        file::write(&path, &identity)?;
    }
    let pem = identity.pem().ok_or(Error::NoIdentity)?;
    Ok(Shown { pem, renewal: Some(Renewal::new(client, identity, path)) })
}

/// Registers with a new key, whatever there was before. The key is kept once the api has accepted it.
///
/// # Errors
/// Says what is missing, or what the api refuses; what was there before is still there then.
pub async fn register(settings: &Settings, data: &DataDir) -> Result<String, Error> {
    let mut identity = Identity::new(settings.api.clone(), settings.ca.clone())?;
    let client = Client::new(&identity)?;
    let token_file = settings.token_file.as_ref().ok_or(Error::NoToken)?;
    let token = Secret::read(token_file)?;
    let csr = request(&identity)?;
    let certificate =
        patiently(|| async { Ok(client.register(&token, &csr, &settings.address).await?) });
    let certificate = certificate.await?;
    let host = certificate.host_id.clone();
    identity.certificate = Some(certificate);
    file::write(&data.identity(), &identity)?;
    Ok(host)
}

/// A renewal, which goes without a token where the key has registered; else the token.
async fn ask(
    client: &Client,
    identity: &Identity,
    token_file: Option<&PathBuf>,
    address: &str,
) -> Result<file::Certificate, Error> {
    let csr = request(identity)?;
    match client.renew(&csr).await {
        Err(refused) if refused.is_refusal() => {
            let token_file = token_file.ok_or(match identity.certificate {
                Some(_) => Error::Api(refused),
                None => Error::NoToken,
            })?;
            Ok(client.register(&Secret::read(token_file)?, &csr, address).await?)
        }
        answered => Ok(answered?),
    }
}

/// Asks again while the api is away.
async fn patiently<T, F>(ask: impl Fn() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let (end, mut pause) = (Instant::now() + PATIENCE, FIRST_PAUSE);
    loop {
        match ask().await {
            Err(Error::Api(error)) if !error.is_refusal() && Instant::now() < end => {
                tracing::warn!(
                    error = telemetry::chain(&error),
                    "asking the api again in {pause:?}"
                );
            }
            other => return other,
        }
        sleep(pause).await;
        pause = LONGEST_PAUSE.min(pause * 2);
    }
}

/// A signing request. The api takes nothing but the key from it.
fn request(identity: &Identity) -> Result<String, rcgen::Error> {
    let key = KeyPair::from_pem(identity.key.expose())?;
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    parameters.serialize_request(&key)?.pem()
}
