//! The end of a build: status, template, tag and placement in one transaction, or nothing.
//!
//! The terminal log record is written after the commit, by the desk or the sweep; `log_end_written` says
//! whether the ledger has stored it. That the stream took it is not enough: the stream may lose it.

use ovenbird_contract::{
    build::{Event, Reason, ReasonCode, Status},
    desk::{Outcome, Published},
    id::BuildId,
};
use sea_orm::{ConnectionTrait, DatabaseTransaction, EntityTrait, TransactionTrait};
use uuid::Uuid;

use super::{
    Error, Store,
    build::{attempt, lock, status},
    corrupt, json,
    lease::{Holder, Refused, refusal},
    sql,
    template_tag::tag_move,
};
use crate::entity::template_build;

/// How an attempt ended.
#[derive(Debug, Clone)]
pub struct Request {
    /// Who says so.
    pub holder: Holder,
    /// How.
    pub outcome: Outcome,
}

/// Up to where an attempt has told of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said {
    /// Stream sequence of its last event.
    pub event_stream_seq: u64,
    /// Its last log record, where that matters; else 0.
    pub log_seq: u64,
}

/// A build that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The build.
    pub build: BuildId,
    /// Its last attempt.
    pub attempt: u32,
    /// How it ended.
    pub status: Status,
    /// Why no runner ended it, for the log; absent when one did.
    pub lost: Option<String>,
    /// Who cancelled it and why, for the log.
    pub cancelled: Option<String>,
    /// Highest record of its log that is stored.
    pub log_seq: u64,
    /// Whether the terminal one is.
    pub log_end_written: bool,
}

impl Store {
    /// Ends the build. The same request of the same runner is answered the same and writes nothing.
    /// A success of a build that is being cancelled is refused, as is a cancel of one that is not.
    ///
    /// # Errors
    /// [`Error::Database`]; it may have ended or not, so ask again.
    pub async fn build_finish(&self, request: &Request) -> Result<Result<Ended, Refused>, Error> {
        let holder = &request.holder;
        let tx = self.db.begin().await?;
        let Some(row) = lock(&tx, holder.build).await? else {
            return Ok(Err(Refused::NotFound));
        };
        let now = status(&row)?;
        let event = match request.outcome {
            Outcome::Succeeded(_) => Event::Finished,
            Outcome::Failed { .. } => Event::StepFailed,
            Outcome::Cancelled => Event::SandboxDestroyed,
        };
        if now.is_terminal() && holder.holds(&row) && now == ends_as(&request.outcome) {
            return Ok(Ok(ended(&row, now)));
        }
        if !holder.holds(&row) {
            return Ok(Err(refusal(holder, &row)?));
        }
        let Ok(next) = now.apply(event) else {
            return Ok(Err(match now {
                // Its lease ended before: the next attempt goes on with what this one leaves.
                Status::Queued => Refused::Stale { attempt: holder.attempt },
                now => Refused::WrongStatus(now),
            }));
        };
        let template = match &request.outcome {
            Outcome::Succeeded(published) => Some(publish(&tx, &row, published).await?),
            Outcome::Failed { .. } | Outcome::Cancelled => None,
        };
        let Some(row) = close(&tx, request, now, next, template).await? else {
            tx.rollback().await?;
            return Ok(Err(Refused::Stale { attempt: holder.attempt }));
        };
        tx.commit().await?;
        Ok(Ok(ended(&row, next)))
    }

    /// Whether the ledger has written what the attempt said up to `said`, or the attempt is not the present one any
    /// more.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn build_applied(&self, holder: &Holder, said: Said) -> Result<bool, Error> {
        let number = |seq| i64::try_from(seq).unwrap_or(i64::MAX);
        // Several ledgers store what they have in any order, so the highest record does not say that all are there.
        let row = self
            .db
            .query_one_raw(sql(
                "SELECT attempt <> $2 OR (event_stream_seq >= $3 AND log_seq >= $4 AND $4 <= (
                   SELECT COALESCE(sum(last_seq - first_seq + 1), 0) FROM build_log_chunks
                   WHERE $4 > 0 AND build_id = b.id)) AS applied
                 FROM template_builds b WHERE id = $1",
                [
                    holder.build.uuid().into(),
                    holder.attempt().into(),
                    number(said.event_stream_seq).into(),
                    number(said.log_seq).into(),
                ],
            ))
            .await?;
        Ok(row.map(|row| row.try_get("", "applied")).transpose()?.unwrap_or(true))
    }

    /// Up to `limit` builds that are over and whose terminal record is not stored. Any of them: while the ledger is
    /// behind, the stream has the ends of most.
    ///
    /// # Errors
    /// [`Error::Database`], [`Error::Corrupt`].
    pub async fn build_list_without_log_end(&self, limit: u32) -> Result<Vec<Ended>, Error> {
        let rows = template_build::Entity::find()
            .from_raw_sql(sql(
                "SELECT * FROM template_builds WHERE completed_at IS NOT NULL AND NOT log_end_written
                 ORDER BY random() LIMIT $1",
                [i64::from(limit).into()],
            ))
            .all(&self.db)
            .await?;
        rows.iter().map(|row| Ok(ended(row, status(row)?))).collect()
    }
}

