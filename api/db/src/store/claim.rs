//! A runner takes a queued build: the choice of the host, and the statement that begins an attempt.
//!
//! Two claims that see the same free room would overbook the host. So the chosen host's row is locked,
//! and the statement that begins the attempt counts the room again. One host is locked per
//! transaction, so that no two claims can wait for each other. A first attempt mostly needs less
//! ([`super::claim_first`]).
//!
//! What the attempt before made (its sandbox, its template's id, the steps in the row) stays in the row here.
//! Whether the new attempt goes on with it, the log says, which the desk reads after this;
//! [`Store::build_begin_afresh`] takes it away when it does not.

use std::time::Duration;

use ovenbird_contract::{
    build::{Event, Status},
    id::{BuildId, RunnerId, TemplateId},
};
use sea_orm::{
    ConnectionTrait, DatabaseTransaction, EntityTrait, FromQueryResult, TransactionTrait, Value,
};
use uuid::Uuid;

use super::{
    Error, Store,
    build::{attempt, lock, status},
    host::millis,
    lease::Holder,
    sql, template,
    turn::{has_turn, hold},
};
use crate::entity;

/// Who wants which attempt.
#[derive(Debug, Clone)]
pub struct Request {
    /// The build.
    pub build: BuildId,
    /// The attempt to begin.
    pub attempt: u32,
    /// The runner.
    pub runner: RunnerId,
    /// How long it holds without renewal.
    pub lease: Duration,
}

/// The attempt is the runner's.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// The row as it is now.
    pub build: entity::template_build::Model,
    /// What the sandbox starts from.
    pub base: entity::template::Model,
    /// Where.
    pub host: entity::host::Model,
    /// The sandbox of the attempt before, when it is on the same host.
    pub previous_sandbox: Option<Uuid>,
}

/// Why nothing was claimed; nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// No such build.
    NotFound,
    /// It is in this state, or another runner has it.
    NotClaimable(Status),
    /// Another attempt comes next.
    StaleAttempt {
        /// The last attempt that was begun.
        begun: u32,
    },
    /// Its base template is gone.
    NoBase,
    /// No host that answers and has the labels that it asks for holds its base template.
    NoHost,
    /// The hosts that hold it are full.
    NoRoom,
    /// Its key has as many builds running as it may. Its job was taken back: it comes again with its turn.
    KeyLimit,
}

/// How often the choice is made again when somebody else took the room in between.
const CHOICES: usize = 3;

/// Room that others take on host `h`: running builds, queued ones whose sandbox waits there for the next runner,
/// and sandboxes. A paused sandbox has no process. `asking` is the build that asks, or a sandbox that takes no room yet.
pub(super) fn used(asking: &str) -> String {
    format!(
        "(SELECT COALESCE(sum(v), 0) AS vcpus, COALESCE(sum(m), 0) AS memory_mb FROM (
           SELECT o.vcpus AS v, o.memory_mb AS m FROM template_builds o
           WHERE o.host_id = h.id AND o.status IN ('running', 'cancelling')
           UNION ALL
           SELECT o.vcpus, o.memory_mb FROM template_builds o
           WHERE o.host_id = h.id AND o.status = 'queued' AND o.sandbox_id IS NOT NULL AND o.id <> {asking}
           UNION ALL
           SELECT s.vcpus, s.memory_mb FROM sandboxes s
           WHERE s.host_id = h.id AND s.destroyed_at IS NULL AND s.status <> 'paused'
         ) taken)"
    )
}

#[derive(Debug, FromQueryResult)]
struct Candidate {
    id: Uuid,
    fits: bool,
}

impl Store {
    /// Begins an attempt. The same request of the same runner is answered the same, as long as its lease
    /// holds, and renews the lease.
    ///
    /// # Errors
    /// [`Error::Database`]; whether the attempt began is unknown then, so ask again.
    pub async fn build_claim(&self, request: &Request) -> Result<Result<Claimed, Refused>, Error> {
        if let Some(claimed) = self.build_claim_first(request).await? {
            return Ok(Ok(claimed));
        }
        let mut last = Refused::NoRoom;
        for _ in 0..CHOICES {
            let tx = self.db.begin().await?;
            match claim_once(&tx, request, self.key_builds_max).await? {
                Ok(claimed) => {
                    tx.commit().await?;
                    return Ok(Ok(claimed));
                }
                Err(Outcome::Refused(refused @ Refused::KeyLimit)) => {
                    tx.commit().await?;
                    return Ok(Err(refused));
                }
                Err(Outcome::Refused(refused)) => {
                    tx.rollback().await?;
                    return Ok(Err(refused));
                }
                Err(Outcome::RoomTaken) => tx.rollback().await?,
            }
            last = Refused::NoRoom;
        }
        Ok(Err(last))
    }

