//! Sandboxes of users: made in the same room as builds, found, listed, and what they used.
//!
//! Two creates, or a create and a claim, that see the same free room would overbook the host. So the chosen host's
//! row is locked, as for a claim, and the statement that writes the sandbox counts the room again.

use std::time::Duration;

use chrono::{DateTime, Utc};
use ovenbird_contract::{
    id::{SandboxId, TemplateId},
    sandbox::Status,
};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DatabaseTransaction, EntityTrait, FromQueryResult,
    QueryFilter, QueryOrder, QuerySelect, TransactionTrait,
};
use uuid::Uuid;

use super::{
    Error, Store,
    build_admin::After,
    claim::{host_lock, used},
    corrupt,
    host::millis,
    json, sql,
};
use crate::entity::{host, sandbox, sandbox_metric_point, template};

/// How often the choice is made again when somebody else took the room in between.
const CHOICES: usize = 3;

/// A sandbox to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSandbox {
    /// Its id.
    pub id: SandboxId,
    /// What it starts from.
    pub template: TemplateId,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory, in MiB.
    pub memory_mb: u32,
    /// Root disk, in MiB; as large as the template's when absent.
    pub disk_mb: Option<u32>,
    /// Idle seconds until it is paused; 0 means never.
    pub timeout_sec: u32,
    /// Who asks.
    pub requested_by: String,
    /// How long its host has.
    pub busy: Duration,
}

/// Why no sandbox was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// No host that answers and takes more holds the template, or the template was deleted.
    NoHost,
    /// Those that hold it are full, or too small.
    NoRoom,
}

/// A sandbox with what belongs to it.
#[derive(Debug, Clone, PartialEq)]
pub struct SandboxDetail {
    /// The sandbox.
    pub sandbox: sandbox::Model,
    /// What it started from.
    pub template: template::Model,
    /// Where it is.
    pub host: host::Model,
}

/// Which sandboxes to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SandboxFilter {
    /// Only in this state.
    pub status: Option<Status>,
    /// Only from this template.
    pub template: Option<TemplateId>,
    /// Only asked for by this requester.
    pub requested_by: Option<String>,
}

/// What a sandbox used at a time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MetricPoint {
    /// When.
    pub at: DateTime<Utc>,
    /// Of one processor, in percent.
    pub cpu_pct: f64,
    /// Memory, in bytes.
    pub mem_bytes: i64,
    /// Disk, in bytes.
    pub disk_bytes: i64,
}

/// Where a row stands.
///
/// # Errors
/// [`Error::Corrupt`].
pub fn status(row: &sandbox::Model) -> Result<Status, Error> {
    row.status.parse().map_err(corrupt("sandboxes", "status"))
}

#[derive(Debug, FromQueryResult)]
struct Candidate {
    id: Uuid,
    fits: bool,
}

impl Store {
    /// Writes a sandbox that is being made, on the emptiest host that holds its template and has room for it.
    ///
    /// # Errors
    /// [`Error::Database`]; nothing was written then, or the answer was lost: the sweep gives it up.
    pub async fn sandbox_create(
        &self,
        new: &NewSandbox,
    ) -> Result<Result<(sandbox::Model, host::Model), Refused>, Error> {
        for _ in 0..CHOICES {
            let tx = self.db.begin().await?;
            let candidates = candidates(&tx, new).await?;
            if candidates.is_empty() {
                return Ok(Err(Refused::NoHost));
            }
            let Some(chosen) = candidates.iter().find(|candidate| candidate.fits) else {
                return Ok(Err(Refused::NoRoom));
            };
            let host = host_lock(&tx, chosen.id).await?.filter(|host| host.status == "online");
            let Some(host) = host else { continue };
            if let Some(row) = insert(&tx, new, host.id).await? {
                tx.commit().await?;
                return Ok(Ok((row, host)));
            }
        }
        Ok(Err(Refused::NoRoom))
    }

