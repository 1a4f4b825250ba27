//! Cancels: asked for by a user, ended by the runner of the build or, when there is none, by the sweep.
//!
//! ```text
//!  asked for ─┬─ queued  ─► cancelled                      its sandbox of an attempt before, if any, goes later
//!             └─ running ─► cancelling ─┬─ runner: finish ─► cancelled, with the time of the sandbox's end
//!                                       └─ lease over: the sweep destroys the sandbox ─► the same
//! ```
//!
//! `sandbox_destroyed_at` is written by whoever has the host's word that the sandbox is gone, and by nobody
//! else; a cancelled build may be without it for as long as its host does not answer.

use chrono::{DateTime, Utc};
use ovenbird_contract::{
    build::{Event, Reason, Status},
    id::{BuildId, HostId, SandboxId, TemplateId},
};
use sea_orm::{ConnectionTrait, EntityTrait, FromQueryResult, TransactionTrait};
use uuid::Uuid;

use super::{
    Error, Store,
    build::{lock, status},
    finish::{Ended, ended},
    json, sql,
};
use crate::entity::template_build;

/// Who wants a build's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// The build.
    pub build: BuildId,
    /// Who asks.
    pub by: String,
    /// Why.
    pub why: Option<String>,
}

/// What became of a [`Wish`].
#[derive(Debug, Clone, PartialEq)]
pub enum Asked {
    /// No such build.
    NotFound,
    /// The build is being cancelled, or is cancelled, by this wish.
    Now(Box<template_build::Model>),
    /// It was already; who and why of the first wish stay. Nothing was written.
    Before(Box<template_build::Model>),
    /// It ended otherwise. Nothing was written.
    Over(Status),
}

/// Where a sandbox of a build may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The build.
    pub build: BuildId,
    /// Its last attempt.
    pub attempt: u32,
    /// The attempt's sandbox, as far as it is known.
    pub sandbox: Option<SandboxId>,
    /// The template that the attempt may have written.
    pub template: Option<TemplateId>,
    /// The host.
    pub host: HostId,
    /// `host:port` of its agent.
    pub address: String,
    /// The name in its certificate.
    pub server_name: String,
    /// When the cancel was asked for.
    pub asked_at: DateTime<Utc>,
}

#[derive(Debug, FromQueryResult)]
struct Row {
    id: Uuid,
    attempt: i32,
    sandbox_id: Option<Uuid>,
    planned_template_id: Option<Uuid>,
    host_id: Uuid,
    address: String,
    server_name: String,
    cancel_requested_at: DateTime<Utc>,
}

impl From<Row> for Place {
    fn from(row: Row) -> Self {
        Self {
            build: BuildId::from_uuid(row.id),
            attempt: u32::try_from(row.attempt).unwrap_or(0),
            sandbox: row.sandbox_id.map(SandboxId::from_uuid),
            template: row.planned_template_id.map(TemplateId::from_uuid),
            host: HostId::from_uuid(row.host_id),
            address: row.address,
            server_name: row.server_name,
            asked_at: row.cancel_requested_at,
        }
    }
}

const PLACE: &str =
    "SELECT b.id, b.attempt, b.sandbox_id, b.planned_template_id, b.cancel_requested_at,
   h.id AS host_id, h.address, h.server_name
 FROM template_builds b JOIN hosts h ON h.id = b.host_id";

impl Store {
    /// Begins the cancel of a build that is not over: a queued one is cancelled at once, of a running one the
    /// runner hears. Repeating it changes nothing.
    ///
    /// # Errors
    /// [`Error::Database`]; it may be cancelled or not, so ask again.
    pub async fn build_cancel(&self, wish: &Wish) -> Result<Asked, Error> {
        let tx = self.db.begin().await?;
        let Some(row) = lock(&tx, wish.build).await? else { return Ok(Asked::NotFound) };
        let now = status(&row)?;
        if matches!(now, Status::Cancelling | Status::Cancelled) {
            return Ok(Asked::Before(Box::new(row)));
        }
        let Ok(next) = now.apply(Event::CancelRequested) else { return Ok(Asked::Over(now)) };
        let row = template_build::Entity::find()
            .from_raw_sql(sql(
                "UPDATE template_builds SET status = $3, cancel_requested_at = clock_timestamp(),
                   cancel_requested_by = $4, cancel_requested_why = $5, reason = NULL,
                   job_published_at = NULL, job_stream_seq = NULL,
                   completed_at = CASE WHEN $3 = 'cancelled' THEN clock_timestamp() END
                 WHERE id = $1 AND status = $2
                 RETURNING *",
                [
                    wish.build.uuid().into(),
                    now.as_str().into(),
                    next.as_str().into(),
                    wish.by.clone().into(),
                    wish.why.clone().into(),
                ],
            ))
            .one(&tx)
            .await?
            .ok_or_else(|| sea_orm::DbErr::RecordNotFound("the row just locked".into()))?;
        tx.commit().await?;
        Ok(Asked::Now(Box::new(row)))
    }

