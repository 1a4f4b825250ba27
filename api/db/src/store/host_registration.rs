//! Hosts that register: a row and a token first, then the key of the agent that comes with the token, then renewals
//! for whoever has that key. Neither token nor key is ever here, only their hashes.
//!
//! ```text
//!  host_announce ─► pending, token ──host_register──► pending, key ──the bridges' poll──► online
//!                        ▲                               │  ▲
//!                        └───────── host_token ──────────┘  └─ host_renew, as long as the certificate lasts
//! ```
//!
//! A token ends by its use, in the statement that uses it. A new one for the same host takes the place of the one
//! before, and the key that registers with it that of the key before.

use std::time::Duration;

use chrono::{DateTime, Utc};
use ovenbird_contract::id::HostId;
use sea_orm::{ConnectionTrait, DatabaseTransaction, EntityTrait, TransactionTrait};
use uuid::Uuid;

use super::{
    Error, Store,
    audit::NewEntry,
    host::{Labels, millis},
    host_admin::HostRow,
    json, sql,
};
use crate::entity::host;

/// A host to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewHost {
    /// Its id. The same wish that comes again has the same one.
    pub id: HostId,
    /// What people call it.
    pub name: Option<String>,
    /// The name in its certificates.
    pub server_name: String,
    /// Its labels.
    pub labels: Labels,
}

/// A token to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewToken {
    /// sha256 of its text.
    pub hash: [u8; 32],
    /// Who asked for it.
    pub created_by: String,
    /// How long it can be used.
    pub lifetime: Duration,
}

/// What comes with a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// sha256 of the token's text.
    pub token_hash: [u8; 32],
    /// sha256 of the agent's public key.
    pub key_hash: [u8; 32],
    /// `host:port` of the agent.
    pub address: String,
    /// When the certificate will end.
    pub expires_at: DateTime<Utc>,
}

/// Why a host did not register; nothing changed, and the token can still be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// There is no such token, it is over, or it was used.
    Token,
    /// Another host has the address.
    Address,
    /// Another host has the key.
    Key,
}

/// Broken when another host has the same address, or the same key.
const ADDRESS_IS_TAKEN: &str = "hosts_address";
const KEY_IS_TAKEN: &str = "hosts_key";

impl Store {
    /// Makes a host that waits for its agent, and a token for that agent. The same host again gets another token.
    ///
    /// # Errors
    /// [`Error::Database`]; nothing was written then, or the answer was lost: it is safe to repeat.
    pub async fn host_announce(
        &self,
        new: &NewHost,
        token: &NewToken,
    ) -> Result<(HostRow, DateTime<Utc>), Error> {
        let tx = self.db.begin().await?;
        tx.execute_raw(sql(
            "INSERT INTO hosts (id, name, address, server_name, status, labels)
             VALUES ($1, $2, '', $3, 'pending', $4) ON CONFLICT (id) DO NOTHING",
            [
                new.id.uuid().into(),
                new.name.clone().into(),
                new.server_name.clone().into(),
                json(&new.labels)?.into(),
            ],
        ))
        .await?;
        let expires_at = token_put(&tx, new.id, token).await?;
        tx.commit().await?;
        let row = self.host_get(new.id).await?.ok_or_else(gone)?;
        Ok((row, expires_at))
    }

    /// Makes another token for a host, also for one that has registered: its agent has lost its key, or is to have
    /// another one. Nothing comes back for a host that does not exist, is deleted, or stands in the bridges'
    /// configuration.
    ///
    /// # Errors
    /// [`Error::Database`]; it was done or not, so ask again.
    pub async fn host_token(
        &self,
        id: HostId,
        token: &NewToken,
    ) -> Result<Option<(HostRow, DateTime<Utc>)>, Error> {
        let tx = self.db.begin().await?;
        let locked = tx
            .query_one_raw(sql(
                "SELECT id FROM hosts WHERE id = $1 AND deleted_at IS NULL
                   AND (registered_at IS NOT NULL OR address = '') FOR NO KEY UPDATE",
                [id.uuid().into()],
            ))
            .await?;
        if locked.is_none() {
            return Ok(None);
        }
        let expires_at = token_put(&tx, id, token).await?;
        tx.commit().await?;
        Ok(self.host_get(id).await?.map(|row| (row, expires_at)))
    }

    /// Uses a token: the host whose token it is has the key and the address from now on, and `entry` stands in the
    /// audit log, named by the host. Address and key of a deleted host are free.
    ///
    /// # Errors
    /// [`Error::Database`]; it was done or not. Whoever has the key can renew then.
    pub async fn host_register(
        &self,
        registration: &Registration,
        entry: &NewEntry,
    ) -> Result<Result<host::Model, Refused>, Error> {
        match self.register(registration, entry).await {
            Err(Error::Database(error)) => {
                match super::refusal(&error).and_then(|it| it.constraint()) {
                    Some(ADDRESS_IS_TAKEN) => Ok(Err(Refused::Address)),
                    Some(KEY_IS_TAKEN) => Ok(Err(Refused::Key)),
                    _ => Err(Error::Database(error)),
                }
            }
            other => other,
        }
    }