    /// A sandbox, with its template and host.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn sandbox_get(&self, id: SandboxId) -> Result<Option<SandboxDetail>, Error> {
        let Some(sandbox) = sandbox::Entity::find_by_id(id.uuid()).one(&self.db).await? else {
            return Ok(None);
        };
        let template = template::Entity::find_by_id(sandbox.template_id).one(&self.db).await?;
        let host = host::Entity::find_by_id(sandbox.host_id).one(&self.db).await?;
        // Both are foreign keys.
        let gone = || sea_orm::DbErr::RecordNotFound("the template or host of a sandbox".into());
        let (template, host) = (template.ok_or_else(gone)?, host.ok_or_else(gone)?);
        Ok(Some(SandboxDetail { sandbox, template, host }))
    }

    /// Up to `limit` sandboxes after `after`, newest first, with the names of their templates.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn sandbox_list(
        &self,
        filter: &SandboxFilter,
        after: Option<After>,
        limit: u64,
    ) -> Result<Vec<(sandbox::Model, String)>, Error> {
        use sandbox::Column;
        let mut select = sandbox::Entity::find()
            .order_by_desc(Column::CreatedAt)
            .order_by_desc(Column::Id)
            .limit(limit);
        if let Some(status) = filter.status {
            select = select.filter(Column::Status.eq(status.as_str()));
        }
        if let Some(template) = filter.template {
            select = select.filter(Column::TemplateId.eq(template.uuid()));
        }
        if let Some(requester) = &filter.requested_by {
            select = select.filter(Column::RequestedBy.eq(requester));
        }
        if let Some(After { created_at, id }) = after {
            select = select.filter(Condition::any().add(Column::CreatedAt.lt(created_at)).add(
                Condition::all().add(Column::CreatedAt.eq(created_at)).add(Column::Id.lt(id)),
            ));
        }
        let rows = select.all(&self.db).await?;
        let ids: Vec<Uuid> = rows.iter().map(|row| row.template_id).collect();
        let names: Vec<(Uuid, String)> = template::Entity::find()
            .select_only()
            .column(template::Column::Id)
            .column(template::Column::Name)
            .filter(template::Column::Id.is_in(ids))
            .into_tuple()
            .all(&self.db)
            .await?;
        let names: std::collections::HashMap<_, _> = names.into_iter().collect();
        Ok(rows
            .into_iter()
            .map(|row| {
                let name = names.get(&row.template_id).cloned().unwrap_or_default();
                (row, name)
            })
            .collect())
    }

    /// A template that is not deleted.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn template_find(&self, id: TemplateId) -> Result<Option<template::Model>, Error> {
        Ok(template::Entity::find_by_id(id.uuid())
            .filter(template::Column::DeletedAt.is_null())
            .one(&self.db)
            .await?)
    }

    /// Keeps what a sandbox used. A point that is there already stays.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn sandbox_metrics_store(
        &self,
        id: SandboxId,
        points: &[(&str, MetricPoint)],
    ) -> Result<(), Error> {
        if points.is_empty() {
            return Ok(());
        }
        let points: Vec<_> = points
            .iter()
            .map(|(range, point)| {
                serde_json::json!({
                    "range": range, "at": point.at, "cpu_pct": point.cpu_pct,
                    "mem_bytes": point.mem_bytes, "disk_bytes": point.disk_bytes,
                })
            })
            .collect();
        self.db
            .execute_raw(sql(
                "INSERT INTO sandbox_metric_points (sandbox_id, range, at, cpu_pct, mem_bytes, disk_bytes)
                 SELECT $1, p.range, p.at, p.cpu_pct, p.mem_bytes, p.disk_bytes
                 FROM jsonb_to_recordset($2)
                   AS p(range text, at timestamptz, cpu_pct float8, mem_bytes bigint, disk_bytes bigint)
                 ON CONFLICT DO NOTHING",
                [id.uuid().into(), json(&points)?.into()],
            ))
            .await?;
        Ok(())
    }

    /// What was kept of a sandbox, oldest first: the newest `limit` points that are not before `since`.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn sandbox_metrics(
        &self,
        id: SandboxId,
        range: &str,
        since: DateTime<Utc>,
        limit: u64,
    ) -> Result<Vec<MetricPoint>, Error> {
        use sandbox_metric_point::Column;
        let mut points = sandbox_metric_point::Entity::find()
            .filter(Column::SandboxId.eq(id.uuid()))
            .filter(Column::Range.eq(range))
            .filter(Column::At.gte(since))
            .order_by_desc(Column::At)
            .limit(limit)
            .all(&self.db)
            .await?;
        points.reverse();
        let point = |row: sandbox_metric_point::Model| MetricPoint {
            at: row.at,
            cpu_pct: row.cpu_pct,
            mem_bytes: row.mem_bytes,
            disk_bytes: row.disk_bytes,
        };
        Ok(points.into_iter().map(point).collect())
    }
}

