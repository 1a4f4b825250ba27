//! API keys: who calls, and what they may. Made, listed, revoked.
//!
//! A key is `ovb_` and 256 random bits in base64url. Stored is its sha256 only, which is enough for a text
//! of that many random bits; so is the look-up by that hash, and the comparison after it takes the same
//! time for every hash.
//!
//! Every request asks Postgres who holds its key. Nothing remembers the answer, so a key that is revoked is refused
//! by every replica from then on.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use ovenbird_contract::id::KeyId;
use ovenbird_db::{
    entity::api_key,
    store::{
        audit::NewEntry,
        build_admin::After,
        key::{NewKey, Revoked},
    },
};
use ovenbird_kit::{Secret, telemetry};
use rand::{TryRngCore as _, rngs::OsRng};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use uuid::Uuid;

use super::{
    App, Error, Problem, audit,
    page::{self, Page},
    seal::Roots,
};

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

/// What follows from a key's text, for requests that may be sent again.
///
/// # Errors
/// [`Error::Internal`].
pub fn roots(text: &str) -> Result<Roots, Error> {
    Roots::of(text).map_err(|error| Error::internal("deriving from a key", error))
}

/// A key to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Its id. The same wish that comes again has the same one, and gets that key with another text: the first text
    /// was told to nobody.
    pub id: KeyId,
    /// What people call it.
    pub name: String,
    /// What it may do.
    pub scope: Scope,
    /// When it ends by itself.
    pub expires_at: Option<DateTime<Utc>>,
}

/// A key that was just made.
#[derive(Debug, Clone, PartialEq)]
pub struct Made {
    /// The key.
    pub key: api_key::Model,
    /// Its text, which is here and nowhere else.
    pub text: Secret<String>,
}

impl App {
    /// Makes a key.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an end that is over already; Postgres.
    pub async fn key_create(&self, wish: &Wish) -> Result<Made, Error> {
        if wish.expires_at.is_some_and(|at| at <= Utc::now()) {
            let problem = Problem::new("expires_at", "out_of_range", "must be in the future");
            return Err(Error::Invalid(vec![problem]));
        }
        let made = make(&self.store, wish).await?;
        tracing::info!(made.id = %wish.id, scope = wish.scope.as_str(), "key made");
        Ok(made)
    }

    /// A page of keys, newest first, the revoked and expired ones too.
    ///
    /// # Errors
    /// A cursor that is none; Postgres.
    pub async fn key_list(
        &self,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Page<api_key::Model>, Error> {
        let after = cursor.map(page::decode).transpose()?;
        let rows = self.store.key_list(after, u64::from(limit) + 1).await?;
        Ok(Page::of(rows, limit, |row| After { created_at: row.created_at, id: row.id }))
    }

    /// A key, whatever became of it.
    ///
    /// # Errors
    /// [`Error::NotFound`]; Postgres.
    pub async fn key_get(&self, id: KeyId) -> Result<api_key::Model, Error> {
        self.store.key_get(id).await?.ok_or_else(|| Error::NotFound(format!("key {id}")))
    }

    /// Whether a key can still be used. When Postgres does not say, it can: what goes on with it began when it could.
    pub async fn key_holds(&self, id: KeyId) -> bool {
        match self.store.key_get(id).await {
            Ok(row) => row.is_some_and(|row| holds(&row)),
            Err(error) => {
                tracing::info!(key.id = %id, error = telemetry::chain(&error), "a key is not looked at");
                true
            }
        }
    }

    /// Revokes a key, once and for all, and has its connections to NATS closed. One that is revoked already is
    /// answered as it is.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::LastAdminKey`] when nobody could administer Ovenbird any more; Postgres.
    pub async fn key_revoke(&self, id: KeyId) -> Result<api_key::Model, Error> {
        match self.store.key_revoke(id).await? {
            Revoked::Yes(key) => {
                self.revoker.cut(id);
                tracing::info!(revoked.id = %id, "key revoked");
                Ok(*key)
            }
            Revoked::LastAdmin => Err(Error::LastAdminKey),
            Revoked::NotFound => Err(Error::NotFound(format!("key {id}"))),
        }
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
        if !holds(&row) {
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

/// Makes a key for whoever has a shell on the server, and notes it in the audit log.
///
/// # Errors
/// When Postgres does not store it, or the system has no random numbers.
pub async fn bootstrap(
    store: &ovenbird_db::Store,
    name: &str,
    scope: Scope,
    expires_at: Option<DateTime<Utc>>,
) -> Result<Secret<String>, Error> {
    let wish = Wish { id: KeyId::new(), name: name.to_owned(), scope, expires_at };
    let entry = NewEntry {
        id: Uuid::now_v7(),
        actor: audit::COMMAND_LINE.to_owned(),
        action: "key_create".to_owned(),
        target: format!("/v1/admin/keys/{}", wish.id),
        request_id: None,
        status: None,
        details: json!({}),
    };
    store.audit_insert(&entry).await?;
    let made = make(store, &wish).await?;
    store.audit_end(entry.id, 201, &json!({})).await?;
    Ok(made.text)
}

/// Makes a key without a caller.
///
/// # Errors
/// When Postgres does not store it, or the system has no random numbers.
pub async fn create(
    store: &ovenbird_db::Store,
    name: &str,
    scope: Scope,
    expires_at: Option<DateTime<Utc>>,
) -> Result<Secret<String>, Error> {
    let wish = Wish { id: KeyId::new(), name: name.to_owned(), scope, expires_at };
    Ok(make(store, &wish).await?.text)
}

async fn make(store: &ovenbird_db::Store, wish: &Wish) -> Result<Made, Error> {
    let mut bytes = [0; 32];
    OsRng.try_fill_bytes(&mut bytes).map_err(|error| Error::internal("drawing a key", error))?;
    let text = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
    let new = NewKey {
        id: wish.id,
        name: wish.name.clone(),
        hash: hash(&text),
        scope: wish.scope.as_str().to_owned(),
        expires_at: wish.expires_at,
    };
    let key = store.key_insert(&new).await?;
    Ok(Made { key, text: Secret::new(text) })
}

fn holds(row: &api_key::Model) -> bool {
    let over = |at: Option<DateTime<Utc>>| at.is_some_and(|at| at <= Utc::now());
    !over(row.revoked_at) && !over(row.expires_at)
}

fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}
