//! `/v1/admin/keys`.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use ovenbird_contract::id::KeyId;
use ovenbird_db::entity::api_key;
use poem::Request;
use poem_openapi::{
    ApiResponse, Enum, Object, OpenApi,
    param::{Path, Query},
    payload::Json,
    types::ParseFromJSON as _,
};

use super::{
    Tag,
    auth::{Administers, Allowed},
    body::Submitted,
    error::Failure,
    parameters, request,
};
use crate::app::{
    self, App, Error,
    keys::{Made, Scope, Wish},
    page::Page,
};

/// The resource.
#[derive(Debug, Clone)]
pub struct KeyRoutes {
    app: Arc<App>,
}

impl KeyRoutes {
    /// The resource over the use cases.
    pub fn new(app: Arc<App>) -> Self {
        Self { app }
    }
}

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
pub enum KeyScope {
    /// Everything.
    Admin,
    /// Create builds, and read its own.
    Build,
    /// Read everything but keys and the audit log.
    Read,
}

impl From<KeyScope> for Scope {
    fn from(scope: KeyScope) -> Self {
        match scope {
            KeyScope::Admin => Self::Admin,
            KeyScope::Build => Self::Build,
            KeyScope::Read => Self::Read,
        }
    }
}

/// Whether a key can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
pub enum KeyStatus {
    /// It can.
    Active,
    /// Its time is over.
    Expired,
    /// Somebody revoked it.
    Revoked,
}

/// A key to be. Unknown fields are refused.
#[derive(Debug, Object)]
pub struct KeyCreate {
    /// What people call it; it need not be unique.
    #[oai(validator(
        min_length = 1,
        max_length = 128,
        pattern = "^[^\\x00-\\x1f\\x7f]*[^\\x00-\\x20\\x7f][^\\x00-\\x1f\\x7f]*$"
    ))]
    pub name: String,
    /// What it may do.
    pub scope: KeyScope,
    /// When it ends by itself; never when absent.
    pub expires_at: Option<DateTime<Utc>>,
}

/// A key, without its text.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct Key {
    /// Its id. Builds and the audit log name their callers by it.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// What it may do.
    pub scope: KeyScope,
    /// Whether it can be used.
    pub status: KeyStatus,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it ends by itself.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was last used, to the minute.
    pub last_used_at: Option<DateTime<Utc>>,
    /// When it was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
}

/// A key that was just made.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct NewKey {
    /// The text of the key, to send with every request. It is told here only; Ovenbird keeps a hash of it.
    pub key: String,
    /// Its id.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// What it may do.
    pub scope: KeyScope,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it ends by itself.
    pub expires_at: Option<DateTime<Utc>>,
}

/// A page of keys.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct KeyList {
    /// Newest first, the expired and revoked ones too.
    pub items: Vec<Key>,
    /// Pass it as `cursor` for the next page; absent on the last one.
    pub next_cursor: Option<String>,
}

/// The answer to the wish for a key.
#[derive(Debug, ApiResponse)]
pub enum KeyCreated {
    /// The key, with its text.
    #[oai(status = 201)]
    Key(
        Json<NewKey>,
        /// Where the key is.
        #[oai(header = "Location")]
        String,
    ),
}

#[OpenApi(prefix_path = "/v1/admin/keys", tag = "Tag::Keys")]
impl KeyRoutes {
    /// Make a key
    ///
    /// Its text, `ovb_…`, is in this answer and cannot be had again, except by the same request with the same
    /// `Idempotency-Key`.
    #[oai(path = "/", method = "post", operation_id = "key_create")]
    async fn create(
        &self,
        request: &Request,
        _caller: Allowed<Administers>,
        body: Submitted<KeyCreate>,
    ) -> Result<KeyCreated, Failure> {
        let id = KeyId::from_uuid(request::resource(request).id);
        let made = self.app.key_create(&wish(id, body)?).await?;
        let location = format!("/v1/admin/keys/{id}");
        Ok(KeyCreated::Key(Json(told_once(made)?), location))
    }

