//! The job of a queued build: what the relay needs to publish it, and how the sweep finds out that it is
//! gone.
//!
//! Postgres says only that a build is queued. Whether its id is in Redis or its job in the stream is
//! noted in `job_published_at` and `job_stream_seq`, as a hint: a wrong hint costs a second job, which the
//! claim refuses, never a lost build.

use std::time::Duration;

use chrono::{DateTime, Utc};
use ovenbird_contract::{id::BuildId, job};
use sea_orm::{ConnectionTrait, FromQueryResult};
use uuid::Uuid;

use super::{Error, Store, host::millis, json, sql, turn::turns};

/// A queued build's next job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queued {
    /// The job.
    pub job: job::Job,
    /// Where it is published.
    pub lane: String,
    /// How often it was found to be gone; part of the message id.
    pub resends: u32,
    /// Whether it may have a job now, or waits for the limit of its key.
    pub has_turn: bool,
}

/// A job that is in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// The build.
    pub build: BuildId,
    /// The job's attempt.
    pub attempt: u32,
    /// [`Queued::resends`] of that job.
    pub resends: u32,
    /// Its stream sequence.
    pub stream_seq: u64,
}

/// What a lane of the work queue says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueState {
    /// The lane.
    pub lane: &'static str,
    /// When the stream was made; jobs from before are gone.
    pub created: DateTime<Utc>,
    /// Its highest sequence; jobs above it are gone with an older stream.
    pub last_seq: u64,
    /// Every job of the lane up to this sequence was acknowledged.
    pub acked_seq: u64,
    /// No job of the lane waits and none is out.
    pub idle: bool,
}

/// The lane on which the job of build `b` is published: what stands half-made on a host takes room there, and goes
/// before what has not begun.
pub(super) const JOB_LANE: &str = "CASE WHEN b.sandbox_id IS NULL THEN b.lane ELSE 'high' END";

#[derive(Debug, FromQueryResult)]
struct Row {
    id: Uuid,
    attempt: i32,
    lane: String,
    job_resends: i32,
    trace: String,
    has_turn: bool,
}

#[derive(Debug, FromQueryResult)]
struct Old {
    id: Uuid,
    attempt: i32,
    job_resends: i32,
    job_stream_seq: i64,
}

#[derive(Debug, FromQueryResult)]
struct Id {
    id: Uuid,
}

