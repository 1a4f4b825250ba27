//! Hosts and what they hold, as the bridges' poll sees them.

use std::{collections::BTreeMap, time::Duration};

use ovenbird_contract::{
    desk::TemplateKind,
    id::{HostId, TemplateId},
};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DatabaseTransaction, DbErr, EntityTrait, QueryFilter,
    QueryOrder, QuerySelect, TransactionTrait,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Error, Store, json, sql};
use crate::entity::host;

/// What a host may promise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Capacity {
    /// Virtual CPUs of all sandboxes together.
    pub vcpus: u32,
    /// Memory of all sandboxes together, in MiB.
    pub memory_mb: u32,
    /// Virtual CPUs of one sandbox at most.
    pub max_sandbox_vcpus: u32,
    /// Memory of one sandbox at most, in MiB.
    pub max_sandbox_memory_mb: u32,
    /// Free disk, in bytes.
    pub disk_free_bytes: u64,
}

/// What a host's agent has promised.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Allocated {
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory, in MiB.
    pub memory_mb: u32,
    /// Sandboxes.
    pub sandboxes: u32,
}

/// What runs on a host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Versions {
    /// Version of the agent.
    pub agent: String,
    /// Version of QEMU.
    pub qemu: String,
    /// Digest of the guest kernel.
    pub kernel: String,
    /// `kvm` or `tcg`.
    pub accelerator: String,
    /// Why that one.
    pub accelerator_reason: String,
    /// `reflink` or `copy`.
    pub storage: String,
}

/// A template that a host says it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Its name on the host.
    pub host_name: String,
    /// Image or snapshot.
    pub kind: TemplateKind,
    /// Its size there, in bytes.
    pub size_bytes: u64,
}

/// Words by which hosts are told apart, such as `zone: b`. A build may ask for some.
pub type Labels = BTreeMap<String, String>;

/// What a host answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// `host:port` of its agent.
    pub address: String,
    /// The name in its certificate.
    pub server_name: String,
    /// See [`Capacity`].
    pub capacity: Capacity,
    /// See [`Allocated`].
    pub allocated: Allocated,
    /// See [`Versions`].
    pub versions: Versions,
    /// Every template on it.
    pub templates: Vec<Held>,
}

impl Store {
    /// Notes that a host answered `report`, `asked_ago` after it was asked: the host is online, or draining
    /// if that was asked for, its templates are placed, and an image that came with the host becomes a
    /// template of its own name, tagged `latest`. A placement that was made after the question is left
    /// alone. Hosts keep their id by address. Of a host that was deleted nothing is noted, nor at the address of
    /// one that registered: see [`Store::host_report_of`].
    ///
    /// # Errors
    /// [`Error::Database`]; nothing was written then.
    pub async fn host_report(&self, report: &Report, asked_ago: Duration) -> Result<HostId, Error> {
        let tx = self.db.begin().await?;
        let row = tx
            .query_one_raw(sql(
                "INSERT INTO hosts (id, address, server_name, status, capacity, allocated, versions, heartbeat)
                 VALUES ($1, $2, $3, 'online', $4, $5, $6, now())
                 ON CONFLICT (address) WHERE address <> '' DO UPDATE SET
                   server_name = EXCLUDED.server_name, capacity = EXCLUDED.capacity,
                   allocated = EXCLUDED.allocated, versions = EXCLUDED.versions, heartbeat = now(),
                   status = CASE WHEN hosts.drain_requested_at IS NULL THEN 'online' ELSE 'draining' END
                 WHERE hosts.deleted_at IS NULL AND hosts.registered_at IS NULL
                 RETURNING id",
                [
                    HostId::new().uuid().into(),
                    report.address.clone().into(),
                    report.server_name.clone().into(),
                    json(&report.capacity)?.into(),
                    json(&report.allocated)?.into(),
                    json(&report.versions)?.into(),
                ],
            ))
            .await?;
        let Some(row) = row else {
            tx.rollback().await?;
            let alone = self.host_left_alone(&report.address).await?;
            return alone
                .ok_or_else(|| DbErr::RecordNotFound("the host just written".into()).into());
        };
        let host: Uuid = row.try_get("", "id")?;
        placed(&tx, host, report, asked_ago).await?;
        tx.commit().await?;
        Ok(HostId::from_uuid(host))
    }

