//! Sessions of browsers: who signed in with a key goes on by a cookie, on any replica and after a restart.
//!
//! A session is 256 random bits in base64url, known to the browser only; stored is their sha256, beside the key. It
//! gives what its key gives, asked anew each time, and so ends with the key. Sealed under those bits is what follows from
//! the key's text, so that a request sent again after signing in again is still the same. Whoever changes something by a cookie
//! must also send the session's token, which is derived from those bits: another site can make a browser send the
//! cookie, but can neither read nor guess the token.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use ovenbird_kit::{Secret, telemetry};
use rand::{TryRngCore as _, rngs::OsRng};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::{
    App, Error,
    keys::{self, Caller},
    seal::Roots,
};

/// Length of a session's text.
const TEXT_LENGTH: usize = 43;
/// What the token is derived under, so that it is never the stored hash.
const TOKEN_OF: &[u8] = b"ovenbird csrf token of ";

/// A session that was just opened.
#[derive(Debug)]
pub struct Opened {
    /// Its text, for the cookie; it is told here only.
    pub text: Secret<String>,
    /// What is known of it from now on.
    pub session: Session,
}

/// A session.
#[derive(Debug)]
pub struct Session {
    /// Whose it is, and what it may.
    pub caller: Caller,
    /// The name of the key.
    pub key_name: String,
    /// What a change must carry.
    pub token: Secret<String>,
    /// When it ends by itself.
    pub expires_at: DateTime<Utc>,
}

impl Session {
    /// Whether `token` is this session's.
    pub fn accepts(&self, token: &str) -> bool {
        bool::from(self.token.expose().as_bytes().ct_eq(token.as_bytes()))
    }
}

impl App {
    /// Opens a session for the holder of the key with the text `key`; nobody for a key that is unknown, revoked or expired.
    ///
    /// # Errors
    /// When Postgres does not answer, or the system has no random numbers.
    pub async fn session_open(
        &self,
        key: &str,
        lifetime: Duration,
    ) -> Result<Option<Opened>, Error> {
        let Some(caller) = self.key_authenticate(key).await? else { return Ok(None) };
        let mut bytes = [0; 32];
        OsRng
            .try_fill_bytes(&mut bytes)
            .map_err(|error| Error::internal("drawing a session", error))?;
        let text = URL_SAFE_NO_PAD.encode(bytes);
        let repeats = keys::roots(key)?.seal(&text);
        let repeats = repeats.map_err(|error| Error::internal("sealing for a session", error))?;
        self.store.session_insert(&hash(&text), caller.key, &repeats, lifetime).await?;
        let session = self.session_authenticate(&text).await?;
        Ok(session.map(|session| Opened { text: Secret::new(text), session }))
    }

    /// The session of this text, while it and its key last.
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub async fn session_authenticate(&self, text: &str) -> Result<Option<Session>, Error> {
        if text.len() != TEXT_LENGTH {
            return Ok(None);
        }
        let hash = hash(text);
        let Some(found) = self.store.session_get(&hash).await? else { return Ok(None) };
        if !bool::from(found.session.hash.ct_eq(&hash)) {
            return Ok(None);
        }
        let key_name = found.key.name.clone();
        let Some(caller) = self.key_caller(found.key).await? else { return Ok(None) };
        Ok(Some(Session {
            caller,
            key_name,
            token: token(text),
            expires_at: found.session.expires_at,
        }))
    }

    /// What follows from the text of the key that the session of this text was opened with; for one of an older
    /// version, from its own text. Nobody's for a text that is none of a session.
    ///
    /// # Errors
    /// When Postgres does not answer; [`Error::Internal`] when the row was changed.
    pub async fn session_roots(&self, text: &str) -> Result<Option<Roots>, Error> {
        let Some(found) = self.store.session_get(&hash(text)).await? else { return Ok(None) };
        let Some(sealed) = found.session.repeats else { return keys::roots(text).map(Some) };
        let opened = Roots::open(sealed, text);
        opened
            .map(Some)
            .map_err(|error| Error::internal("opening what is sealed for a session", error))
    }

    /// Whether a session can still be used. When Postgres does not say, it can: what goes on with it began when it
    /// could.
    pub async fn session_holds(&self, text: &str) -> bool {
        match self.session_authenticate(text).await {
            Ok(session) => session.is_some(),
            Err(error) => {
                tracing::info!(error = telemetry::chain(&error), "a session is not looked at");
                true
            }
        }
    }

    /// Ends the session of this text, if there is one.
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub async fn session_close(&self, text: &str) -> Result<(), Error> {
        Ok(self.store.session_remove(&hash(text)).await?)
    }
}

fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

fn token(text: &str) -> Secret<String> {
    let digest = Sha256::new().chain_update(TOKEN_OF).chain_update(text).finalize();
    Secret::new(URL_SAFE_NO_PAD.encode(digest))
}
