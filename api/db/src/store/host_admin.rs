//! Hosts as an admin sees and changes them: listed, drained, deleted. What they say of themselves stands in
//! [`super::host`].

use chrono::{DateTime, Utc};
use ovenbird_contract::id::{BuildId, HostId, SandboxId, TemplateId};
use sea_orm::{DatabaseTransaction, EntityTrait, FromQueryResult, TransactionTrait};
use uuid::Uuid;

use super::{Error, Store, build_admin::After, host::Labels, sql};
use crate::entity::host;

/// What a host holds that a refusal names at most.
const HELD_MAX: i64 = 20;

/// What is on a host, by Postgres' count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromQueryResult)]
pub struct Load {
    /// The host.
    pub host_id: Uuid,
    /// Builds that run there, or whose sandbox waits there for the next runner.
    pub builds: i64,
    /// Sandboxes that were started from templates and are not destroyed.
    pub sandboxes: i64,
    /// Templates that it holds.
    pub templates: i64,
}

/// A host and what is on it.
#[derive(Debug, Clone, PartialEq)]
pub struct HostRow {
    /// The host.
    pub host: host::Model,
    /// What is on it.
    pub load: Load,
}

/// What a host holds that would be lost with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// A build runs there.
    Build(BuildId),
    /// A sandbox is there.
    Sandbox(SandboxId),
    /// A template is on no other host.
    Template(TemplateId),
}

/// Why a host was not deleted; nothing changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// There is no such host.
    NotFound,
    /// It takes builds; its state.
    NotDrained(String),
    /// It is not empty; some of what it holds.
    InUse(Vec<Held>),
}

/// Builds that are on host `h`.
const BUILDS_THERE: &str = "b.host_id = h.id AND (b.status IN ('running', 'cancelling')
    OR b.status = 'queued' AND b.sandbox_id IS NOT NULL)";
/// Sandboxes that are on host `h`, paused ones too.
const SANDBOXES_THERE: &str = "s.host_id = h.id AND s.destroyed_at IS NULL
    AND s.status NOT IN ('destroyed', 'failed')";

#[derive(Debug, FromQueryResult)]
struct HeldRow {
    kind: String,
    id: Uuid,
}

