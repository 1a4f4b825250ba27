//! What keeps and ends a lease before the build's end: renew, release, loss, expiry; and the end of a build that took
//! too long and has no lease.
//!
//! A release is no loss: the next runner goes on where this one stands. Losses are counted, and the build ends
//! when there are too many of them. What counts is progress: a loss in a higher step than any one before begins
//! the count anew, so a build whose runners or hosts die now and then still comes to its end, and one that
//! kills them in the same step does not go on for ever. A build of n steps is lost n + 1 times the bound at most, and
//! besides as often as no runner at all could be heard, which is no fault of the build and not counted.

use std::time::Duration;

use ovenbird_contract::{
    build::{Event, Reason, ReasonCode, Status},
    id::{BuildId, RunnerId},
};
use sea_orm::{ConnectionTrait, DatabaseTransaction, EntityTrait, TransactionTrait};
use uuid::Uuid;

use super::{
    Error, Store,
    build::{attempt, lock, status},
    corrupt,
    hearing::Hearing,
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

/// An attempt that was lost, and where the build stands now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expired {
    /// The build.
    pub build: BuildId,
    /// The attempt that was lost.
    pub attempt: u32,
    /// Queued or failed.
    pub status: Status,
    /// Whether it is one of the `attempts_max`.
    pub counted: bool,
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

    /// Gives the build back to the queue, with its sandbox; not a lost attempt. Repeating it is fine.
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
    /// `attempts_max` attempts were lost. A loss is not counted when there was a break in which nobody could be heard
    /// ([`hearing`](super::hearing)) in the time of the lease, `lease` long. Safe with several callers at once.
    ///
    /// # Errors
    /// [`Error::Database`]; nothing was written then.
    pub async fn build_expire(
        &self,
        attempts_max: u32,
        lease: Duration,
        limit: u32,
    ) -> Result<Vec<Expired>, Error> {
        let tx = self.db.begin().await?;
        let rows = template_build::Entity::find()
            .from_raw_sql(sql(
                "SELECT * FROM template_builds WHERE status = 'running' AND lease_until < now()
                 ORDER BY lease_until LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED",
                [i64::from(limit).into()],
            ))
            .all(&tx)
            .await?;
        let hearing = if rows.is_empty() { None } else { Hearing::read(&tx).await? };
        let mut expired = Vec::with_capacity(rows.len());
        for row in rows {
            let heard = hearing.zip(row.lease_until).is_none_or(|(it, end)| it.covers(end, lease));
            let loss = if heard { Loss::Silent } else { Loss::NobodyHeard };
            expired.push(lose(&tx, &row, loss, attempts_max).await?);
        }
        tx.commit().await?;
        Ok(expired)
    }

    /// Ends an attempt that its runner gives up through no fault of the recipe: back to the queue, or failed with
    /// `reason` when `attempts_max` attempts were lost. A host that is to blame is avoided by the next attempt.
    /// Repeating it is fine.
    ///
    /// # Errors
    /// [`Error::Database`]; it may have been written or not, so ask again.
    pub async fn build_lose(
        &self,
        holder: &Holder,
        reason: &Reason,
        attempts_max: u32,
    ) -> Result<Result<Expired, Refused>, Error> {
        let tx = self.db.begin().await?;
        let Some(row) = lock(&tx, holder.build).await? else {
            return Ok(Err(Refused::NotFound));
        };
        let now = status(&row)?;
        if holder.holds(&row) && matches!(now, Status::Queued | Status::Failed) {
            let (build, attempt) = (holder.build, holder.attempt);
            return Ok(Ok(Expired { build, attempt, status: now, counted: true }));
        }
        if !holder.holds(&row) || now != Status::Running {
            return Ok(Err(refusal(holder, &row)?));
        }
        let lost = lose(&tx, &row, Loss::GivenUp(reason), attempts_max).await?;
        tx.commit().await?;
        Ok(Ok(lost))
    }

    /// How long ago the build's first attempt began; zero before it.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn build_age(&self, build: BuildId) -> Result<Duration, Error> {
        let row = self
            .db
            .query_one_raw(sql(
                "SELECT (extract(epoch FROM now() - started_at) * 1000)::bigint AS age_ms
                 FROM template_builds WHERE id = $1",
                [build.uuid().into()],
            ))
            .await?;
        let age: Option<i64> =
            row.map(|row| row.try_get::<Option<i64>>("", "age_ms")).transpose()?.flatten();
        Ok(Duration::from_millis(age.and_then(|age| u64::try_from(age).ok()).unwrap_or(0)))
    }

    /// Ends up to `limit` builds that wait for another attempt and whose first one began longer than `time_max` ago.
    /// A late finish of a runner that was cut off is refused. Safe with several callers at once.
    ///
    /// # Errors
    /// [`Error::Database`]; nothing was written then.
    pub async fn build_time_out(
        &self,
        time_max: Duration,
        limit: u32,
    ) -> Result<Vec<Expired>, Error> {
        let next =
            Status::Queued.apply(Event::TimeOver).map_err(corrupt("template_builds", "status"))?;
        let reason = Reason {
            code: ReasonCode::BuildTimeout,
            message: format!(
                "The build took longer than {}, which is the limit of this installation, while it waited for \
                 another attempt.",
                humantime::format_duration(time_max)
            ),
            step: None,
            tail: None,
        };
        let rows = template_build::Entity::find()
            .from_raw_sql(sql(
                "UPDATE template_builds SET status = $3, reason = $4, lease_owner = NULL,
                   completed_at = clock_timestamp(), job_published_at = NULL, job_stream_seq = NULL
                 WHERE status = 'queued' AND id IN (
                   SELECT id FROM template_builds
                   WHERE status = 'queued' AND started_at < now() - $1 * interval '1 millisecond'
                   ORDER BY started_at LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED)
                 RETURNING *",
                [
                    millis(time_max).into(),
                    i64::from(limit).into(),
                    next.as_str().into(),
                    json(&reason)?.into(),
                ],
            ))
            .all(&self.db)
            .await?;
        let ended = |row: &template_build::Model| Expired {
            build: BuildId::from_uuid(row.id),
            attempt: attempt(row),
            status: next,
            counted: false,
        };
        Ok(rows.iter().map(ended).collect())
    }

    /// Whether a host that answers holds the build's base template, other than the one that failed it last.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn build_has_another_host(&self, build: BuildId) -> Result<bool, Error> {
        let found = self
            .db
            .query_one_raw(sql(
                "SELECT 1 FROM template_builds b
                 JOIN template_placements p ON p.template_id = b.base_template_id AND p.state = 'present'
                 JOIN hosts h ON h.id = p.host_id AND h.status = 'online'
                 WHERE b.id = $1 AND h.id IS DISTINCT FROM b.avoid_host_id LIMIT 1",
                [build.uuid().into()],
            ))
            .await?;
        Ok(found.is_some())
    }

    async fn lease_refusal(&self, holder: &Holder) -> Result<Refused, Error> {
        match self.build_row(holder.build).await? {
            Some(row) => refusal(holder, &row),
            None => Ok(Refused::NotFound),
        }
    }
}

