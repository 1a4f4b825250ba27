//! The queue as people see it: who waits, at which place, and whether a host could take it now. The claim
//! decides; this asks the same questions beforehand, without a lock.

use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, Utc};
use sea_orm::FromQueryResult;
use uuid::Uuid;

use super::{Error, Store, build_admin::After, claim::used, job::JOB_LANE, json, sql, turn::RUNS};

/// Builds by what they wait for or do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromQueryResult)]
pub struct Counts {
    /// Queued ones.
    pub queued: i64,
    /// Those of them that wait for the limit of their key.
    pub held: i64,
    /// Those that hold a runner's slot.
    pub running: i64,
}

/// A queued build.
#[derive(Debug, Clone, PartialEq, FromQueryResult)]
pub struct Waiting {
    /// The build.
    pub id: Uuid,
    /// Name of its template to be.
    pub name: String,
    /// Its tag.
    pub tag: String,
    /// The lane that it was submitted to.
    pub lane: String,
    /// The lane of its job.
    pub job_lane: String,
    /// Its place in the lane of its job, from 1: those before it that wait for the limit of their key do not count.
    pub position: i64,
    /// When it was put into the queue.
    pub queued_at: DateTime<Utc>,
    /// Whether its job is known to be in the stream.
    pub relayed: bool,
    /// Whether it waits for the limit of its key.
    pub held: bool,
    /// Whether the template that it starts from is in the catalogue.
    pub has_base: bool,
    /// Hosts that take builds, have the labels that it asks for and hold that template.
    pub hosts: i64,
    /// Whether one of them has room.
    pub fits: bool,
}

/// A build that holds a slot or waits for one, as far as a forecast needs it.
#[derive(Debug, Clone, PartialEq, FromQueryResult)]
pub struct Ahead {
    /// The build.
    pub id: Uuid,
    /// Name of its template to be.
    pub name: String,
    /// The lane of its job.
    pub lane: String,
    /// Whether it holds a slot.
    pub is_running: bool,
    /// When its first attempt began.
    pub started_at: Option<DateTime<Utc>>,
}

#[derive(Debug, FromQueryResult)]
struct Took {
    name: String,
    seconds: Option<f64>,
}

impl Store {
    /// How many builds wait, and how many hold a slot.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn queue_counts(&self) -> Result<Counts, Error> {
        let text = format!(
            "SELECT count(*) FILTER (WHERE status = 'queued') AS queued,
                    count(*) FILTER (WHERE status = 'queued' AND held_since IS NOT NULL) AS held,
                    count(*) FILTER (WHERE {RUNS}) AS running
             FROM template_builds WHERE status IN ('queued', 'running', 'cancelling')"
        );
        let counts = Counts::find_by_statement(sql(&text, []));
        Ok(counts.one(&self.db).await?.unwrap_or_default())
    }

    /// Up to `limit` queued builds after `after`, the one that waits longest first; with `requested_by` only
    /// those of this requester. Places count everybody's builds.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn queue_page(
        &self,
        requested_by: Option<&str>,
        after: Option<After>,
        limit: u64,
    ) -> Result<Vec<Waiting>, Error> {
        let (at, id): (Option<DateTime<Utc>>, Option<Uuid>) =
            after.map_or((None, None), |after| (Some(after.created_at), Some(after.id)));
        let used = used("page.id");
        // Places are everybody's; which hosts have room is asked for the page alone, for that is what costs something.
        let text = format!(
            "WITH line AS (
               SELECT b.*, {JOB_LANE} AS job_lane,
                 1 + count(*) FILTER (WHERE held_since IS NULL) OVER (PARTITION BY {JOB_LANE}
                   ORDER BY (sandbox_id IS NULL), queued_at, id
                   ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS position
               FROM template_builds b WHERE status = 'queued'),
             page AS MATERIALIZED (
               SELECT * FROM line
               WHERE ($1::text IS NULL OR requested_by = $1)
                 AND ($2::timestamptz IS NULL OR (queued_at, id) > ($2, $3))
               ORDER BY queued_at, id LIMIT $4)
             SELECT page.id, page.name, page.tag, page.lane, page.job_lane, page.position, page.queued_at,
               page.job_published_at IS NOT NULL AS relayed, page.held_since IS NOT NULL AS held,
               t.id IS NOT NULL AS has_base, room.hosts, room.fits
             FROM page
             LEFT JOIN templates t ON t.id = page.base_template_id AND t.deleted_at IS NULL
             CROSS JOIN LATERAL (
               SELECT count(*) AS hosts,
                 COALESCE(bool_or((h.capacity->>'vcpus')::bigint - used.vcpus >= page.vcpus
                   AND (h.capacity->>'memory_mb')::bigint - used.memory_mb >= page.memory_mb), false) AS fits
               FROM template_placements p JOIN hosts h ON h.id = p.host_id CROSS JOIN LATERAL {used} used
               WHERE p.template_id = t.id AND p.state = 'present' AND h.labels @> page.labels
                 AND (h.status = 'online'
                   OR h.status = 'draining' AND h.id = page.host_id AND page.sandbox_id IS NOT NULL)
             ) room
             ORDER BY page.queued_at, page.id"
        );
        let rows = Waiting::find_by_statement(sql(
            &text,
            [
                requested_by.map(str::to_owned).into(),
                at.into(),
                id.into(),
                i64::try_from(limit).unwrap_or(i64::MAX).into(),
            ],
        ));
        Ok(rows.all(&self.db).await?)
    }

    /// Up to `limit` builds that hold a slot, and up to `limit` that wait for one, the one that waits longest first.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn queue_ahead(&self, limit: u32) -> Result<Vec<Ahead>, Error> {
        let text = format!(
            "(SELECT id, name, lane, true AS is_running, started_at FROM template_builds
              WHERE {RUNS} ORDER BY started_at LIMIT $1)
             UNION ALL
             (SELECT id, name, {JOB_LANE}, false, started_at
              FROM template_builds b WHERE status = 'queued' AND held_since IS NULL
              ORDER BY queued_at, id LIMIT $1)"
        );
        let rows = Ahead::find_by_statement(sql(&text, [i64::from(limit).into()]));
        Ok(rows.all(&self.db).await?)
    }

    /// How long the last `of` builds of each name took that succeeded, in the median. A name without any is
    /// absent.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn build_durations(
        &self,
        names: &[&str],
        of: u32,
    ) -> Result<HashMap<String, Duration>, Error> {
        if names.is_empty() {
            return Ok(HashMap::new());
        }
        let rows = Took::find_by_statement(sql(
            "SELECT names.name, took.seconds FROM jsonb_array_elements_text($1) AS names(name)
             CROSS JOIN LATERAL (
               SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY one.seconds) AS seconds FROM (
                 SELECT extract(epoch FROM b.completed_at - b.started_at)::float8 AS seconds
                 FROM template_builds b
                 WHERE b.name = names.name AND b.status = 'succeeded' AND b.started_at IS NOT NULL
                 ORDER BY b.completed_at DESC LIMIT $2) one
             ) took",
            [json(&names)?.into(), i64::from(of).into()],
        ))
        .all(&self.db)
        .await?;
        let known = rows
            .into_iter()
            .filter_map(|row| Some((row.name, Duration::try_from_secs_f64(row.seconds?).ok()?)));
        Ok(known.collect())
    }
}
