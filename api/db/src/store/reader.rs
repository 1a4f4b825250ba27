//! What the api asks when customers come to NATS, and while they stay: which builds a key may hear, and which
//! keys have ended.

use chrono::{DateTime, Utc};
use ovenbird_contract::id::{BuildId, KeyId};
use sea_orm::FromQueryResult;
use uuid::Uuid;

use super::{Error, Store, json, sql};

/// How long a key lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyTerm {
    /// The key.
    pub id: KeyId,
    /// When it ends by itself.
    pub expires_at: Option<DateTime<Utc>>,
    /// It was revoked, or its time is over.
    pub ended: bool,
}

#[derive(Debug, FromQueryResult)]
struct TermRow {
    id: Uuid,
    expires_at: Option<DateTime<Utc>>,
    ended: bool,
}

#[derive(Debug, FromQueryResult)]
struct IdRow {
    id: Uuid,
}

impl Store {
    /// How long each of `keys` lasts; one that does not exist is left out.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn key_terms(&self, keys: &[KeyId]) -> Result<Vec<KeyTerm>, Error> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<Uuid> = keys.iter().map(|id| id.uuid()).collect();
        let rows = TermRow::find_by_statement(sql(
            "SELECT id, expires_at,
                    revoked_at IS NOT NULL OR coalesce(expires_at <= now(), false) AS ended
             FROM api_keys WHERE id IN (SELECT value::uuid FROM jsonb_array_elements_text($1))",
            [json(&ids)?.into()],
        ))
        .all(&self.db)
        .await?;
        Ok(rows
            .into_iter()
            .map(|TermRow { id, expires_at, ended }| KeyTerm {
                id: KeyId::from_uuid(id),
                expires_at,
                ended,
            })
            .collect())
    }

    /// Up to `limit` builds that `requester` asked for and whose log may still be in the stream: those that are
    /// not over first, then the newest.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn build_ids_live(&self, requester: &str, limit: u64) -> Result<Vec<BuildId>, Error> {
        let rows = IdRow::find_by_statement(sql(
            "SELECT id FROM template_builds
             WHERE requested_by = $1
               AND (status IN ('queued', 'running', 'cancelling')
                    OR created_at > now() - interval '72 hours')
             ORDER BY status IN ('queued', 'running', 'cancelling') DESC, created_at DESC
             LIMIT $2",
            [requester.into(), i64::try_from(limit).unwrap_or(i64::MAX).into()],
        ))
        .all(&self.db)
        .await?;
        Ok(rows.into_iter().map(|row| BuildId::from_uuid(row.id)).collect())
    }
}