/// How an attempt is lost.
#[derive(Debug, Clone, Copy)]
enum Loss<'a> {
    /// Its runner was not heard of.
    Silent,
    /// Its runner was not heard of, and neither could any other be: not counted.
    NobodyHeard,
    /// Its runner gave it up.
    GivenUp(&'a Reason),
}

/// Ends an attempt of a running build, whose row is locked.
async fn lose(
    tx: &DatabaseTransaction,
    row: &template_build::Model,
    loss: Loss<'_>,
    attempts_max: u32,
) -> Result<Expired, Error> {
    let before = match row.current_step > row.furthest_step {
        true => 0,
        false => u32::try_from(row.lost_attempts).unwrap_or(0),
    };
    let (lost, is_last) = match loss {
        Loss::NobodyHeard => (before, false),
        Loss::Silent | Loss::GivenUp(_) => {
            let lost = before.saturating_add(1);
            (lost, lost >= attempts_max)
        }
    };
    let next = status(row)?
        .apply(Event::LeaseExpired { attempts_left: !is_last })
        .map_err(corrupt("template_builds", "status"))?;
    let (reason, is_host) = match loss {
        Loss::GivenUp(reason) => {
            (given_up_reason(attempt(row), reason, lost, attempts_max), reason.code.is_host())
        }
        Loss::Silent => (lost_reason(attempt(row), lost, attempts_max), false),
        Loss::NobodyHeard => (nobody_heard_reason(attempt(row), lost, attempts_max), false),
    };
    let avoid: Option<Uuid> = row.host_id.filter(|_| is_host);
    tx.execute_raw(sql(
        "UPDATE template_builds SET status = $2, lease_until = NULL, lost_attempts = $3, reason = $4,
           furthest_step = GREATEST(furthest_step, current_step), avoid_host_id = $6,
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
            avoid.into(),
        ],
    ))
    .await?;
    let counted = !matches!(loss, Loss::NobodyHeard);
    Ok(Expired { build: BuildId::from_uuid(row.id), attempt: attempt(row), status: next, counted })
}

/// Why `holder` cannot write to `row`.
pub(super) fn refusal(holder: &Holder, row: &template_build::Model) -> Result<Refused, Error> {
    let now = status(row)?;
    if holder.holds(row) && !matches!(now, Status::Running | Status::Queued) {
        return Ok(Refused::WrongStatus(now));
    }
    Ok(Refused::Stale { attempt: attempt(row) })
}

/// `reason` with what follows from it.
fn given_up_reason(attempt: u32, reason: &Reason, lost: u32, attempts_max: u32) -> Reason {
    let message = &reason.message;
    let message = if lost < attempts_max {
        format!(
            "Attempt {attempt} was given up: {message}. The build is queued again ({lost} of \
             {attempts_max} attempts lost)."
        )
    } else {
        format!(
            "{message}. All {attempts_max} attempts are used up; retry the build once hosts are well."
        )
    };
    Reason { message, ..reason.clone() }
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

fn nobody_heard_reason(attempt: u32, lost: u32, attempts_max: u32) -> Reason {
    let message = format!(
        "Attempt {attempt} ended because its runner was not heard of while no runner could be: Postgres, NATS or the \
         bridges were away. This is not counted; the build is queued again ({lost} of {attempts_max} attempts lost)."
    );
    Reason { code: ReasonCode::Lost, message, step: None, tail: None }
}