impl Store {
    /// Up to `limit` hosts after `after`, newest first.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn host_page(&self, after: Option<After>, limit: u64) -> Result<Vec<HostRow>, Error> {
        let (at, id): (Option<DateTime<Utc>>, Option<Uuid>) =
            after.map_or((None, None), |after| (Some(after.created_at), Some(after.id)));
        let hosts = host::Entity::find()
            .from_raw_sql(sql(
                "SELECT * FROM hosts
                 WHERE deleted_at IS NULL AND ($1::timestamptz IS NULL OR (created_at, id) < ($1, $2))
                 ORDER BY created_at DESC, id DESC LIMIT $3",
                [at.into(), id.into(), i64::try_from(limit).unwrap_or(i64::MAX).into()],
            ))
            .all(&self.db)
            .await?;
        self.host_rows(hosts).await
    }

    /// A host that is not deleted.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn host_get(&self, id: HostId) -> Result<Option<HostRow>, Error> {
        let found = host::Entity::find_by_id(id.uuid()).one(&self.db).await?;
        let there = found.filter(|host| host.deleted_at.is_none());
        Ok(self.host_rows(there.into_iter().collect()).await?.pop())
    }

    /// From now on the host gets nothing new. Whoever asked first stays noted. A claim that holds the row ends
    /// before this; one that comes later sees it.
    ///
    /// # Errors
    /// [`Error::Database`]; repeating it changes nothing.
    pub async fn host_drain(&self, id: HostId, by: &str) -> Result<Option<HostRow>, Error> {
        let hosts = host::Entity::find()
            .from_raw_sql(sql(
                "UPDATE hosts SET drain_requested_at = COALESCE(drain_requested_at, clock_timestamp()),
                   drain_requested_by = COALESCE(drain_requested_by, $2),
                   status = CASE WHEN status = 'online' THEN 'draining' ELSE status END
                 WHERE id = $1 AND deleted_at IS NULL RETURNING *",
                [id.uuid().into(), by.into()],
            ))
            .all(&self.db)
            .await?;
        Ok(self.host_rows(hosts).await?.pop())
    }

    /// The host has these labels from now on, and no others.
    ///
    /// # Errors
    /// [`Error::Database`]; repeating it changes nothing.
    pub async fn host_labels_set(
        &self,
        id: HostId,
        labels: &Labels,
    ) -> Result<Option<HostRow>, Error> {
        let hosts = host::Entity::find()
            .from_raw_sql(sql(
                "UPDATE hosts SET labels = $2, bookings = bookings + 1
                 WHERE id = $1 AND deleted_at IS NULL RETURNING *",
                [id.uuid().into(), super::json(labels)?.into()],
            ))
            .all(&self.db)
            .await?;
        Ok(self.host_rows(hosts).await?.pop())
    }

    /// The host gets builds again; one that was deleted is back, and pending until it answers.
    ///
    /// # Errors
    /// [`Error::Database`]; repeating it changes nothing.
    pub async fn host_undrain(&self, id: HostId) -> Result<Option<HostRow>, Error> {
        let hosts = host::Entity::find()
            .from_raw_sql(sql(
                "UPDATE hosts SET drain_requested_at = NULL, drain_requested_by = NULL, deleted_at = NULL,
                   status = CASE WHEN deleted_at IS NOT NULL THEN 'pending'
                                 WHEN status = 'draining' THEN 'online' ELSE status END
                 WHERE id = $1 RETURNING *",
                [id.uuid().into()],
            ))
            .all(&self.db)
            .await?;
        Ok(self.host_rows(hosts).await?.pop())
    }

    /// Deletes a host that takes nothing new and holds nothing. Its agent may go on answering: nothing of that
    /// is noted until [`Store::host_undrain`].
    ///
    /// # Errors
    /// [`Error::Database`]; it was done or not, so ask again.
    pub async fn host_delete(&self, id: HostId) -> Result<Result<(), Refused>, Error> {
        let tx = self.db.begin().await?;
        let locked = host::Entity::find()
            .from_raw_sql(sql(
                "SELECT * FROM hosts WHERE id = $1 AND deleted_at IS NULL FOR UPDATE",
                [id.uuid().into()],
            ))
            .one(&tx)
            .await?;
        let Some(host) = locked else { return Ok(Err(Refused::NotFound)) };
        if !matches!(host.status.as_str(), "pending" | "draining" | "unreachable") {
            return Ok(Err(Refused::NotDrained(host.status)));
        }
        let held = held(&tx, host.id).await?;
        if !held.is_empty() {
            return Ok(Err(Refused::InUse(held)));
        }
        host::Entity::find()
            .from_raw_sql(sql(
                "WITH gone AS (DELETE FROM template_placements WHERE host_id = $1),
                   token AS (DELETE FROM host_tokens WHERE host_id = $1)
                 UPDATE hosts SET deleted_at = clock_timestamp(), status = 'unreachable'
                 WHERE id = $1 RETURNING *",
                [host.id.into()],
            ))
            .one(&tx)
            .await?;
        tx.commit().await?;
        Ok(Ok(()))
    }

    async fn host_rows(&self, hosts: Vec<host::Model>) -> Result<Vec<HostRow>, Error> {
        if hosts.is_empty() {
            return Ok(Vec::new());
        }
        let ids = super::json(&hosts.iter().map(|host| host.id).collect::<Vec<_>>())?;
        let text = format!(
            "SELECT h.id AS host_id,
               (SELECT count(*) FROM template_builds b WHERE {BUILDS_THERE}) AS builds,
               (SELECT count(*) FROM sandboxes s WHERE {SANDBOXES_THERE}) AS sandboxes,
               (SELECT count(*) FROM template_placements p
                WHERE p.host_id = h.id AND p.state = 'present') AS templates
             FROM hosts h WHERE h.id IN (SELECT value::uuid FROM jsonb_array_elements_text($1))"
        );
        let loads = Load::find_by_statement(sql(&text, [ids.into()])).all(&self.db).await?;
        let of = |host: &host::Model| {
            let load = loads.iter().find(|load| load.host_id == host.id).copied();
            load.unwrap_or(Load { host_id: host.id, ..Load::default() })
        };
        Ok(hosts.into_iter().map(|host| HostRow { load: of(&host), host }).collect())
    }
}

/// Templates that come with hosts do not count: deleting one of them is not ours to do.
async fn held(tx: &DatabaseTransaction, host: Uuid) -> Result<Vec<Held>, Error> {
    let text = format!(
        "(SELECT 'build' AS kind, b.id FROM template_builds b, hosts h WHERE h.id = $1 AND {BUILDS_THERE} LIMIT $2)
         UNION ALL
         (SELECT 'sandbox', s.id FROM sandboxes s, hosts h WHERE h.id = $1 AND {SANDBOXES_THERE} LIMIT $2)
         UNION ALL
         (SELECT 'template', t.id FROM template_placements p JOIN templates t ON t.id = p.template_id
          WHERE p.host_id = $1 AND p.state = 'present' AND t.deleted_at IS NULL
            AND t.provenance->>'origin' IS DISTINCT FROM 'host'
            AND NOT EXISTS (SELECT 1 FROM template_placements o
              WHERE o.template_id = t.id AND o.host_id <> $1 AND o.state = 'present')
          LIMIT $2)
         LIMIT $2"
    );
    let rows =
        HeldRow::find_by_statement(sql(&text, [host.into(), HELD_MAX.into()])).all(tx).await?;
    Ok(rows
        .into_iter()
        .map(|row| match row.kind.as_str() {
            "build" => Held::Build(BuildId::from_uuid(row.id)),
            "sandbox" => Held::Sandbox(SandboxId::from_uuid(row.id)),
            _ => Held::Template(TemplateId::from_uuid(row.id)),
        })
        .collect())
}
