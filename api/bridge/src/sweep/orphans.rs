//! What stands on hosts and belongs to nobody: sandboxes of builds that are over or went on elsewhere, templates
//! that were written and never published, and templates that were deleted while their host was away.
//!
//! A host belongs to one installation: what bears the form of our ids and is in none of our rows is an orphan.
//! Each host is asked first and Postgres after it, so that what is made in between is in neither answer. Things
//! younger than `orphan_grace` are left alone all the same.

use std::{collections::HashMap, time::Duration};

use chrono::Utc;
use futures::{StreamExt as _, stream};
use ovenbird_agent_client::{Agent, SandboxInfo, Target};
use ovenbird_contract::id::{BuildId, HostId, SandboxId, TemplateId};
use ovenbird_db::{entity::host, store::orphan::Owner};
use ovenbird_kit::telemetry::chain;
use tokio::time::Instant;

use super::{Error, HOSTS_AT_ONCE, Service, sum};

/// Sandboxes of one host that are destroyed at the same time.
const SANDBOXES_AT_ONCE: usize = 8;

impl Service {
    /// Destroys sandboxes of builds that do not need them any more, and makes rows and hosts agree about users'.
    ///
    /// # Errors
    /// [`Error`] of the first host that failed; the others were handled.
    pub async fn sandboxes(&self) -> Result<usize, Error> {
        self.on_every_host(|agent, host| self.sandboxes_on(agent, host)).await
    }

    /// Removes templates that are in no catalogue.
    ///
    /// # Errors
    /// [`Error`] of the first host that failed; the others were handled.
    pub async fn templates(&self) -> Result<usize, Error> {
        self.on_every_host(|agent, host| self.templates_on(agent, host)).await
    }

    /// Does `work` on every host that answers, several at once.
    async fn on_every_host<W, F>(&self, work: W) -> Result<usize, Error>
    where
        W: Fn(Agent, HostId) -> F,
        F: Future<Output = Result<usize, Error>>,
    {
        let Some(agents) = &self.agents else { return Ok(0) };
        let hosts = self.store.host_list().await?;
        let hosts = hosts.into_iter().filter(answers).map(|host| {
            let target = Target { address: host.address, server_name: host.server_name };
            Ok((agents.at(&target)?, HostId::from_uuid(host.id)))
        });
        let hosts = hosts.collect::<Result<Vec<_>, Error>>()?;
        let each = stream::iter(hosts).map(|(agent, host)| work(agent, host));
        sum(each.buffer_unordered(HOSTS_AT_ONCE).collect::<Vec<_>>().await)
    }

    async fn sandboxes_on(&self, agent: Agent, host: HostId) -> Result<usize, Error> {
        let asked = Instant::now();
        let listed = agent.list_sandboxes().await?;
        let of_users = self.users_sandboxes(&agent, host, &listed, asked).await;
        Ok(self.builds_sandboxes(&agent, host, &listed).await? + of_users?)
    }

    async fn builds_sandboxes(
        &self,
        agent: &Agent,
        host: HostId,
        listed: &[SandboxInfo],
    ) -> Result<usize, Error> {
        let of_builds: Vec<_> = listed.iter().filter_map(of_a_build).collect();
        let mut builds: Vec<BuildId> = of_builds.iter().map(|(build, _)| *build).collect();
        builds.sort();
        builds.dedup();
        let owners = self.store.build_owners(&builds).await?;
        let owners: HashMap<_, _> = owners.into_iter().map(|owner| (owner.build, owner)).collect();
        let young = young_from(self.times.orphan_grace);
        let mut ends = Vec::new();
        for (info, (build, sandbox)) in
            listed.iter().filter_map(|info| Some((info, of_a_build(info)?)))
        {
            let owner = owners.get(&build);
            let is_kept = owner.is_some_and(|owner| owner.keeps(host, sandbox));
            if is_kept || info.created_at_unix > young {
                continue;
            }
            tracing::warn!(
                build.id = %build, sandbox.id = %sandbox, host.id = %host,
                status = owner.map(|owner| owner.status.as_str()),
                "sandbox belongs to no build any more"
            );
            let agent = as_its_owner(agent, owner);
            ends.push(async move {
                let ended = agent.destroy_sandbox(&info.sandbox_id).await;
                if let Err(error) = &ended {
                    tracing::warn!(sandbox.id = %sandbox, error = chain(error), "not destroyed");
                }
                usize::from(ended.is_ok())
            });
        }
        let ended = stream::iter(ends).buffer_unordered(SANDBOXES_AT_ONCE).collect::<Vec<_>>();
        Ok(ended.await.into_iter().sum())
    }

    async fn templates_on(&self, agent: Agent, host: HostId) -> Result<usize, Error> {
        let held = agent.get_host().await?.templates;
        let young = young_from(self.times.orphan_grace);
        // The id was made when the attempt that writes it began.
        let old = |id: &TemplateId| {
            let (seconds, _) = id.uuid().get_timestamp().map_or((0, 0), |at| at.to_unix());
            i64::try_from(seconds).unwrap_or(i64::MAX) <= young
        };
        let held: Vec<TemplateId> = held.iter().filter_map(|held| held.name.parse().ok()).collect();
        let (there, gone): (Vec<_>, Vec<_>) = self
            .store
            .template_list_deleting(host)
            .await?
            .into_iter()
            .partition(|template| held.contains(template));
        for template in gone {
            self.store.template_removed(host, template).await?;
        }
        // What somebody deleted is no doubt to go, however young it is.
        let mut unwanted = there;
        let old: Vec<TemplateId> =
            held.into_iter().filter(|id| old(id) && !unwanted.contains(id)).collect();
        for template in self.store.template_orphans(&old).await? {
            tracing::warn!(template.id = %template, host.id = %host, "template is in no catalogue");
            unwanted.push(template);
        }
        let mut removed = 0;
        for template in unwanted {
            match agent.delete_snapshot(&template.to_string()).await {
                Ok(()) => {
                    self.store.template_removed(host, template).await?;
                    removed += 1;
                }
                Err(error) => {
                    tracing::warn!(template.id = %template, error = chain(&error), "not removed");
                }
            }
        }
        Ok(removed)
    }
}

fn answers(host: &host::Model) -> bool {
    matches!(host.status.as_str(), "online" | "draining")
}

/// The build and id of a sandbox that a runner of ours made.
fn of_a_build(info: &SandboxInfo) -> Option<(BuildId, SandboxId)> {
    let build = info.build_id.as_ref()?.parse().ok()?;
    Some((build, info.sandbox_id.parse().ok()?))
}

/// Called for its build, so that an attempt which began after the rows were read is not disturbed, and so that
/// no attempt makes another one once the build is over.
fn as_its_owner(agent: &Agent, owner: Option<&Owner>) -> Agent {
    let Some(owner) = owner else { return agent.clone() };
    let attempt = owner.attempt.saturating_add(u32::from(owner.status.is_terminal()));
    agent.clone().fenced(owner.build.to_string(), attempt)
}

/// Unix seconds: what was made after that is young.
pub(super) fn young_from(grace: Duration) -> i64 {
    Utc::now().timestamp().saturating_sub(i64::try_from(grace.as_secs()).unwrap_or(i64::MAX))
}