    /// As [`Store::host_report`], for a host that registered: it is known by its id, and keeps the address that it
    /// registered with. Says whether it is still there.
    ///
    /// # Errors
    /// [`Error::Database`]; nothing was written then.
    pub async fn host_report_of(
        &self,
        id: HostId,
        report: &Report,
        asked_ago: Duration,
    ) -> Result<bool, Error> {
        let tx = self.db.begin().await?;
        let noted = tx
            .execute_raw(sql(
                "UPDATE hosts SET capacity = $2, allocated = $3, versions = $4, heartbeat = now(),
                   status = CASE WHEN drain_requested_at IS NULL THEN 'online' ELSE 'draining' END
                 WHERE id = $1 AND deleted_at IS NULL AND registered_at IS NOT NULL AND address = $5",
                [
                    id.uuid().into(),
                    json(&report.capacity)?.into(),
                    json(&report.allocated)?.into(),
                    json(&report.versions)?.into(),
                    report.address.clone().into(),
                ],
            ))
            .await?;
        if noted.rows_affected() == 0 {
            return Ok(false);
        }
        placed(&tx, id.uuid(), report, asked_ago).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Notes that the host at `address` did not answer. No build is placed on it until it does. Hosts that wait for their
    /// agents have no address, and are at none.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn host_unreachable(&self, address: &str) -> Result<bool, Error> {
        let done = self
            .db
            .execute_raw(sql(
                "UPDATE hosts SET status = 'unreachable'
                 WHERE address = $1 AND address <> '' AND status <> 'unreachable'",
                [address.into()],
            ))
            .await?;
        Ok(done.rows_affected() > 0)
    }

    /// The host at `address` if a configuration that names it is not to be followed: it was deleted, or it
    /// registered and is known by its id.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn host_left_alone(&self, address: &str) -> Result<Option<HostId>, Error> {
        let deleted: Option<Uuid> = host::Entity::find()
            .select_only()
            .column(host::Column::Id)
            .filter(host::Column::Address.eq(address))
            .filter(
                Condition::any()
                    .add(host::Column::DeletedAt.is_not_null())
                    .add(host::Column::RegisteredAt.is_not_null()),
            )
            .into_tuple()
            .one(&self.db)
            .await?;
        Ok(deleted.map(HostId::from_uuid))
    }

    /// Every host that was not deleted, by address.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn host_list(&self) -> Result<Vec<host::Model>, Error> {
        Ok(host::Entity::find()
            .filter(host::Column::DeletedAt.is_null())
            .order_by_asc(host::Column::Address)
            .all(&self.db)
            .await?)
    }
}

/// Notes which templates a host holds.
async fn placed(
    tx: &DatabaseTransaction,
    host: Uuid,
    report: &Report,
    asked_ago: Duration,
) -> Result<(), Error> {
    for held in report.templates.iter().filter(|held| is_base(held)) {
        base_ensure(tx, held).await?;
    }
    let held: Vec<_> = report
        .templates
        .iter()
        .map(|held| serde_json::json!({"name": held.host_name, "bytes": held.size_bytes}))
        .collect();
    tx.execute_raw(sql(
        "INSERT INTO template_placements (template_id, host_id, state, bytes, seen_at)
         SELECT t.id, $1, 'present', h.bytes, now()
         FROM jsonb_to_recordset($2) AS h(name text, bytes bigint)
         JOIN templates t ON t.host_name = h.name AND t.deleted_at IS NULL
         ORDER BY t.id
         ON CONFLICT (template_id, host_id) DO UPDATE SET
           bytes = EXCLUDED.bytes, seen_at = now(),
           state = CASE WHEN template_placements.state = 'deleting' THEN 'deleting' ELSE 'present' END",
        [host.into(), json(&held)?.into()],
    ))
    .await?;
    tx.execute_raw(sql(
        "UPDATE template_placements p SET state = 'missing'
         FROM templates t
         WHERE p.host_id = $1 AND p.state = 'present' AND t.id = p.template_id
           AND p.seen_at < now() - $3 * interval '1 millisecond'
           AND t.host_name NOT IN (SELECT h.name FROM jsonb_to_recordset($2) AS h(name text))",
        [host.into(), json(&held)?.into(), millis(asked_ago).into()],
    ))
    .await?;
    Ok(())
}

/// Built templates are named by their id; an image with any other name came with the host.
fn is_base(held: &Held) -> bool {
    held.kind == TemplateKind::Image && held.host_name.parse::<TemplateId>().is_err()
}

/// Defaults of a template that came with a host.
const BASE_VCPUS: i32 = 1;
const BASE_MEMORY_MB: i32 = 512;

async fn base_ensure(tx: &impl ConnectionTrait, held: &Held) -> Result<(), Error> {
    let id = TemplateId::new().uuid();
    tx.execute_raw(sql(
        "WITH made AS (
           INSERT INTO templates (id, name, tag, type, host_name, vcpus, memory_mb, size_bytes, provenance)
           SELECT $1, $2, 'latest', 'image', $2, $3, $4, $5, '{\"origin\":\"host\"}'
           WHERE $2 ~ '^[a-z0-9][a-z0-9._-]{0,62}$'
           ON CONFLICT (host_name) WHERE deleted_at IS NULL DO NOTHING
           RETURNING id, name
         )
         INSERT INTO template_tags (id, name, tag, template_id, set_by)
         SELECT $6, name, 'latest', id, 'host' FROM made
         ON CONFLICT (name, tag) WHERE superseded_at IS NULL DO NOTHING",
        [
            id.into(),
            held.host_name.clone().into(),
            BASE_VCPUS.into(),
            BASE_MEMORY_MB.into(),
            i64::try_from(held.size_bytes).unwrap_or(i64::MAX).into(),
            Uuid::now_v7().into(),
        ],
    ))
    .await?;
    Ok(())
}

/// For `$n * interval '1 millisecond'`.
pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
