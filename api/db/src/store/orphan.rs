//! What stands on a host and belongs to nobody: the sweep asks here before it removes anything.
//!
//! A host is asked first, and the rows after it: whatever a build is about to make is not in the host's
//! answer, and whatever it has made by then belongs to the build in the rows.

use ovenbird_contract::{
    build::Status,
    id::{BuildId, HostId, SandboxId, TemplateId},
};
use sea_orm::{ConnectionTrait, FromQueryResult};
use uuid::Uuid;

use super::{Error, Store, corrupt, json, sql};

/// What a build says about its sandboxes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The build.
    pub build: BuildId,
    /// Its present or last attempt.
    pub attempt: u32,
    /// Where it stands.
    pub status: Status,
    /// Where it runs or ran last.
    pub host: Option<HostId>,
    /// Its newest sandbox, as far as it is known. Ids of one build's sandboxes grow with time.
    pub sandbox: Option<SandboxId>,
}

impl Owner {
    /// Whether `sandbox` on `host` may still be of use: the build is not over, runs there or goes on there,
    /// and has no newer sandbox.
    pub fn keeps(&self, host: HostId, sandbox: SandboxId) -> bool {
        !self.status.is_terminal()
            && self.host == Some(host)
            && self.sandbox.is_none_or(|newest| sandbox >= newest)
    }
}

#[derive(Debug, FromQueryResult)]
struct Row {
    id: Uuid,
    attempt: i32,
    status: String,
    host_id: Option<Uuid>,
    sandbox_id: Option<Uuid>,
}

#[derive(Debug, FromQueryResult)]
struct Id {
    id: Uuid,
}

impl Store {
    /// Those of `builds` that exist.
    ///
    /// # Errors
    /// [`Error::Database`], [`Error::Corrupt`].
    pub async fn build_owners(&self, builds: &[BuildId]) -> Result<Vec<Owner>, Error> {
        if builds.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<Uuid> = builds.iter().map(|id| id.uuid()).collect();
        let rows = Row::find_by_statement(sql(
            "SELECT id, attempt, status, host_id, sandbox_id FROM template_builds
             WHERE id IN (SELECT value::uuid FROM jsonb_array_elements_text($1))",
            [json(&ids)?.into()],
        ))
        .all(&self.db)
        .await?;
        rows.into_iter()
            .map(|row| {
                Ok(Owner {
                    build: BuildId::from_uuid(row.id),
                    attempt: u32::try_from(row.attempt).unwrap_or(0),
                    status: row.status.parse().map_err(corrupt("template_builds", "status"))?,
                    host: row.host_id.map(HostId::from_uuid),
                    sandbox: row.sandbox_id.map(SandboxId::from_uuid),
                })
            })
            .collect()
    }

    /// Those of `held` that are in no catalogue, or deleted from it, and that no build which is not over, and no
    /// sandbox that is being saved, is about to publish. One statement: a publication is seen as done or as not begun.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn template_orphans(&self, held: &[TemplateId]) -> Result<Vec<TemplateId>, Error> {
        if held.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<Uuid> = held.iter().map(|id| id.uuid()).collect();
        let rows = Id::find_by_statement(sql(
            "SELECT held.id FROM (SELECT value::uuid AS id FROM jsonb_array_elements_text($1)) held
             LEFT JOIN templates t ON t.id = held.id
             WHERE (t.id IS NULL OR t.deleted_at IS NOT NULL)
               AND NOT EXISTS (
                 SELECT 1 FROM template_builds b
                 WHERE b.planned_template_id = held.id AND b.status IN ('queued', 'running', 'cancelling'))
               AND NOT EXISTS (
                 SELECT 1 FROM sandboxes s WHERE s.snapshot_id = held.id AND s.status = 'saving')",
            [json(&ids)?.into()],
        ))
        .all(&self.db)
        .await?;
        Ok(rows.into_iter().map(|row| TemplateId::from_uuid(row.id)).collect())
    }

    /// Templates that were deleted and are to go from `host`.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn template_list_deleting(&self, host: HostId) -> Result<Vec<TemplateId>, Error> {
        let rows = Id::find_by_statement(sql(
            "SELECT template_id AS id FROM template_placements WHERE host_id = $1 AND state = 'deleting'",
            [host.uuid().into()],
        ))
        .all(&self.db)
        .await?;
        Ok(rows.into_iter().map(|row| TemplateId::from_uuid(row.id)).collect())
    }

    /// Notes that `host` holds `template` no more.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn template_removed(&self, host: HostId, template: TemplateId) -> Result<(), Error> {
        self.db
            .execute_raw(sql(
                "DELETE FROM template_placements WHERE host_id = $1 AND template_id = $2",
                [host.uuid().into(), template.uuid().into()],
            ))
            .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_build_that_goes_on_there_keeps_a_sandbox_and_only_its_newest() {
        let (host, other) = (HostId::new(), HostId::new());
        let [old, new] = [1, 2].map(|n| SandboxId::from_uuid(Uuid::from_u128(n)));
        let owner = |status, host, sandbox| Owner {
            build: BuildId::new(),
            attempt: 2,
            status,
            host: Some(host),
            sandbox,
        };
        for status in Status::ALL {
            let over = status.is_terminal();
            assert_eq!(owner(status, host, None).keeps(host, old), !over, "{status}");
            assert_eq!(owner(status, host, Some(new)).keeps(host, new), !over, "{status}");
            assert!(!owner(status, host, Some(new)).keeps(host, old), "{status}");
            assert!(!owner(status, other, None).keeps(host, new), "{status}");
            // The events of the newer sandbox are not applied yet.
            assert_eq!(owner(status, host, Some(old)).keeps(host, new), !over, "{status}");
        }
    }
}
