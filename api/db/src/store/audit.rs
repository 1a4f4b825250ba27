//! The audit log. An entry is written before the request is carried out and gets its end afterwards, so that
//! nothing is done that is not noted.
//!
//! Neither write waits for the disk: whatever the request itself commits afterwards flushes them too, for Postgres
//! writes its log in order. What a crash of Postgres can take are entries of its last moments whose requests changed
//! nothing there.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait as _, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
};
use serde_json::Value as Json;
use uuid::Uuid;

use super::{Error, Store, build_admin::After, host::millis, json, sql};
use crate::entity::audit_log;

/// An entry to be.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEntry {
    /// Its id.
    pub id: Uuid,
    /// Who.
    pub actor: String,
    /// What.
    pub action: String,
    /// To what.
    pub target: String,
    /// In which request.
    pub request_id: Option<String>,
    /// The answer's status, where it is known already.
    pub status: Option<u16>,
    /// What else is known.
    pub details: Json,
}

/// Which entries to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Only of this actor.
    pub actor: Option<String>,
    /// Only of this action.
    pub action: Option<String>,
    /// Only from then on.
    pub since: Option<DateTime<Utc>>,
}

impl Store {
    /// Writes an entry.
    ///
    /// # Errors
    /// [`Error::Database`]; nothing was written then, or its answer was lost.
    pub async fn audit_insert(&self, new: &NewEntry) -> Result<(), Error> {
        self.db
            .execute_raw(sql(
                "WITH lax AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))
                 INSERT INTO audit_log (id, actor, action, target, request_id, status, details)
                 SELECT $1, $2, $3, $4, $5, $6, $7 FROM lax",
                [
                    new.id.into(),
                    new.actor.clone().into(),
                    new.action.clone().into(),
                    new.target.clone().into(),
                    new.request_id.clone().into(),
                    new.status.map(i32::from).into(),
                    json(&new.details)?.into(),
                ],
            ))
            .await?;
        Ok(())
    }

    /// Notes how the request of an entry ended, and what else became known.
    ///
    /// # Errors
    /// [`Error::Database`]; the entry has no end then.
    pub async fn audit_end(&self, id: Uuid, status: u16, details: &Json) -> Result<(), Error> {
        self.db
            .execute_raw(sql(
                "WITH lax AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))
                 UPDATE audit_log SET status = $2, details = details || $3 FROM lax
                 WHERE id = $1 AND status IS NULL",
                [id.into(), i32::from(status).into(), json(details)?.into()],
            ))
            .await?;
        Ok(())
    }

    /// Takes away an entry whose request has not ended, and did nothing.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn audit_remove(&self, id: Uuid) -> Result<(), Error> {
        self.db
            .execute_raw(sql(
                "WITH lax AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))
                 DELETE FROM audit_log USING lax WHERE id = $1 AND status IS NULL",
                [id.into()],
            ))
            .await?;
        Ok(())
    }

    /// Up to `limit` entries after `after`, newest first.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn audit_list(
        &self,
        filter: &AuditFilter,
        after: Option<After>,
        limit: u64,
    ) -> Result<Vec<audit_log::Model>, Error> {
        use audit_log::Column;
        let mut select = audit_log::Entity::find()
            .order_by_desc(Column::At)
            .order_by_desc(Column::Id)
            .limit(limit);
        if let Some(actor) = &filter.actor {
            select = select.filter(Column::Actor.eq(actor));
        }
        if let Some(action) = &filter.action {
            select = select.filter(Column::Action.eq(action));
        }
        if let Some(since) = filter.since {
            select = select.filter(Column::At.gte(since));
        }
        if let Some(After { created_at, id }) = after {
            select = select.filter(
                Condition::any()
                    .add(Column::At.lt(created_at))
                    .add(Condition::all().add(Column::At.eq(created_at)).add(Column::Id.lt(id))),
            );
        }
        Ok(select.all(&self.db).await?)
    }

    /// Removes up to `limit` entries that are older than `kept`; says how many.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn audit_forget(&self, kept: Duration, limit: u32) -> Result<usize, Error> {
        let removed = self
            .db
            .execute_raw(sql(
                "DELETE FROM audit_log WHERE id IN (
                     SELECT id FROM audit_log WHERE at < now() - $1 * interval '1 millisecond'
                     ORDER BY at LIMIT $2
                 )",
                [millis(kept).into(), i64::from(limit).into()],
            ))
            .await?;
        Ok(usize::try_from(removed.rows_affected()).unwrap_or(usize::MAX))
    }
}
