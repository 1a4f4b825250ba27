//! Cancels that no runner ends, and cancelled builds of whose sandbox the host has not said that it is gone.
//!
//! A build that is being cancelled belongs to its runner for as long as the lease holds. After that the sandbox
//! is destroyed from here: under a fence above the last attempt, so that no call of a runner that was cut off
//! makes another one, and by the build's id, for a runner may have made one that nobody has heard of yet.
//!
//! While the host does not do it the build stays `cancelling`, its `reason` says why, and it is tried again at
//! each run. After `cancel_patience` the build is `cancelled` without `sandbox_destroyed_at`, which follows as
//! soon as the host answers.

use std::{collections::BTreeMap, sync::Arc};

use chrono::Utc;
use futures::{StreamExt as _, stream};
use ovenbird_agent_client::{Agent, Error as AgentError, Target};
use ovenbird_contract::{
    build::{Reason, ReasonCode},
    id::{HostId, SandboxId},
};
use ovenbird_db::store::{cancel::Place, finish::Ended};
use ovenbird_kit::telemetry::chain;

use super::{Error, HOSTS_AT_ONCE, LIMIT, Service, sum};

/// Builds of one host that are cleared at the same time. A sandbox that is just being saved takes long.
const BUILDS_AT_ONCE: usize = 8;

impl Service {
    /// Ends builds that are being cancelled and have no runner.
    ///
    /// # Errors
    /// [`Error::Store`]. A host that does not do its part is no error: the build says so.
    pub async fn cancels(&self) -> Result<usize, Error> {
        let left = self.store.build_list_cancel_left(LIMIT).await?;
        self.on_their_hosts(left, |host, place| self.cancel(host, place)).await
    }

    /// Notes the host's word of cancelled builds that are without it.
    ///
    /// # Errors
    /// [`Error::Store`] of the first build that failed; the others were handled.
    pub async fn proofs(&self) -> Result<usize, Error> {
        let unproven = self.store.build_list_unproven(LIMIT).await?;
        self.on_their_hosts(unproven, |host, place| self.prove(host, place)).await
    }

    /// Does `work` for every place, several at once; answers how many were handled.
    async fn on_their_hosts<W, F>(&self, places: Vec<Place>, work: W) -> Result<usize, Error>
    where
        W: Fn(Arc<Called>, Place) -> F,
        F: Future<Output = Result<bool, Error>>,
    {
        let Some(agents) = &self.agents else { return Ok(0) };
        let mut by_host: BTreeMap<HostId, (Agent, Vec<Place>)> = BTreeMap::new();
        for place in places {
            let target =
                Target { address: place.address.clone(), server_name: place.server_name.clone() };
            let agent = agents.at(&target)?;
            by_host.entry(place.host).or_insert_with(|| (agent, Vec::new())).1.push(place);
        }
        let work = &work;
        let hosts = by_host.into_values().map(|(agent, places)| async move {
            let host = Arc::new(Called::try_out(agent, places.len()).await);
            let each = stream::iter(places).map(|place| work(Arc::clone(&host), place));
            let done = each.buffer_unordered(BUILDS_AT_ONCE).collect::<Vec<_>>().await;
            sum(done.into_iter().map(|done| done.map(usize::from)))
        });
        sum(stream::iter(hosts).buffer_unordered(HOSTS_AT_ONCE).collect::<Vec<_>>().await)
    }

    async fn cancel(&self, host: Arc<Called>, place: Place) -> Result<bool, Error> {
        let without_proof = match host.clear(&place).await {
            Ok(()) => None,
            Err(error) => {
                let waited = (Utc::now() - place.asked_at).to_std().unwrap_or_default();
                if waited < self.times.cancel_patience {
                    let reason = waits(&place, &error);
                    tracing::info!(build.id = %place.build, error = chain(&*error), "the cancel waits");
                    self.store.build_cancel_waits(&place, &reason).await?;
                    return Ok(false);
                }
                tracing::warn!(build.id = %place.build, error = chain(&*error), "cancelled without proof");
                Some(gave_up(&place))
            }
        };
        match self.store.build_cancel_end(&place, without_proof.as_ref()).await? {
            Some(ended) => self.over(&ended).await.map(|_| true),
            // Another bridge was faster.
            None => Ok(false),
        }
    }

    async fn prove(&self, host: Arc<Called>, place: Place) -> Result<bool, Error> {
        if let Err(error) = host.clear(&place).await {
            tracing::info!(build.id = %place.build, error = chain(&*error), "no word of the host yet");
            return Ok(false);
        }
        self.store.build_sandbox_destroyed(place.build).await?;
        Ok(true)
    }

    /// Says everywhere that a build is over; answers whether its log did not say so before.
    pub(super) async fn over(&self, ended: &Ended) -> Result<bool, Error> {
        let is_new = self.log.end(ended, None).await;
        // After an error the end may be there, and would not be new the next time.
        if !matches!(is_new, Ok(false)) {
            self.states.tell(ended.build, ended.attempt, ended.status).await;
        }
        Ok(is_new?)
    }
}

/// A host, and whether it answers.
struct Called {
    agent: Agent,
    away: Option<Arc<AgentError>>,
}

impl Called {
    /// Asks a host once before it is asked `places` times: what one that is away costs in waiting, it must not cost
    /// for each build, since everybody's next run waits for this one.
    async fn try_out(agent: Agent, places: usize) -> Self {
        let away = match places {
            0 | 1 => None,
            _ => agent.get_host().await.err().map(Arc::new),
        };
        Self { agent, away }
    }

    async fn clear(&self, place: &Place) -> Result<(), Arc<AgentError>> {
        match &self.away {
            Some(error) => Err(Arc::clone(error)),
            None => clear(&self.agent, place).await.map_err(Arc::new),
        }
    }
}

/// Destroys every sandbox of a build that has no further attempt, and removes the template that it may have
/// written. `Ok` is the host's word: there is none, and there will be none.
async fn clear(agent: &Agent, place: &Place) -> Result<(), AgentError> {
    let build = place.build.to_string();
    let agent = agent.clone().fenced(&build, place.attempt.saturating_add(1));
    // Even when no sandbox is known: from this call on the host refuses those of the attempt itself.
    let known = place.sandbox.unwrap_or_else(SandboxId::new);
    agent.destroy_sandbox(&known.to_string()).await?;
    let sandboxes = agent.list_sandboxes().await?;
    for sandbox in sandboxes.iter().filter(|one| one.build_id.as_ref() == Some(&build)) {
        agent.destroy_sandbox(&sandbox.sandbox_id).await?;
    }
    // After the sandbox: a template that was just being written is whole by now, or gone.
    if let Some(template) = place.template {
        agent.delete_snapshot(&template.to_string()).await?;
    }
    Ok(())
}

fn waits(place: &Place, error: &AgentError) -> Reason {
    let message = match error {
        AgentError::Unreachable { .. } => format!(
            "Host {} does not answer; the sandbox is destroyed as soon as it does.",
            place.host
        ),
        error => format!(
            "Host {} has not destroyed the sandbox yet ({}); it is asked again.",
            place.host,
            error.message()
        ),
    };
    Reason { code: ReasonCode::HostLost, message, step: None, tail: None }
}

fn gave_up(place: &Place) -> Reason {
    let message = format!(
        "Host {} has not said that the sandbox is gone; it is destroyed as soon as the host answers.",
        place.host
    );
    Reason { code: ReasonCode::HostLost, message, step: None, tail: None }
}