    /// Takes away what the attempt before made: `holder`'s attempt begins from the first step, in a sandbox and
    /// with a template of its own, and `why` stands behind what the row says of the attempt before. Repeating
    /// it changes nothing; nothing comes back when the attempt is not the holder's any more.
    ///
    /// # Errors
    /// [`Error::Database`]; it may have been done or not, so ask again.
    pub async fn build_begin_afresh(
        &self,
        holder: &Holder,
        why: &str,
    ) -> Result<Option<entity::template_build::Model>, Error> {
        let changed = self
            .db
            .execute_raw(sql(
                "UPDATE template_builds SET fresh_attempt = attempt, planned_template_id = $4,
                   sandbox_id = NULL, logs = '[]', current_step = 0,
                   reason = jsonb_set(reason, '{message}', to_jsonb((reason->>'message') || $5))
                 WHERE id = $1 AND attempt = $2 AND lease_owner = $3 AND status IN ('running', 'cancelling')
                   AND fresh_attempt < attempt",
                [
                    holder.build.uuid().into(),
                    holder.attempt().into(),
                    holder.runner.uuid().into(),
                    TemplateId::new().uuid().into(),
                    why.into(),
                ],
            ))
            .await?;
        let row = self.build_row(holder.build).await?.filter(|row| holder.holds(row));
        let afresh = |row: &entity::template_build::Model| row.fresh_attempt == row.attempt;
        debug_assert!(changed.rows_affected() == 0 || row.as_ref().is_none_or(afresh));
        Ok(row.filter(afresh))
    }
}

enum Outcome {
    Refused(Refused),
    RoomTaken,
}

async fn claim_once(
    tx: &DatabaseTransaction,
    request: &Request,
    key_builds_max: u32,
) -> Result<Result<Claimed, Outcome>, Error> {
    let refused = |refused| Ok(Err(Outcome::Refused(refused)));
    let Some(build) = lock(tx, request.build).await? else {
        return refused(Refused::NotFound);
    };
    let now = status(&build)?;
    let mine = build.lease_owner == Some(request.runner.uuid());
    if now == Status::Running && mine && attempt(&build) == request.attempt {
        return repeat(tx, request).await;
    }
    let Ok(next) = now.apply(Event::Claimed) else {
        return refused(Refused::NotClaimable(now));
    };
    if attempt(&build).saturating_add(1) != request.attempt {
        return refused(Refused::StaleAttempt { begun: attempt(&build) });
    }
    if !has_turn(tx, &build, key_builds_max).await? {
        hold(tx, build.id).await?;
        return refused(Refused::KeyLimit);
    }
    let base = match build.base_template_id {
        Some(id) => entity::template::Entity::find_by_id(id).one(tx).await?,
        None => template::resolve(tx, &build.base_template).await?,
    };
    let Some(base) = base.filter(|base| base.deleted_at.is_none()) else {
        return refused(Refused::NoBase);
    };
    let candidates = candidates(tx, &build, base.id).await?;
    if candidates.is_empty() {
        return refused(Refused::NoHost);
    }
    let Some(chosen) = candidates.iter().find(|candidate| candidate.fits) else {
        return refused(Refused::NoRoom);
    };
    // Both may have changed while the lock was waited for.
    let takes = |host: &entity::host::Model| {
        let goes_on = host.status == "draining" && goes_on_at(&build) == Some(host.id);
        (host.status == "online" || goes_on) && has_labels(host, &build)
    };
    let Some(host) = host_lock(tx, chosen.id).await?.filter(takes) else {
        return Ok(Err(Outcome::RoomTaken));
    };
    let begun = begin(tx, request, next, base.id, host.id).await?;
    Ok(match begun {
        Some(row) => Ok(claimed(row, base, host)),
        None => Err(Outcome::RoomTaken),
    })
}

/// Nobody else takes room on the host until the transaction ends, and who counted it before sees that it changed.
pub(super) async fn host_lock(
    tx: &DatabaseTransaction,
    host: Uuid,
) -> Result<Option<entity::host::Model>, Error> {
    let text = "UPDATE hosts SET bookings = bookings + 1 WHERE id = $1 RETURNING *";
    Ok(entity::host::Entity::find().from_raw_sql(sql(text, [host.into()])).one(tx).await?)
}

/// As `@>` of Postgres.
fn has_labels(host: &entity::host::Model, build: &entity::template_build::Model) -> bool {
    let wanted = build.labels.as_object().into_iter().flatten();
    wanted.into_iter().all(|(name, value)| host.labels.get(name) == Some(value))
}

/// Where the sandbox of the attempt before waits. A draining host lets such a build end there; a new one it does
/// not get.
fn goes_on_at(build: &entity::template_build::Model) -> Option<Uuid> {
    build.sandbox_id.and(build.host_id)
}

