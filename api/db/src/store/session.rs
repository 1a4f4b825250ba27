//! Browsers that are signed in. A session's text is never here, only its hash.

use std::time::Duration;

use chrono::Utc;
use ovenbird_contract::id::KeyId;
use sea_orm::{ColumnTrait as _, ConnectionTrait as _, EntityTrait as _, QueryFilter as _};

use super::{Error, Store, sql};
use crate::entity::{api_key, session};

/// Sessions of one key; a new one beyond ends the oldest.
const OF_ONE_KEY_MAX: i64 = 100;

/// A session with its key, whatever became of the key: the caller looks at expiry and revocation.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionDetail {
    /// When it was opened, and when it ends by itself.
    pub session: session::Model,
    /// The key that was signed in with.
    pub key: api_key::Model,
}

impl Store {
    /// Stores a session, with what is sealed for it, and takes away those that are over.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn session_insert(
        &self,
        hash: &[u8; 32],
        key: KeyId,
        repeats: &[u8],
        lifetime: Duration,
    ) -> Result<(), Error> {
        self.db
            .execute_raw(sql(
                "DELETE FROM sessions
                 WHERE expires_at <= now() OR hash IN (
                     SELECT hash FROM sessions WHERE key_id = $1
                     ORDER BY created_at DESC, hash OFFSET $2)",
                [key.uuid().into(), (OF_ONE_KEY_MAX - 1).into()],
            ))
            .await?;
        self.db
            .execute_raw(sql(
                "INSERT INTO sessions (hash, key_id, expires_at, repeats)
                 VALUES ($1, $2, now() + make_interval(secs => $3), $4)",
                [
                    hash.to_vec().into(),
                    key.uuid().into(),
                    lifetime.as_secs_f64().into(),
                    repeats.to_vec().into(),
                ],
            ))
            .await?;
        Ok(())
    }

    /// The session of this hash that is not over.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn session_get(&self, hash: &[u8; 32]) -> Result<Option<SessionDetail>, Error> {
        let found = session::Entity::find_by_id(hash.to_vec())
            .filter(session::Column::ExpiresAt.gt(Utc::now()))
            .one(&self.db)
            .await?;
        let Some(session) = found else { return Ok(None) };
        let key = api_key::Entity::find_by_id(session.key_id).one(&self.db).await?;
        Ok(key.map(|key| SessionDetail { session, key }))
    }

    /// Ends a session. Repeating it changes nothing.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn session_remove(&self, hash: &[u8; 32]) -> Result<(), Error> {
        session::Entity::delete_by_id(hash.to_vec()).exec(&self.db).await?;
        Ok(())
    }
}