    /// List keys
    ///
    /// Newest first, the expired and revoked ones too: builds and the audit log name them.
    #[oai(path = "/", method = "get", operation_id = "key_list")]
    async fn list(
        &self,
        _caller: Allowed<Administers>,
        /// `next_cursor` of the page before.
        #[oai(validator(max_length = 64))]
        cursor: Query<Option<String>>,
        /// Keys of a page.
        #[oai(validator(minimum(value = "1"), maximum(value = "200")), default = "limit_default")]
        limit: Query<u32>,
    ) -> Result<Json<KeyList>, Failure> {
        let Page { items, next } = self.app.key_list(cursor.0.as_deref(), limit.0).await?;
        let items = items.into_iter().map(told).collect::<Result<_, _>>()?;
        Ok(Json(KeyList { items, next_cursor: next }))
    }

    /// Get a key
    ///
    /// Never its text.
    #[oai(path = "/:id", method = "get", operation_id = "key_get")]
    async fn get(
        &self,
        _caller: Allowed<Administers>,
        /// The key.
        #[oai(validator(pattern = "^key_[0-7][0-9a-hjkmnp-tv-z]{25}$"))]
        id: Path<String>,
    ) -> Result<Json<Key>, Failure> {
        Ok(Json(told(self.app.key_get(parameters::id(&id.0)?).await?)?))
    }

    /// Revoke a key
    ///
    /// Every request with it is refused from now on. It stays in the list. Repeating it changes nothing. The last
    /// key of scope `admin` that can be used is not revoked.
    #[oai(path = "/:id", method = "delete", operation_id = "key_revoke")]
    async fn revoke(
        &self,
        _caller: Allowed<Administers>,
        /// The key.
        #[oai(validator(pattern = "^key_[0-7][0-9a-hjkmnp-tv-z]{25}$"))]
        id: Path<String>,
    ) -> Result<Json<Key>, Failure> {
        Ok(Json(told(self.app.key_revoke(parameters::id(&id.0)?).await?)?))
    }
}

fn limit_default() -> u32 {
    app::page::LIMIT_DEFAULT
}

/// The body, which fits its schema or is refused with everything that does not.
fn wish(id: KeyId, body: Submitted<KeyCreate>) -> Result<Wish, Error> {
    if !body.problems.is_empty() {
        return Err(Error::Invalid(body.problems));
    }
    let read = KeyCreate::parse_from_json(Some(body.value));
    let KeyCreate { name, scope, expires_at } =
        read.map_err(|error| Error::internal("reading a checked body", error.into_message()))?;
    Ok(Wish { id, name: name.trim().to_owned(), scope: scope.into(), expires_at })
}

fn scope(row: &api_key::Model) -> Result<KeyScope, Error> {
    match row.scope.as_str() {
        "admin" => Ok(KeyScope::Admin),
        "build" => Ok(KeyScope::Build),
        "read" => Ok(KeyScope::Read),
        other => {
            let what = format!("unknown scope `{other}`");
            Err(Error::internal("reading a key's row", what))
        }
    }
}

fn told(row: api_key::Model) -> Result<Key, Error> {
    let status = match (row.revoked_at, row.expires_at) {
        (Some(_), _) => KeyStatus::Revoked,
        (None, Some(at)) if at <= Utc::now() => KeyStatus::Expired,
        (None, _) => KeyStatus::Active,
    };
    Ok(Key {
        id: KeyId::from_uuid(row.id).to_string(),
        scope: scope(&row)?,
        status,
        name: row.name,
        created_at: row.created_at,
        expires_at: row.expires_at,
        last_used_at: row.last_used_at,
        revoked_at: row.revoked_at,
    })
}

fn told_once(made: Made) -> Result<NewKey, Error> {
    let Made { key: row, text } = made;
    Ok(NewKey {
        key: text.expose().clone(),
        id: KeyId::from_uuid(row.id).to_string(),
        scope: scope(&row)?,
        name: row.name,
        created_at: row.created_at,
        expires_at: row.expires_at,
    })
}
