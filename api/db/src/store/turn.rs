//! Whose turn it is: a limit of running builds for each API key.
//!
//! A queued build has its turn when fewer builds of its key run, or are before it, than the key may have. Before it are
//! those that stand half-made on a host, then those of the high lane, then those that wait longer. Only a build that has
//! its turn gets a job, so what waits for its key's limit is in nobody's way: it is in no queue at all, and no runner
//! is wanted for it. It gets its job when a build of the key ends, from the desk at once, and from the sweep in any case.
//!
//! Builds that no host could take now (its base is gone, nobody has its labels, all that have are full) stand in a line
//! of their own, so that they hold up none that could run. Each line alone is bound by the limit: no key fills the work
//! queue with jobs that are refused for ever.
//!
//! A build that is being cancelled counts while its runner holds it. Without one only its host's word is waited for,
//! for an hour if need be (`cancel_patience`), and that is no use of the key's.
//!
//! All this follows from the rows, so every bridge comes to the same answer; but two may ask at the same moment, so the
//! claim counts again, under a lock of the key. A job that is refused there is taken back: it comes anew with its turn.

use ovenbird_contract::{id::BuildId, nats::HIGH_LANE};
use sea_orm::{ConnectionTrait, DatabaseTransaction, FromQueryResult};
use uuid::Uuid;

use super::{Error, Store, claim::used, json, sql};
use crate::entity::template_build;

/// Builds that hold a slot of a runner.
pub(super) const RUNS: &str =
    "(status = 'running' OR status = 'cancelling' AND lease_until > now())";

#[derive(Debug, FromQueryResult)]
struct Id {
    id: Uuid,
}

/// A query that gives each queued build (`id`) whose turn it is, for a limit of `max`; of all keys, or of those that
/// `keys`, a query of one column, gives.
pub(super) fn turns(max: u32, keys: Option<&str>) -> String {
    if max == 0 {
        return "SELECT id FROM template_builds WHERE status = 'queued'".into();
    }
    let of = keys.map_or(String::new(), |keys| format!("AND requested_by IN ({keys})"));
    // As the claim chooses a host, but that a build which stands half-made somewhere has its room there already. Asked
    // once for each kind of build, and each host's room is counted once. An unknown base is the claim's to find.
    let used = used(NOTHING);
    format!(
        "WITH waiting AS MATERIALIZED (
           SELECT id, requested_by, lane, queued_at, sandbox_id, labels, vcpus, memory_mb,
             COALESCE(base_template_id, {NOTHING}) AS base,
             COALESCE(CASE WHEN sandbox_id IS NOT NULL THEN host_id END, {NOTHING}) AS stands_at
           FROM template_builds WHERE status = 'queued' {of}),
         room AS MATERIALIZED (
           SELECT h.id, h.status, h.labels, (h.capacity->>'vcpus')::bigint - used.vcpus AS vcpus,
             (h.capacity->>'memory_mb')::bigint - used.memory_mb AS memory_mb
           FROM hosts h CROSS JOIN LATERAL {used} used WHERE h.status IN ('online', 'draining')),
         kinds AS MATERIALIZED (
           SELECT kind.*, kind.base = {NOTHING} OR EXISTS (
             SELECT FROM template_placements p
             JOIN templates t ON t.id = p.template_id AND t.deleted_at IS NULL
             JOIN room ON room.id = p.host_id
             WHERE p.template_id = kind.base AND p.state = 'present' AND room.labels @> kind.labels
               AND (room.id = kind.stands_at OR room.status = 'online'
                 AND room.vcpus >= kind.vcpus AND room.memory_mb >= kind.memory_mb)) AS fits
           FROM (SELECT DISTINCT base, labels, vcpus, memory_mb, stands_at FROM waiting) kind),
         line AS (
           SELECT w.id, w.requested_by, row_number() OVER (PARTITION BY w.requested_by, k.fits
             ORDER BY (w.sandbox_id IS NULL), (w.lane <> '{HIGH_LANE}'), w.queued_at, w.id) AS place
           FROM waiting w JOIN kinds k USING (base, labels, vcpus, memory_mb, stands_at))
         SELECT line.id FROM line
         LEFT JOIN (
           SELECT requested_by, count(*) AS builds FROM template_builds
           WHERE {RUNS} {of} GROUP BY requested_by) busy
         ON busy.requested_by = line.requested_by
         WHERE line.place + COALESCE(busy.builds, 0) <= {max}"
    )
}

/// The id of no build, template or host. With it, [`used`] counts everybody's room.
const NOTHING: &str = "'00000000-0000-0000-0000-000000000000'::uuid";

/// Whether the key of `build`, which is queued and locked, may have one more that runs. Nobody else of the key is
/// asked this until the transaction ends.
pub(super) async fn has_turn(
    tx: &DatabaseTransaction,
    build: &template_build::Model,
    max: u32,
) -> Result<bool, Error> {
    if max == 0 {
        return Ok(true);
    }
    let key = || [build.requested_by.clone().into()];
    tx.execute_raw(sql("SELECT pg_advisory_xact_lock(hashtextextended($1, 13))", key())).await?;
    let row = tx
        .query_one_raw(sql(
            &format!(
                "SELECT count(*) AS builds FROM template_builds WHERE requested_by = $1 AND {RUNS}"
            ),
            key(),
        ))
        .await?;
    let builds: i64 = row.map_or(Ok(0), |row| row.try_get("", "builds"))?;
    Ok(builds < i64::from(max))
}

/// Takes the job of a queued build back; the next one has another message id.
pub(super) async fn hold(tx: &DatabaseTransaction, build: Uuid) -> Result<(), Error> {
    let text = "UPDATE template_builds SET job_published_at = NULL, job_stream_seq = NULL,
           job_resends = job_resends + 1, held_since = COALESCE(held_since, now())
         WHERE id = $1 AND status = 'queued'";
    tx.execute_raw(sql(text, [build.into()])).await?;
    Ok(())
}

impl Store {
    /// Notes that these wait for the limit of their key, unless they have a job by now.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn build_held(&self, builds: &[BuildId]) -> Result<(), Error> {
        let ids: Vec<Uuid> = builds.iter().map(|id| id.uuid()).collect();
        let text = "UPDATE template_builds SET held_since = now()
             WHERE status = 'queued' AND held_since IS NULL AND job_published_at IS NULL
               AND id IN (SELECT value::uuid FROM jsonb_array_elements_text($1))";
        self.db.execute_raw(sql(text, [json(&ids)?.into()])).await?;
        Ok(())
    }

    /// The builds whose turn has come because `ended`, of the same key, is over: up to `limit` without a job, the first
    /// one first. None where keys have no limit, for then nobody waited for this.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn build_list_after(
        &self,
        ended: BuildId,
        limit: u32,
    ) -> Result<Vec<BuildId>, Error> {
        if self.key_builds_max == 0 {
            return Ok(Vec::new());
        }
        let key = "SELECT requested_by FROM template_builds WHERE id = $1";
        let text = format!(
            "SELECT b.id FROM template_builds b JOIN ({}) turn ON turn.id = b.id
             WHERE b.status = 'queued' AND b.job_published_at IS NULL
             ORDER BY b.queued_at, b.id LIMIT $2",
            turns(self.key_builds_max, Some(key))
        );
        let rows =
            Id::find_by_statement(sql(&text, [ended.uuid().into(), i64::from(limit).into()]));
        let rows = rows.all(&self.db).await?;
        Ok(rows.into_iter().map(|row| BuildId::from_uuid(row.id)).collect())
    }
}