fn signed(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

/// Whether a sandbox of `$3` processors and `$4` MiB fits on `h`, of which `used` is taken. A host that does not say
/// what its largest sandbox is takes any.
const FITS: &str = "(h.capacity->>'vcpus')::bigint - used.vcpus >= $3
   AND (h.capacity->>'memory_mb')::bigint - used.memory_mb >= $4
   AND COALESCE(NULLIF((h.capacity->>'max_sandbox_vcpus')::bigint, 0), $3) >= $3
   AND COALESCE(NULLIF((h.capacity->>'max_sandbox_memory_mb')::bigint, 0), $4) >= $4";

/// Hosts that hold the template; one that has room first, the emptiest of them. Not locked: a hint.
async fn candidates(tx: &DatabaseTransaction, new: &NewSandbox) -> Result<Vec<Candidate>, Error> {
    let taken = used("$1");
    let text = format!(
        "SELECT h.id, {FITS} AS fits
         FROM hosts h
         JOIN template_placements p ON p.host_id = h.id AND p.template_id = $2 AND p.state = 'present'
         CROSS JOIN LATERAL {taken} used
         WHERE h.status = 'online'
         ORDER BY fits DESC, (h.capacity->>'memory_mb')::bigint - used.memory_mb DESC
         LIMIT 1"
    );
    let values = [
        new.id.uuid().into(),
        new.template.uuid().into(),
        signed(new.vcpus).into(),
        signed(new.memory_mb).into(),
    ];
    Ok(Candidate::find_by_statement(sql(&text, values)).all(tx).await?)
}

/// Writes the row if the template is still there and the (locked) host has room.
async fn insert(
    tx: &DatabaseTransaction,
    new: &NewSandbox,
    host: Uuid,
) -> Result<Option<sandbox::Model>, Error> {
    let taken = used("$1");
    let text = format!(
        "INSERT INTO sandboxes
           (id, template_id, host_id, status, vcpus, memory_mb, disk_mb, timeout_sec, requested_by, busy_until)
         SELECT $1, t.id, h.id, 'creating', $3, $4, $6, $7, $8, now() + $9 * interval '1 millisecond'
         FROM hosts h
         JOIN template_placements p ON p.host_id = h.id AND p.template_id = $2 AND p.state = 'present'
         JOIN templates t ON t.id = p.template_id AND t.deleted_at IS NULL
         CROSS JOIN LATERAL {taken} used
         WHERE h.id = $5 AND {FITS}
         RETURNING *"
    );
    Ok(sandbox::Entity::find()
        .from_raw_sql(sql(
            &text,
            [
                new.id.uuid().into(),
                new.template.uuid().into(),
                signed(new.vcpus).into(),
                signed(new.memory_mb).into(),
                host.into(),
                new.disk_mb.map(signed).into(),
                signed(new.timeout_sec).into(),
                new.requested_by.clone().into(),
                millis(new.busy).into(),
            ],
        ))
        .one(tx)
        .await?)
}