/// The host for the one row of `build`, and whether it has room: one that holds the base (`$2` for a build that does not
/// name its own) and has the labels that the build asks for; the one that failed the build last, if it is the only one;
/// else one that has room, the one of the attempt before first, then the emptiest. Not locked: a hint.
pub(super) fn choice() -> String {
    let used = used("b.id");
    format!(
        "SELECT h.id, h.bookings,
           (h.capacity->>'vcpus')::bigint - used.vcpus >= b.vcpus
           AND (h.capacity->>'memory_mb')::bigint - used.memory_mb >= b.memory_mb AS fits
         FROM build b
         JOIN template_placements p
           ON p.template_id = COALESCE(b.base_template_id, $2::uuid) AND p.state = 'present'
         JOIN hosts h ON h.id = p.host_id
         CROSS JOIN LATERAL {used} used
         WHERE (h.status = 'online' OR h.status = 'draining' AND h.id = b.host_id AND b.sandbox_id IS NOT NULL)
           AND h.labels @> b.labels
         ORDER BY h.id IS NOT DISTINCT FROM b.avoid_host_id, fits DESC, h.id IS NOT DISTINCT FROM b.host_id DESC,
           (h.capacity->>'memory_mb')::bigint - used.memory_mb DESC
         LIMIT 1"
    )
}

async fn candidates(
    tx: &DatabaseTransaction,
    build: &entity::template_build::Model,
    base: Uuid,
) -> Result<Vec<Candidate>, Error> {
    let text = format!("WITH build AS (SELECT * FROM template_builds WHERE id = $1) {}", choice());
    let query = Candidate::find_by_statement(sql(&text, [build.id.into(), base.into()]));
    Ok(query.all(tx).await?)
}

/// What the row `b` of the build becomes on host `h`, in the words of [`terms`].
pub(super) const BEGUN: &str = "
    status = $3, attempt = $4, lease_owner = $5,
    lease_until = now() + $6 * interval '1 millisecond',
    host_id = h.id, base_template_id = COALESCE(b.base_template_id, $2::uuid),
    planned_template_id = COALESCE(b.planned_template_id, $7),
    previous_sandbox_id = CASE WHEN b.host_id = h.id THEN b.sandbox_id END,
    sandbox_id = CASE WHEN b.host_id = h.id THEN b.sandbox_id END,
    event_stream_seq = 0, avoid_host_id = NULL,
    job_published_at = NULL, job_stream_seq = NULL, held_since = NULL,
    started_at = COALESCE(b.started_at, now())";

/// `$1` to `$7`: the build, its base if it names none, the state to come, attempt, runner, lease, template.
pub(super) fn terms(request: &Request, next: Status, base: Option<Uuid>) -> [Value; 7] {
    [
        request.build.uuid().into(),
        base.into(),
        next.as_str().into(),
        i32::try_from(request.attempt).unwrap_or(i32::MAX).into(),
        request.runner.uuid().into(),
        millis(request.lease).into(),
        TemplateId::new().uuid().into(),
    ]
}

/// Writes the attempt, comparing status, attempt and the room on the (locked) host.
async fn begin(
    tx: &DatabaseTransaction,
    request: &Request,
    next: Status,
    base: Uuid,
    host: Uuid,
) -> Result<Option<entity::template_build::Model>, Error> {
    let used = used("$1");
    let text = format!(
        "UPDATE template_builds b SET {BEGUN}
         FROM hosts h CROSS JOIN LATERAL {used} used
         WHERE b.id = $1 AND b.status = 'queued' AND b.attempt = $4 - 1 AND h.id = $8
           AND (h.capacity->>'vcpus')::bigint - used.vcpus >= b.vcpus
           AND (h.capacity->>'memory_mb')::bigint - used.memory_mb >= b.memory_mb
         RETURNING b.*"
    );
    let values = terms(request, next, Some(base)).into_iter().chain([host.into()]);
    let query = entity::template_build::Entity::find().from_raw_sql(sql(&text, values));
    Ok(query.one(tx).await?)
}

/// The answer got lost, or the runner asks again: the same claim, with the lease renewed.
async fn repeat(
    tx: &DatabaseTransaction,
    request: &Request,
) -> Result<Result<Claimed, Outcome>, Error> {
    let row = entity::template_build::Entity::find()
        .from_raw_sql(sql(
            "UPDATE template_builds SET lease_until = now() + $4 * interval '1 millisecond'
             WHERE id = $1 AND attempt = $2 AND lease_owner = $3 AND status = 'running'
               AND lease_until > now()
             RETURNING *",
            [
                request.build.uuid().into(),
                i32::try_from(request.attempt).unwrap_or(i32::MAX).into(),
                request.runner.uuid().into(),
                millis(request.lease).into(),
            ],
        ))
        .one(tx)
        .await?;
    let Some(row) = row else {
        return Ok(Err(Outcome::Refused(Refused::StaleAttempt { begun: request.attempt })));
    };
    let (Some(base), Some(host)) = (row.base_template_id, row.host_id) else {
        return Ok(Err(Outcome::Refused(Refused::NoBase)));
    };
    let base = entity::template::Entity::find_by_id(base).one(tx).await?;
    let host = entity::host::Entity::find_by_id(host).one(tx).await?;
    let (Some(base), Some(host)) = (base, host) else {
        return Ok(Err(Outcome::Refused(Refused::NoBase)));
    };
    Ok(Ok(claimed(row, base, host)))
}

pub(super) fn claimed(
    build: entity::template_build::Model,
    base: entity::template::Model,
    host: entity::host::Model,
) -> Claimed {
    let previous_sandbox = build.previous_sandbox_id;
    Claimed { build, base, host, previous_sandbox }
}