fn ends_as(outcome: &Outcome) -> Status {
    match outcome {
        Outcome::Succeeded(_) => Status::Succeeded,
        Outcome::Failed { .. } => Status::Failed,
        Outcome::Cancelled => Status::Cancelled,
    }
}

pub(super) fn ended(row: &template_build::Model, status: Status) -> Ended {
    Ended {
        build: BuildId::from_uuid(row.id),
        attempt: attempt(row),
        status,
        lost: row.reason.clone().and_then(|reason| lost(row, reason)),
        cancelled: (status == Status::Cancelled).then(|| cancelled(row)),
        log_seq: u64::try_from(row.log_seq).unwrap_or(0),
        log_end_written: row.log_end_written,
    }
}

/// The message of a reason that no runner has logged.
fn lost(row: &template_build::Model, reason: serde_json::Value) -> Option<String> {
    let reason: Reason = serde_json::from_value(reason).ok()?;
    let is_unsaid = match reason.code {
        ReasonCode::Lost => true,
        ReasonCode::BuildTimeout => row.lease_owner.is_none(),
        _ => false,
    };
    is_unsaid.then_some(reason.message)
}

/// One line: who, why and, as long as nobody has the host's word that the sandbox is gone, why not.
fn cancelled(row: &template_build::Model) -> String {
    let by = row.cancel_requested_by.as_deref().unwrap_or("nobody known");
    let why = row.cancel_requested_why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
    let unproven = row
        .reason
        .clone()
        .and_then(|reason| serde_json::from_value::<Reason>(reason).ok())
        .map_or_else(String::new, |reason| format!(" ({})", reason.message));
    format!("cancelled by {by}{why}{unproven}")
}

/// Template, tag and placement. The tag is moved under a lock of its own: two builds of the same name
/// may end at the same time, and the one that commits last has the tag.
async fn publish(
    tx: &DatabaseTransaction,
    build: &template_build::Model,
    published: &Published,
) -> Result<Uuid, Error> {
    let missing = |column| corrupt("template_builds", column)("a running build without it");
    let template = build.planned_template_id.ok_or_else(|| missing("planned_template_id"))?;
    let host = build.host_id.ok_or_else(|| missing("host_id"))?;
    let bytes = i64::try_from(published.size_bytes).unwrap_or(i64::MAX);
    let provenance = serde_json::json!({
        "origin": "build",
        "plan_digest": build.plan_digest,
        "attempt": build.attempt,
        "host_id": ovenbird_contract::id::HostId::from_uuid(host).to_string(),
        "requested_by": build.requested_by,
    });
    tx.execute_raw(sql(
        "INSERT INTO templates (id, name, tag, type, host_name, vcpus, memory_mb, size_bytes, base_template_id,
           build_id, default_user, default_env, provenance)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
        [
            template.into(),
            build.name.clone().into(),
            build.tag.clone().into(),
            published.kind.as_str().into(),
            ovenbird_contract::id::TemplateId::from_uuid(template).to_string().into(),
            build.vcpus.into(),
            build.memory_mb.into(),
            bytes.into(),
            build.base_template_id.into(),
            build.id.into(),
            published.default_user.clone().into(),
            json(&published.default_env)?.into(),
            json(&provenance)?.into(),
        ],
    ))
    .await?;
    tag_move(tx, &build.name, &build.tag, template, &build.requested_by).await?;
    tx.execute_raw(sql(
        "INSERT INTO template_placements (template_id, host_id, state, bytes) VALUES ($1, $2, 'present', $3)
         ON CONFLICT (template_id, host_id) DO UPDATE SET state = 'present', bytes = EXCLUDED.bytes, seen_at = now()",
        [template.into(), host.into(), bytes.into()],
    ))
    .await?;
    Ok(template)
}

/// The statement that ends the build: status, attempt, owner and lease are compared here once more,
/// the lease against the clock of Postgres. A failure is accepted after the lease as well, as long as nobody took the
/// build: it publishes nothing, and what the user's own step did would only be done again.
async fn close(
    tx: &DatabaseTransaction,
    request: &Request,
    now: Status,
    next: Status,
    template: Option<Uuid>,
) -> Result<Option<template_build::Model>, Error> {
    let reason = match &request.outcome {
        Outcome::Failed { reason } => Some(json(reason)?),
        Outcome::Succeeded(_) | Outcome::Cancelled => None,
    };
    Ok(template_build::Entity::find()
        .from_raw_sql(sql(
            "UPDATE template_builds SET status = $5, lease_until = NULL, completed_at = clock_timestamp(),
               template_id = $6, reason = $7,
               sandbox_destroyed_at = CASE WHEN $5 = 'cancelled' THEN clock_timestamp() END
             WHERE id = $1 AND attempt = $2 AND lease_owner = $3 AND status = $4
               AND (lease_until > now() OR $5 = 'failed')
             RETURNING *",
            [
                request.holder.build.uuid().into(),
                request.holder.attempt().into(),
                request.holder.runner.uuid().into(),
                now.as_str().into(),
                next.as_str().into(),
                template.into(),
                reason.into(),
            ],
        ))
        .one(tx)
        .await?)
}
