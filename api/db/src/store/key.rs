//! API keys. A key's text is never here, only its hash.

use chrono::{DateTime, Utc};
use ovenbird_contract::id::KeyId;
use sea_orm::{
    ActiveValue::Set,
    ColumnTrait, Condition, ConnectionTrait as _, EntityTrait, QueryFilter, QueryOrder,
    QuerySelect, TransactionTrait as _,
    sea_query::{LockType, OnConflict},
};

use super::{Error, Store, build_admin::After, sql};
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

/// What [`Store::key_revoke`] found.
#[derive(Debug, Clone, PartialEq)]
pub enum Revoked {
    /// It is revoked, now or before.
    Yes(Box<api_key::Model>),
    /// It is the only key of scope `admin` that can be used. Nothing was written.
    LastAdmin,
    /// There is no such key.
    NotFound,
}

impl Store {
    /// Stores a key. One of the same id gets the hash of its new text.
    ///
    /// # Errors
    /// [`Error::Database`]; nothing was written then.
    pub async fn key_insert(&self, new: &NewKey) -> Result<api_key::Model, Error> {
        let row = api_key::ActiveModel {
            id: Set(new.id.uuid()),
            name: Set(new.name.clone()),
            hash: Set(new.hash.to_vec()),
            scope: Set(new.scope.clone()),
            expires_at: Set(new.expires_at),
            ..Default::default()
        };
        let conflict =
            OnConflict::column(api_key::Column::Id).update_column(api_key::Column::Hash).to_owned();
        let insert = api_key::Entity::insert(row).on_conflict(conflict);
        Ok(insert.exec_with_returning(&self.db).await?)
    }

    /// A key, whatever became of it.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn key_get(&self, id: KeyId) -> Result<Option<api_key::Model>, Error> {
        Ok(api_key::Entity::find_by_id(id.uuid()).one(&self.db).await?)
    }

    /// Up to `limit` keys after `after`, newest first, the revoked and expired ones too.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn key_list(
        &self,
        after: Option<After>,
        limit: u64,
    ) -> Result<Vec<api_key::Model>, Error> {
        use api_key::Column;
        let mut select = api_key::Entity::find()
            .order_by_desc(Column::CreatedAt)
            .order_by_desc(Column::Id)
            .limit(limit);
        if let Some(After { created_at, id }) = after {
            select = select.filter(Condition::any().add(Column::CreatedAt.lt(created_at)).add(
                Condition::all().add(Column::CreatedAt.eq(created_at)).add(Column::Id.lt(id)),
            ));
        }
        Ok(select.all(&self.db).await?)
    }

    /// Marks a key as revoked, unless nobody could administer Ovenbird any more then.
    ///
    /// # Errors
    /// [`Error::Database`]; nothing was written then, or the answer was lost: it is safe to repeat.
    pub async fn key_revoke(&self, id: KeyId) -> Result<Revoked, Error> {
        use api_key::Column;
        let tx = self.db.begin().await?;
        // Every usable admin key is locked, in one order, or two of them could revoke each other at once.
        let usable =
            Condition::all().add(Column::Scope.eq("admin")).add(Column::RevokedAt.is_null()).add(
                Condition::any()
                    .add(Column::ExpiresAt.is_null())
                    .add(Column::ExpiresAt.gt(Utc::now())),
            );
        let admins = api_key::Entity::find()
            .filter(usable)
            .order_by_asc(Column::Id)
            .lock(LockType::NoKeyUpdate)
            .all(&tx)
            .await?;
        if matches!(admins.as_slice(), [last] if last.id == id.uuid()) {
            return Ok(Revoked::LastAdmin);
        }
        let revoked = api_key::Entity::find()
            .from_raw_sql(sql(
                "UPDATE api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE id = $1 RETURNING *",
                [id.uuid().into()],
            ))
            .one(&tx)
            .await?;
        tx.commit().await?;
        Ok(revoked.map_or(Revoked::NotFound, |key| Revoked::Yes(Box::new(key))))
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
