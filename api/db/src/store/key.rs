//! API keys. A key's text is never here, only its hash.

use chrono::{DateTime, Utc};
use ovenbird_contract::id::KeyId;
use sea_orm::{ActiveValue::Set, ColumnTrait, ConnectionTrait as _, EntityTrait, QueryFilter};

use super::{Error, Store, sql};
use crate::entity::api_key;

/// A key to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewKey {
    /// Its id.
    pub id: KeyId,
    /// What people call it.
    pub name: String,
    /// sha256 of its text.
    pub hash: [u8; 32],
    /// `admin`, `build` or `read`.
    pub scope: String,
    /// When it ends by itself.
    pub expires_at: Option<DateTime<Utc>>,
}

impl Store {
    /// Stores a key.
    ///
    /// # Errors
    /// [`Error::Database`]; nothing was written then.
    pub async fn key_insert(&self, new: &NewKey) -> Result<(), Error> {
        let row = api_key::ActiveModel {
            id: Set(new.id.uuid()),
            name: Set(new.name.clone()),
            hash: Set(new.hash.to_vec()),
            scope: Set(new.scope.clone()),
            expires_at: Set(new.expires_at),
            ..Default::default()
        };
        api_key::Entity::insert(row).exec_without_returning(&self.db).await?;
        Ok(())
    }

    /// The key of this hash, whatever became of it: the caller looks at expiry and revocation.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn key_by_hash(&self, hash: &[u8; 32]) -> Result<Option<api_key::Model>, Error> {
        Ok(api_key::Entity::find()
            .filter(api_key::Column::Hash.eq(hash.to_vec()))
            .one(&self.db)
            .await?)
    }

    /// Notes that a key is in use, at most once a minute: each request would otherwise write.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn key_touch(&self, id: KeyId) -> Result<(), Error> {
        self.db
            .execute_raw(sql(
                "UPDATE api_keys SET last_used_at = now()
                 WHERE id = $1
                   AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')",
                [id.uuid().into()],
            ))
            .await?;
        Ok(())
    }
}
