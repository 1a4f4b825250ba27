//! API keys: who calls, and what they may.
//!
//! A key is `ovb_` and 256 random bits in base64url. Stored is its sha256 only, which is enough for a text
//! of that many random bits; so is the look-up by that hash, and the comparison after it takes the same
//! time for every hash.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use ovenbird_contract::id::KeyId;
use ovenbird_db::{entity::api_key, store::key::NewKey};
use ovenbird_kit::Secret;
use rand::{TryRngCore as _, rngs::OsRng};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::{App, Error};

const PREFIX: &str = "ovb_";
/// Length of a key's text.
const TEXT_LENGTH: usize = PREFIX.len() + 43;

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Scope {
    /// Everything.
    Admin,
    /// Create builds, and read its own.
    Build,
    /// Read everything.
    Read,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 3] = [Self::Admin, Self::Build, Self::Read];

    /// The word in Postgres and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Build => "build",
            Self::Read => "read",
        }
    }
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The key.
    pub key: KeyId,
    /// What it may do.
    pub scope: Scope,
}

impl Caller {
    /// How builds name their requester.
    pub fn name(&self) -> String {
        self.key.to_string()
    }

    /// Whose builds it sees: `None` for everybody's.
    pub fn sees(&self) -> Option<String> {
        match self.scope {
            Scope::Admin | Scope::Read => None,
            Scope::Build => Some(self.name()),
        }
    }

    /// Whether it sees what `requester` asked for.
    pub fn sees_those_of(&self, requester: &str) -> bool {
        self.sees().is_none_or(|only| only == requester)
    }
}

impl App {
    /// Makes a key. Its text is returned here and is nowhere else.
    ///
    /// # Errors
    /// When Postgres does not store it.
    pub async fn key_create(
        &self,
        name: &str,
        scope: Scope,
        expires_at: Option<DateTime<Utc>>,
    ) -> Result<Secret<String>, Error> {
        create(&self.store, name, scope, expires_at).await
    }

    /// Who holds the key `text`; nobody for a key that is unknown, revoked or expired.
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub async fn key_authenticate(&self, text: &str) -> Result<Option<Caller>, Error> {
        if text.len() != TEXT_LENGTH || !text.starts_with(PREFIX) {
            return Ok(None);
        }
        let hash = hash(text);
        let Some(row) = self.store.key_by_hash(&hash).await? else { return Ok(None) };
        if !bool::from(row.hash.ct_eq(&hash)) {
            return Ok(None);
        }
        self.key_caller(row).await
    }

    /// What the key of this row gives its holder: nothing once it is revoked or expired.
    pub(super) async fn key_caller(&self, row: api_key::Model) -> Result<Option<Caller>, Error> {
        let ended = |at: Option<DateTime<Utc>>| at.is_some_and(|at| at <= Utc::now());
        if ended(row.revoked_at) || ended(row.expires_at) {
            return Ok(None);
        }
        let key = KeyId::from_uuid(row.id);
        let Some(scope) = Scope::ALL.into_iter().find(|scope| scope.as_str() == row.scope) else {
            tracing::error!(key.id = %key, "a key has an unknown scope and is refused");
            return Ok(None);
        };
        let stale = row.last_used_at.is_none_or(|at| (Utc::now() - at).num_seconds() >= 60);
        if stale {
            self.store.key_touch(key).await?;
        }
        Ok(Some(Caller { key, scope }))
    }
}

/// Makes a key, for the command line too.
///
/// # Errors
/// When Postgres does not store it, or the system has no random numbers.
pub async fn create(
    store: &ovenbird_db::Store,
    name: &str,
    scope: Scope,
    expires_at: Option<DateTime<Utc>>,
) -> Result<Secret<String>, Error> {
    let mut bytes = [0; 32];
    OsRng.try_fill_bytes(&mut bytes).map_err(|error| Error::internal("drawing a key", error))?;
    let text = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
    let new = NewKey {
        id: KeyId::new(),
        name: name.to_owned(),
        hash: hash(&text),
        scope: scope.as_str().to_owned(),
        expires_at,
    };
    store.key_insert(&new).await?;
    Ok(Secret::new(text))
}

fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}
