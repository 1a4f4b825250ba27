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
//! is used, so whatever is lost on the way, the next start goes on: a renewal needs the key only. The same holds for a new
//! key that is to take the place of the one before, which lies beside it until the api has answered. The api is needed
//! for the first certificate and for renewals; an agent with a certificate that lasts starts without it.
//!
//! Where a token is configured, an agent that starts also asks for a renewal, and uses the token where that is refused: its
//! host was deleted and announced anew.

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

/// Whether [`open`] has what it needs, without asking the api; what that is.
///
/// # Errors
/// Says what is missing.
pub(crate) fn look(config: &Config) -> Result<String, Error> {
    if let Some(files) = &config.tls {
        files.read()?;
        return Ok("the files of [tls] can be read".into());
    }
    let held = file::read(&DataDir::identity_below(&config.data_dir))?;
    let settings = config.registration_settings();
    let certificate = held.as_ref().and_then(|held| held.certificate.as_ref());
    if let Some(held) = certificate.filter(|held| held.expires_at > Utc::now()) {
        return Ok(format!("it has registered, with a certificate until {}", held.expires_at));
    }
    let settings = settings.ok_or(Error::NoIdentity)?;
    Secret::read(settings.token_file.as_ref().ok_or(Error::NoToken)?)?;
    Ok("it is to register, with a token that can be read".into())
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
    take_up(data).await?;
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
    let settings = config.registration_settings();
    let token_file = settings.as_ref().and_then(|settings| settings.token_file.clone());
    let address = settings.map(|settings| settings.address).unwrap_or_default();
    let is_over = identity.certificate.as_ref().is_none_or(|held| held.expires_at <= Utc::now());
    if is_over {
        let given = patiently(|| ask(&client, &identity, token_file.as_ref(), &address)).await?;
        let certificate = given.held_by(&mut identity, &address);
        tracing::info!(host.id = certificate.host_id, expires_at = %certificate.expires_at, "registered");
        file::write(&path, &identity)?;
    }
    if let Some(registered) = &identity.address
        && !address.is_empty()
        && *registered != address
    {
        tracing::warn!(
            registered,
            address,
            "this agent is asked where it registered, not at the address that is configured: make a token for its \
             host, and run `ovenbird-agent register`"
        );
    }
    let pem = identity.pem().ok_or(Error::NoIdentity)?;
    let renewal = Renewal::new(client, identity, path, token_file, address, is_over);
    Ok(Shown { pem, renewal: Some(renewal) })
}

/// Registers with a new key, whatever there was before. It lies beside the old one until the api has answered: where the
/// answer was lost, the next try, of this process or another, renews with it.
///
/// # Errors
/// Says what is missing, or what the api refuses; what was there before is still there then.
pub async fn register(settings: &Settings, data: &DataDir) -> Result<String, Error> {
    let token_file = settings.token_file.as_ref().ok_or(Error::NoToken)?;
    Secret::read(token_file)?;
    let path = data.identity_to_be();
    let mut identity = match file::read(&path)? {
        Some(kept) => Identity { api: settings.api.clone(), api_ca: settings.ca.clone(), ..kept },
        None => Identity {
            address: Some(settings.address.clone()),
            ..Identity::new(settings.api.clone(), settings.ca.clone())?
        },
    };
    let client = Client::new(&identity)?;
    file::write(&path, &identity)?;
    let given = patiently(|| ask(&client, &identity, Some(token_file), &settings.address)).await;
    if let Err(Error::Api(error)) = &given
        && error.is_refusal()
    {
        // Neither the key nor the token is known: nothing is lost with it.
        file::remove(&path)?;
    }
    let host = given?.held_by(&mut identity, &settings.address).host_id.clone();
    file::write(&data.identity(), &identity)?;
    file::remove(&path)?;
    Ok(host)
}

/// An identity whose registration did not hear its answer takes the place of the one before, if the api knows it.
async fn take_up(data: &DataDir) -> Result<(), Error> {
    let path = data.identity_to_be();
    let Some(mut identity) = file::read(&path)? else { return Ok(()) };
    let client = Client::new(&identity)?;
    match patiently(|| ask(&client, &identity, None, "")).await {
        Ok(given) => {
            given.held_by(&mut identity, "");
            file::write(&data.identity(), &identity)?;
            tracing::info!("a registration that had not heard its answer is taken up");
            file::remove(&path)?;
        }
        Err(Error::NoToken) => file::remove(&path)?,
        Err(error) => {
            let error = telemetry::chain(&error);
            tracing::warn!(error, "whether a registration came to its end is not known");
        }
    }
    Ok(())
}

/// What the api gave.
struct Given {
    certificate: file::Certificate,
    /// For a token, and so with an address.
    registered: bool,
}

impl Given {
    fn held_by<'a>(self, identity: &'a mut Identity, address: &str) -> &'a file::Certificate {
        if self.registered {
            identity.address = Some(address.to_owned());
        }
        identity.certificate.insert(self.certificate)
    }
}

