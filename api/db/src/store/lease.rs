//! What keeps and ends a lease before the build's end: renew, release, expiry.

use std::time::Duration;

use ovenbird_contract::{
    build::{Event, Reason, ReasonCode, Status},
    id::{BuildId, RunnerId},
};
use sea_orm::{ConnectionTrait, EntityTrait, TransactionTrait};

use super::{
    Error, Store,
    build::{attempt, status},
    corrupt,
    host::millis,
    json, sql,
};
use crate::entity::template_build;

/// Who speaks of which attempt.
#[derive(Debug, Clone)]
pub struct Holder {
    /// The build.
    pub build: BuildId,
    /// The attempt.
    pub attempt: u32,
    /// The runner.
    pub runner: RunnerId,
}

impl Holder {
    pub(super) fn attempt(&self) -> i32 {
        i32::try_from(self.attempt).unwrap_or(i32::MAX)
    }

    /// Whether the row's attempt and owner are the caller's.
    pub(super) fn holds(&self, row: &template_build::Model) -> bool {
        attempt(row) == self.attempt && row.lease_owner == Some(self.runner.uuid())
    }
}

/// Why nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// No such build.
    NotFound,
    /// It is in this state, which does not allow it.
    WrongStatus(Status),
    /// Attempt or lease are not the caller's any more.
    Stale {
        /// The attempt that is.
        attempt: u32,
    },
}

/// A lease that ended by itself, and where the build stands now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expired {
    /// The build.
    pub build: BuildId,
    /// The attempt that was lost.
    pub attempt: u32,
    /// Queued or failed.
    pub status: Status,
}

impl Store {
    /// Lets the lease end `lease` from now; answers whether the build is being cancelled.
    ///
    /// # Errors
    /// [`Error::Database`]; the lease may be renewed or not.
    pub async fn build_renew(
        &self,
        holder: &Holder,
        lease: Duration,
    ) -> Result<Result<bool, Refused>, Error> {
        let row = self
            .db
            .query_one_raw(sql(
                "UPDATE template_builds SET lease_until = now() + $4 * interval '1 millisecond'
                 WHERE id = $1 AND attempt = $2 AND lease_owner = $3
                   AND status IN ('running', 'cancelling') AND lease_until > now()
                 RETURNING status = 'cancelling' AS cancel",
                [
                    holder.build.uuid().into(),
                    holder.attempt().into(),
                    holder.runner.uuid().into(),
                    millis(lease).into(),
                ],
            ))
            .await?;
        match row {
            Some(row) => Ok(Ok(row.try_get("", "cancel")?)),
            None => Ok(Err(self.lease_refusal(holder).await?)),
        }
    }

    /// Gives the build back to the queue; not a lost attempt. Repeating it is fine.
    ///
    /// # Errors
    /// [`Error::Database`]; it may be queued or not.
    pub async fn build_release(&self, holder: &Holder) -> Result<Result<(), Refused>, Error> {
        let row = self
            .db
            .query_one_raw(sql(
                "UPDATE template_builds SET status = 'queued', lease_until = NULL, queued_at = now(),
                   reason = NULL, job_published_at = NULL, job_stream_seq = NULL
                 WHERE id = $1 AND attempt = $2 AND lease_owner = $3 AND status = 'running'
                 RETURNING id",
                [
                    holder.build.uuid().into(),
                    holder.attempt().into(),
                    holder.runner.uuid().into(),
                ],
            ))
            .await?;
        if row.is_some() {
            return Ok(Ok(()));
        }
        let Some(row) = self.build_row(holder.build).await? else {
            return Ok(Err(Refused::NotFound));
        };
        let repeated = status(&row)? == Status::Queued && holder.holds(&row);
        if repeated { Ok(Ok(())) } else { Ok(Err(refusal(holder, &row)?)) }
    }

    /// Ends up to `limit` expired leases of running builds: back to the queue, or failed as lost when
    /// `attempts_max` attempts were lost. Safe with several callers at once.
    ///
    /// # Errors
    /// [`Error::Database`]; nothing was written then.
    pub async fn build_expire(&self, attempts_max: u32, limit: u32) -> Result<Vec<Expired>, Error> {
        let tx = self.db.begin().await?;
        let rows = template_build::Entity::find()
            .from_raw_sql(sql(
                "SELECT * FROM template_builds WHERE status = 'running' AND lease_until < now()
                 ORDER BY lease_until LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED",
                [i64::from(limit).into()],
            ))
            .all(&tx)
            .await?;
        let mut expired = Vec::with_capacity(rows.len());
        for row in rows {
            let lost = u32::try_from(row.lost_attempts).unwrap_or(0).saturating_add(1);
            let attempts_left = lost < attempts_max;
            let next = status(&row)?
                .apply(Event::LeaseExpired { attempts_left })
                .map_err(corrupt("template_builds", "status"))?;
            let reason = lost_reason(attempt(&row), lost, attempts_max);
            tx.execute_raw(sql(
                "UPDATE template_builds SET status = $2, lease_until = NULL, lost_attempts = $3, reason = $4,
                   queued_at = CASE WHEN $2 = 'queued' THEN now() ELSE queued_at END,
                   completed_at = CASE WHEN $2 = 'queued' THEN NULL ELSE now() END,
                   job_published_at = NULL, job_stream_seq = NULL
                 WHERE id = $1 AND status = 'running' AND attempt = $5",
                [
                    row.id.into(),
                    next.as_str().into(),
                    i32::try_from(lost).unwrap_or(i32::MAX).into(),
                    json(&reason)?.into(),
                    row.attempt.into(),
                ],
            ))
            .await?;
            expired.push(Expired {
                build: BuildId::from_uuid(row.id),
                attempt: attempt(&row),
                status: next,
            });
        }
        tx.commit().await?;
        Ok(expired)
    }

    async fn lease_refusal(&self, holder: &Holder) -> Result<Refused, Error> {
        match self.build_row(holder.build).await? {
            Some(row) => refusal(holder, &row),
            None => Ok(Refused::NotFound),
        }
    }
}

/// Why `holder` cannot write to `row`.
pub(super) fn refusal(holder: &Holder, row: &template_build::Model) -> Result<Refused, Error> {
    let now = status(row)?;
    if holder.holds(row) && !matches!(now, Status::Running | Status::Queued) {
        return Ok(Refused::WrongStatus(now));
    }
    Ok(Refused::Stale { attempt: attempt(row) })
}

fn lost_reason(attempt: u32, lost: u32, attempts_max: u32) -> Reason {
    let message = if lost < attempts_max {
        format!(
            "Attempt {attempt} ended because its runner was not heard of in time; the build is queued \
             again ({lost} of {attempts_max} attempts lost)."
        )
    } else {
        format!(
            "Attempt {attempt} ended because its runner was not heard of in time, and all \
             {attempts_max} attempts are used up. Retry the build once runners and hosts are well."
        )
    };
    Reason { code: ReasonCode::Lost, message, step: None, tail: None }
}