    /// Up to `limit` builds that are being cancelled and whose lease is over: no runner destroys their
    /// sandboxes.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn build_list_cancel_left(&self, limit: u32) -> Result<Vec<Place>, Error> {
        let text = format!(
            "{PLACE} WHERE b.status = 'cancelling' AND b.lease_until < now()
             ORDER BY row_number() OVER (PARTITION BY h.id ORDER BY b.lease_until), b.lease_until LIMIT $1"
        );
        let rows = Row::find_by_statement(sql(&text, [i64::from(limit).into()]));
        Ok(rows.all(&self.db).await?.into_iter().map(Place::from).collect())
    }

    /// Ends a build of [`Store::build_list_cancel_left`]: with the host's word that its sandbox is gone, or
    /// without it and with the reason why there is none. `None` when the build is not left any more.
    ///
    /// # Errors
    /// [`Error::Database`]; it may have ended or not, so ask again.
    pub async fn build_cancel_end(
        &self,
        place: &Place,
        without_proof: Option<&Reason>,
    ) -> Result<Option<Ended>, Error> {
        let next = Status::Cancelling
            .apply(Event::SandboxDestroyed)
            .map_err(super::corrupt("template_builds", "status"))?;
        let row = template_build::Entity::find()
            .from_raw_sql(sql(
                "UPDATE template_builds SET status = $3, lease_until = NULL, completed_at = clock_timestamp(),
                   reason = $4, sandbox_destroyed_at = CASE WHEN $4::jsonb IS NULL THEN clock_timestamp() END
                 WHERE id = $1 AND attempt = $2 AND status = 'cancelling' AND lease_until < now()
                 RETURNING *",
                [
                    place.build.uuid().into(),
                    attempt(place).into(),
                    next.as_str().into(),
                    without_proof.map(json).transpose()?.into(),
                ],
            ))
            .one(&self.db)
            .await?;
        Ok(row.as_ref().map(|row| ended(row, next)))
    }

    /// Notes why a build of [`Store::build_list_cancel_left`] has not ended yet.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn build_cancel_waits(&self, place: &Place, reason: &Reason) -> Result<(), Error> {
        self.db
            .execute_raw(sql(
                "UPDATE template_builds SET reason = $3
                 WHERE id = $1 AND attempt = $2 AND status = 'cancelling'
                   AND reason IS DISTINCT FROM $3::jsonb",
                [place.build.uuid().into(), attempt(place).into(), json(reason)?.into()],
            ))
            .await?;
        Ok(())
    }

    /// Up to `limit` cancelled builds of whose sandbox nobody has the host's word that it is gone, as far as
    /// their hosts answer.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn build_list_unproven(&self, limit: u32) -> Result<Vec<Place>, Error> {
        let text = format!(
            "{PLACE} WHERE b.status = 'cancelled' AND b.sandbox_destroyed_at IS NULL
               AND b.host_id IS NOT NULL AND h.status IN ('online', 'draining')
             ORDER BY row_number() OVER (PARTITION BY h.id ORDER BY b.completed_at), b.completed_at LIMIT $1"
        );
        let rows = Row::find_by_statement(sql(&text, [i64::from(limit).into()]));
        Ok(rows.all(&self.db).await?.into_iter().map(Place::from).collect())
    }

    /// Notes the host's word that the sandbox of a cancelled build is gone.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn build_sandbox_destroyed(&self, build: BuildId) -> Result<(), Error> {
        self.db
            .execute_raw(sql(
                "UPDATE template_builds SET sandbox_destroyed_at = clock_timestamp(), reason = NULL
                 WHERE id = $1 AND status = 'cancelled' AND sandbox_destroyed_at IS NULL",
                [build.uuid().into()],
            ))
            .await?;
        Ok(())
    }
}

fn attempt(place: &Place) -> i32 {
    i32::try_from(place.attempt).unwrap_or(i32::MAX)
}