/// A renewal, which goes without a token where the key has registered; else the token.
async fn ask(
    client: &Client,
    identity: &Identity,
    token_file: Option<&PathBuf>,
    address: &str,
) -> Result<Given, Error> {
    let csr = request(identity)?;
    match client.renew(&csr).await {
        Err(refused) if refused.is_refusal() => {
            let token_file = token_file.ok_or(match identity.certificate {
                Some(_) => Error::Api(refused),
                None => Error::NoToken,
            })?;
            let token = Secret::read(token_file)?;
            let certificate = client.register(&token, &csr, address).await?;
            Ok(Given { certificate, registered: true })
        }
        answered => Ok(Given { certificate: answered?, registered: false }),
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

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
        path::Path,
    };

    use super::*;

    /// An api that answers one question after the other: with a status and a body, or not at all. What was asked.
    fn api(answers: Vec<Option<(u16, String)>>) -> (String, std::thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = std::thread::spawn(move || {
            answers.into_iter().map(|answer| answered(&listener, answer)).collect()
        });
        (url, asked)
    }

    fn answered(listener: &TcpListener, answer: Option<(u16, String)>) -> String {
        let (mut stream, _) = listener.accept().unwrap();
        let mut text = String::new();
        let mut buffer = [0; 4096];
        // The body is JSON of one object, and ends with it.
        while !text.ends_with('}') {
            let read = stream.read(&mut buffer).unwrap();
            text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
        }
        if let Some((status, body)) = answer {
            let length = body.len();
            let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\n");
            stream.write_all(format!("{head}connection: close\r\n\r\n{body}").as_bytes()).unwrap();
        }
        text.split_whitespace().nth(1).unwrap().rsplit('/').next().unwrap().to_owned()
    }

    fn refused(code: &str) -> Option<(u16, String)> {
        Some((403, format!(r#"{{"error": {{"code": "{code}", "message": "no"}}}}"#)))
    }

    fn given(host: &str) -> Option<(u16, String)> {
        let (issued_at, expires_at) = (Utc::now(), Utc::now() + chrono::TimeDelta::days(7));
        let body = serde_json::json!({
            "host_id": host, "certificate": "c", "ca": "ca", "issued_at": issued_at, "expires_at": expires_at,
        });
        Some((200, body.to_string()))
    }

    fn settings(api: &str, folder: &Path) -> Settings {
        let token_file = folder.join("token");
        std::fs::write(&token_file, "a token").unwrap();
        let address = "10.0.0.7:7443".to_owned();
        Settings { api: api.to_owned(), ca: None, token_file: Some(token_file), address }
    }

    #[tokio::test]
    async fn answer_that_is_lost_costs_neither_the_token_nor_the_key() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::open(&folder.path().join("data")).unwrap();
        let old = Identity::new("http://old".into(), None).unwrap();
        file::write(&data.identity(), &old).unwrap();
        // The token was used, and nobody heard of it; asked again, it is refused, and the key is known.
        let (url, asked) = api(vec![refused("renewal_refused"), None, given("hst_1")]);
        let host = register(&settings(&url, folder.path()), &data).await.unwrap();
        assert_eq!(host, "hst_1");
        assert_eq!(asked.join().unwrap(), ["renew", "register", "renew"]);
        let kept = file::read(&data.identity()).unwrap().unwrap();
        assert_ne!(kept.key, old.key);
        assert_eq!(kept.address.as_deref(), Some("10.0.0.7:7443"));
        assert!(kept.certificate.is_some() && !data.identity_to_be().exists());
    }

    #[tokio::test]
    async fn registration_that_ended_before_its_answer_is_taken_up_and_one_that_was_refused_is_not()
    {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::open(&folder.path().join("data")).unwrap();
        let old = Identity::new("http://old".into(), None).unwrap();
        file::write(&data.identity(), &old).unwrap();
        let refusals = vec![refused("renewal_refused"), refused("registration_refused")];
        let (url, asked) = api(refusals);
        register(&settings(&url, folder.path()), &data).await.unwrap_err();
        assert_eq!(asked.join().unwrap(), ["renew", "register"]);
        assert!(!data.identity_to_be().exists());
        assert_eq!(file::read(&data.identity()).unwrap().unwrap().key, old.key);
        // The process was killed while it waited.
        let (url, asked) = api(vec![refused("renewal_refused"), given("hst_1")]);
        let unknown = Identity::new(url.clone(), None).unwrap();
        file::write(&data.identity_to_be(), &unknown).unwrap();
        take_up(&data).await.unwrap();
        assert_eq!(file::read(&data.identity()).unwrap().unwrap().key, old.key);
        assert!(!data.identity_to_be().exists(), "the api does not know it");
        let known = Identity::new(url, None).unwrap();
        file::write(&data.identity_to_be(), &known).unwrap();
        take_up(&data).await.unwrap();
        assert_eq!(file::read(&data.identity()).unwrap().unwrap().key, known.key);
        assert_eq!(asked.join().unwrap(), ["renew", "renew"]);
    }

    #[tokio::test]
    async fn agent_whose_host_was_announced_anew_uses_the_token() {
        let folder = tempfile::tempdir().unwrap();
        let (url, asked) = api(vec![refused("renewal_refused"), given("hst_2")]);
        let settings = settings(&url, folder.path());
        let mut identity = Identity::new(url, None).unwrap();
        let path = folder.path().join("identity.json");
        let before = serde_json::from_str(&given("hst_1").unwrap().1).unwrap();
        identity.certificate = Some(before);
        let client = Client::new(&identity).unwrap();
        let authority = ovenbird_testkit::Authority::new().unwrap();
        let leaf = authority.server(&["host"]).unwrap();
        let pem = tls::Pem {
            ca: authority.certificate().into(),
            cert: leaf.certificate.into(),
            key: Secret::new(leaf.key.into()),
        };
        let acceptor = crate::server::Acceptor::new(&pem).unwrap();
        let mut renewal = Renewal::new(
            client,
            identity,
            path.clone(),
            settings.token_file,
            settings.address,
            false,
        );
        // At once, though the certificate lasts. What comes cannot be shown: then nothing of it is kept either.
        renewal.renew(&acceptor).await.unwrap_err();
        assert_eq!(asked.join().unwrap(), ["renew", "register"]);
        assert_eq!(renewal.host_id(), Some("hst_1"));
        assert!(!path.exists());
    }
}