    async fn register(
        &self,
        registration: &Registration,
        entry: &NewEntry,
    ) -> Result<Result<host::Model, Refused>, Error> {
        let tx = self.db.begin().await?;
        let used = tx
            .query_one_raw(sql(
                "DELETE FROM host_tokens WHERE hash = $1 AND expires_at > now() RETURNING host_id",
                [registration.token_hash.to_vec().into()],
            ))
            .await?;
        let Some(used) = used else { return Ok(Err(Refused::Token)) };
        let id: Uuid = used.try_get("", "host_id")?;
        tx.execute_raw(sql(
            "UPDATE hosts SET address = '' WHERE address = $1 AND deleted_at IS NOT NULL",
            [registration.address.clone().into()],
        ))
        .await?;
        // The deleted one is as if it had never registered: should it be wanted back, it needs a token.
        tx.execute_raw(sql(
            "UPDATE hosts SET address = '', key_hash = NULL, certificate_expires_at = NULL,
               registered_at = NULL
             WHERE key_hash = $1 AND deleted_at IS NOT NULL",
            [registration.key_hash.to_vec().into()],
        ))
        .await?;
        let registered = host::Entity::find()
            .from_raw_sql(sql(
                "UPDATE hosts SET address = $2, key_hash = $3, certificate_expires_at = $4,
                   registered_at = clock_timestamp()
                 WHERE id = $1 AND deleted_at IS NULL RETURNING *",
                [
                    id.into(),
                    registration.address.clone().into(),
                    registration.key_hash.to_vec().into(),
                    registration.expires_at.into(),
                ],
            ))
            .one(&tx)
            .await?;
        let Some(registered) = registered else { return Ok(Err(Refused::Token)) };
        note(&tx, entry, HostId::from_uuid(id)).await?;
        tx.commit().await?;
        Ok(Ok(registered))
    }

    /// The host that registered with a key and may have another certificate, which ends at `expires_at`: nobody when
    /// there is none, it was deleted, or its certificate is over.
    ///
    /// # Errors
    /// [`Error::Database`]; it is safe to repeat.
    pub async fn host_renew(
        &self,
        key_hash: [u8; 32],
        expires_at: DateTime<Utc>,
        entry: &NewEntry,
    ) -> Result<Option<host::Model>, Error> {
        let tx = self.db.begin().await?;
        let renewed = host::Entity::find()
            .from_raw_sql(sql(
                "UPDATE hosts SET certificate_expires_at = $2
                 WHERE key_hash = $1 AND deleted_at IS NULL AND certificate_expires_at > now() RETURNING *",
                [key_hash.to_vec().into(), expires_at.into()],
            ))
            .one(&tx)
            .await?;
        let Some(renewed) = renewed else { return Ok(None) };
        note(&tx, entry, HostId::from_uuid(renewed.id)).await?;
        tx.commit().await?;
        Ok(Some(renewed))
    }

    /// Every host that has registered and was not deleted: whom the bridges ask besides those of their configuration. One
    /// whose address another host has since, because it was deleted in between, waits for its agent to register again.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn host_registered(&self) -> Result<Vec<host::Model>, Error> {
        Ok(host::Entity::find()
            .from_raw_sql(sql(
                "SELECT * FROM hosts WHERE registered_at IS NOT NULL AND deleted_at IS NULL AND address <> ''
                 ORDER BY id",
                [],
            ))
            .all(&self.db)
            .await?)
    }
}

async fn token_put(
    tx: &DatabaseTransaction,
    host: HostId,
    token: &NewToken,
) -> Result<DateTime<Utc>, Error> {
    let row = tx
        .query_one_raw(sql(
            "INSERT INTO host_tokens (hash, host_id, created_by, expires_at)
             VALUES ($1, $2, $3, now() + $4 * interval '1 millisecond')
             ON CONFLICT (host_id) DO UPDATE SET hash = EXCLUDED.hash, created_by = EXCLUDED.created_by,
               created_at = now(), expires_at = EXCLUDED.expires_at
             RETURNING expires_at",
            [
                token.hash.to_vec().into(),
                host.uuid().into(),
                token.created_by.clone().into(),
                millis(token.lifetime).into(),
            ],
        ))
        .await?
        .ok_or_else(gone)?;
    Ok(row.try_get("", "expires_at")?)
}

/// A change that is made is noted with it.
async fn note(tx: &DatabaseTransaction, entry: &NewEntry, by: HostId) -> Result<(), Error> {
    tx.execute_raw(sql(
        "INSERT INTO audit_log (id, actor, action, target, request_id, status, details)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        [
            entry.id.into(),
            by.to_string().into(),
            entry.action.clone().into(),
            entry.target.clone().into(),
            entry.request_id.clone().into(),
            entry.status.map(i32::from).into(),
            json(&entry.details)?.into(),
        ],
    ))
    .await?;
    Ok(())
}

fn gone() -> Error {
    sea_orm::DbErr::RecordNotFound("the host just written".into()).into()
}
