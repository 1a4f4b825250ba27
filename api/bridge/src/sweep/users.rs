//! Sandboxes that users started: their rows and their host are made to agree.
//!
//! The host was asked first. A row that was written since, or on which somebody works, is left alone: what the host said
//! may be older. Whatever else differs is either the host's word (it paused one for being idle, one turned itself off)
//! and goes into the row, or the row's (it is to be destroyed, or whoever was making it is gone) and goes to the host.
//!
//! This is the one place that writes what happened to a sandbox by itself.

use futures::{StreamExt as _, stream};
use ovenbird_agent_client::{Agent, SandboxInfo};
use ovenbird_contract::{
    id::{HostId, SandboxId, TemplateId},
    sandbox::{Event, ReasonCode, Seen, Settlement},
};
use ovenbird_db::{
    entity::sandbox::Model as Row,
    store::{
        sandbox::status,
        sandbox_state::{Begun, Intent, Word},
    },
};
use ovenbird_kit::telemetry::chain;
use tokio::time::{Duration, Instant};

use super::{Error, Service, orphans::young_from, sum};

/// Sandboxes of one host that are looked after at the same time.
const AT_ONCE: usize = 8;
/// How long a removal may take.
const BUSY_DESTROY: Duration = Duration::from_secs(90);
/// The attempt that destroys a sandbox: its creation is refused from then on.
const DESTROY_ATTEMPT: u32 = 2;

impl Service {
    /// Compares the sandboxes that `host` listed when it was `asked` with their rows; answers how many differed.
    pub(super) async fn users_sandboxes(
        &self,
        agent: &Agent,
        host: HostId,
        listed: &[SandboxInfo],
        asked: Instant,
    ) -> Result<usize, Error> {
        let on_host: Vec<(SandboxId, &SandboxInfo)> =
            listed.iter().filter_map(|info| Some((of_a_user(info)?, info))).collect();
        let ids: Vec<SandboxId> = on_host.iter().map(|(id, _)| *id).collect();
        // Before anything is ended here: what is ended need not be removed twice.
        let known = self.store.sandbox_list_known(host, &ids).await?;
        let rows = self.store.sandbox_list_settled(host, asked.elapsed()).await?;
        let seen = |row: &Row| {
            let found = on_host.iter().find(|(id, _)| id.uuid() == row.id);
            found.map_or(Seen::Absent, |(_, info)| Seen::of(&info.status))
        };
        let settled = stream::iter(rows).map(|row| {
            let (id, seen) = (SandboxId::from_uuid(row.id), seen(&row));
            async move {
                let settled = self.settle(agent, row, seen).await;
                if let Err(error) = &settled {
                    tracing::warn!(sandbox.id = %id, error = chain(error), "not settled; tried again");
                }
                settled.map(usize::from)
            }
        });
        let settled = sum(settled.buffer_unordered(AT_ONCE).collect::<Vec<_>>().await);
        let used: Vec<_> =
            on_host.iter().map(|(id, info)| (*id, info.last_active_at_unix)).collect();
        self.store.sandbox_used(&used).await?;
        Ok(settled? + self.remove_unknown(agent, host, &on_host, &known).await)
    }

    /// Returns whether anything was to be done.
    async fn settle(&self, agent: &Agent, row: Row, seen: Seen) -> Result<bool, Error> {
        match status(&row)?.settle(seen) {
            Settlement::Keep => Ok(false),
            Settlement::Apply(event) => self.apply(&row, event).await,
            Settlement::Remove => self.remove(agent, row).await,
            Settlement::GiveUp(code) => self.give_up(agent, row, code).await,
            Settlement::LookForTemplate => self.look_for_template(agent, row).await,
        }
    }

    async fn apply(&self, row: &Row, event: Event) -> Result<bool, Error> {
        let told = self.store.sandbox_told(row, &Word::of(event)).await?;
        if let Some(now) = &told {
            let id = SandboxId::from_uuid(row.id);
            tracing::info!(sandbox.id = %id, was = row.status, status = now.status, "by its host's word");
        }
        Ok(told.is_some())
    }

    async fn give_up(&self, agent: &Agent, row: Row, code: ReasonCode) -> Result<bool, Error> {
        let id = SandboxId::from_uuid(row.id);
        let intent = Intent::Destroy { reason: Some(code.reason()) };
        let begun = self.store.sandbox_begin(id, &intent, Some(row.revision), BUSY_DESTROY).await?;
        let Begun::Row(row) = begun else { return Ok(false) };
        tracing::warn!(sandbox.id = %id, reason = code.reason().message, "sandbox is given up");
        self.remove(agent, *row).await
    }

    async fn remove(&self, agent: &Agent, row: Row) -> Result<bool, Error> {
        let id = SandboxId::from_uuid(row.id).to_string();
        agent.clone().fenced(&id, DESTROY_ATTEMPT).destroy_sandbox(&id).await?;
        Ok(self.store.sandbox_told(&row, &Word::removed(&row)).await?.is_some())
    }

    /// A sandbox that was being saved and is gone is its template, or nothing.
    async fn look_for_template(&self, agent: &Agent, row: Row) -> Result<bool, Error> {
        let name = row.snapshot_id.map(|id| TemplateId::from_uuid(id).to_string());
        let held = agent.get_host().await?.templates;
        match held.into_iter().find(|held| Some(&held.name) == name.as_ref()) {
            Some(held) => Ok(self.store.sandbox_saved(&row, held.size_bytes).await?.is_some()),
            None => self.give_up(agent, row, ReasonCode::SaveFailed).await,
        }
    }

    /// Destroys what bears a user's mark and is in no row that lives.
    async fn remove_unknown(
        &self,
        agent: &Agent,
        host: HostId,
        on_host: &[(SandboxId, &SandboxInfo)],
        known: &[SandboxId],
    ) -> usize {
        let young = young_from(self.times.orphan_grace);
        let unknown = on_host
            .iter()
            .filter(|(id, info)| !known.contains(id) && info.created_at_unix <= young);
        let mut removed = 0;
        for (id, info) in unknown {
            tracing::warn!(sandbox.id = %id, host.id = %host, "sandbox is in no row");
            let id = &info.sandbox_id;
            match agent.clone().fenced(id, DESTROY_ATTEMPT).destroy_sandbox(id).await {
                Ok(()) => removed += 1,
                Err(error) => {
                    tracing::warn!(sandbox.id = id, error = chain(&error), "not destroyed")
                }
            }
        }
        removed
    }
}

/// A sandbox that belongs to no build bears its own id as the name of its fence.
fn of_a_user(info: &SandboxInfo) -> Option<SandboxId> {
    let is_own = info.build_id.as_ref() == Some(&info.sandbox_id);
    if is_own { info.sandbox_id.parse().ok() } else { None }
}