impl Store {
    /// The jobs of those of `builds` that are queued.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn build_jobs(&self, builds: &[BuildId]) -> Result<Vec<Queued>, Error> {
        let ids: Vec<Uuid> = builds.iter().map(|id| id.uuid()).collect();
        let asked = "SELECT value::uuid FROM jsonb_array_elements_text($1)";
        let keys = format!("SELECT requested_by FROM template_builds WHERE id IN ({asked})");
        let has_turn = match self.key_builds_max {
            0 => "true".to_owned(),
            max => format!("b.id IN ({})", turns(max, Some(&keys))),
        };
        let text = format!(
            "SELECT b.id, b.attempt, {JOB_LANE} AS lane, b.job_resends, b.trace,
               {has_turn} AS has_turn
             FROM template_builds b
             WHERE b.status = 'queued' AND b.id IN ({asked})
             ORDER BY b.queued_at, b.id",
        );
        let rows = Row::find_by_statement(sql(&text, [json(&ids)?.into()])).all(&self.db).await?;
        Ok(rows
            .into_iter()
            .map(|row| Queued {
                job: job::Job {
                    v: job::VERSION,
                    build_id: BuildId::from_uuid(row.id),
                    attempt: u32::try_from(row.attempt).unwrap_or(0).saturating_add(1),
                    trace: row.trace,
                },
                lane: row.lane,
                resends: u32::try_from(row.job_resends).unwrap_or(0),
                has_turn: row.has_turn,
            })
            .collect())
    }

    /// Notes that jobs are in the stream, but for those that were taken back or found to be gone since: of them the
    /// build has none. Not flushed to disk before it returns: a lost note is a second job at worst.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn build_jobs_published(&self, published: &[Published]) -> Result<(), Error> {
        let rows: Vec<_> = published
            .iter()
            .map(|one| {
                serde_json::json!({
                    "id": one.build.uuid(), "attempt": one.attempt, "resends": one.resends,
                    "seq": one.stream_seq,
                })
            })
            .collect();
        self.db
            .execute_raw(sql(
                "WITH lax AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))
                 UPDATE template_builds b SET job_published_at = now(), job_stream_seq = p.seq,
                   held_since = NULL
                 FROM jsonb_to_recordset($1) AS p(id uuid, attempt int, resends int, seq bigint), lax
                 WHERE b.id = p.id AND b.status = 'queued' AND b.attempt = p.attempt - 1
                   AND b.job_resends = p.resends",
                [json(&rows)?.into()],
            ))
            .await?;
        Ok(())
    }

    /// Up to `limit` builds that are queued for longer than `waited`, have their turn and no known job, the oldest
    /// first.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn build_list_without_job(
        &self,
        waited: Duration,
        limit: u32,
    ) -> Result<Vec<BuildId>, Error> {
        let text = format!(
            "SELECT b.id FROM template_builds b JOIN ({turns}) turn ON turn.id = b.id
             WHERE b.status = 'queued' AND b.job_published_at IS NULL
               AND b.queued_at < now() - $1 * interval '1 millisecond'
             ORDER BY b.queued_at LIMIT $2",
            turns = turns(self.key_builds_max, None)
        );
        let rows =
            Id::find_by_statement(sql(&text, [millis(waited).into(), i64::from(limit).into()]))
                .all(&self.db)
                .await?;
        Ok(ids(rows))
    }

    /// Forgets the jobs of up to `limit` queued builds of a lane whose job is gone: it stood in an older stream, or
    /// was acknowledged without a claim. Jobs younger than `settled` are left alone: their claim may be on its way.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn build_jobs_forget(
        &self,
        queue: &QueueState,
        settled: Duration,
        limit: u32,
    ) -> Result<Vec<BuildId>, Error> {
        let text = format!(
            "UPDATE template_builds SET job_published_at = NULL, job_stream_seq = NULL,
               job_resends = job_resends + 1
             WHERE id IN (
               SELECT id FROM template_builds b
               WHERE status = 'queued' AND {JOB_LANE} = $7
                 AND job_published_at < now() - $5 * interval '1 millisecond'
                 AND (job_published_at < $1 OR job_stream_seq > $2 OR job_stream_seq <= $3 OR $4)
               ORDER BY queued_at LIMIT $6 FOR NO KEY UPDATE SKIP LOCKED
             ) AND status = 'queued'
             RETURNING id"
        );
        let rows = Id::find_by_statement(sql(
            &text,
            [
                queue.created.into(),
                i64::try_from(queue.last_seq).unwrap_or(i64::MAX).into(),
                i64::try_from(queue.acked_seq).unwrap_or(i64::MAX).into(),
                queue.idle.into(),
                millis(settled).into(),
                i64::from(limit).into(),
                queue.lane.into(),
            ],
        ))
        .all(&self.db)
        .await?;
        Ok(ids(rows))
    }

    /// Up to `limit` jobs of queued builds that were published, or last looked for, longer than `age` ago, the oldest
    /// first.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn build_jobs_old(&self, age: Duration, limit: u32) -> Result<Vec<Published>, Error> {
        let rows = Old::find_by_statement(sql(
            "SELECT id, attempt, job_resends, job_stream_seq FROM template_builds
             WHERE status = 'queued' AND job_stream_seq IS NOT NULL
               AND job_published_at < now() - $1 * interval '1 millisecond'
             ORDER BY job_published_at LIMIT $2",
            [millis(age).into(), i64::from(limit).into()],
        ))
        .all(&self.db)
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| Published {
                build: BuildId::from_uuid(row.id),
                attempt: u32::try_from(row.attempt).unwrap_or(0).saturating_add(1),
                resends: u32::try_from(row.job_resends).unwrap_or(0),
                stream_seq: u64::try_from(row.job_stream_seq).unwrap_or(0),
            })
            .collect())
    }

    /// Forgets jobs that were looked for and are gone, unless their builds have others by now.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn build_jobs_gone(&self, gone: &[Published]) -> Result<(), Error> {
        let rows: Vec<_> = gone
            .iter()
            .map(|one| serde_json::json!({ "id": one.build.uuid(), "seq": one.stream_seq }))
            .collect();
        self.db
            .execute_raw(sql(
                "UPDATE template_builds b SET job_published_at = NULL, job_stream_seq = NULL,
                   job_resends = job_resends + 1
                 FROM jsonb_to_recordset($1) AS g(id uuid, seq bigint)
                 WHERE b.id = g.id AND b.status = 'queued' AND b.job_stream_seq = g.seq",
                [json(&rows)?.into()],
            ))
            .await?;
        Ok(())
    }
}

fn ids(rows: Vec<Id>) -> Vec<BuildId> {
    rows.into_iter().map(|row| BuildId::from_uuid(row.id)).collect()
}
