//! Asks every configured agent for its state, and notes the answers: who is there, what it may promise,
//! which templates it holds. Every bridge does; the answers of several are the same.

use std::{sync::Arc, time::Duration};

use ovenbird_agent_client::{Agents, HostInfo, Target};
use ovenbird_contract::{desk::TemplateKind, id::HostId};
use ovenbird_db::{
    Store,
    store::{
        self,
        host::{Allocated, Capacity, Held, Report, Versions},
    },
};
use ovenbird_kit::telemetry::chain;
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{config::Host, pace::sleep};

/// Until a host has answered once, it is asked this often: a build may wait for it.
const FIRST_INTERVAL: Duration = Duration::from_millis(200);
/// A host that stopped answering is asked this often.
const AWAY_INTERVAL: Duration = Duration::from_secs(1);
/// One question and its note: a connection that died without a word has no other end. The call itself has less.
const ASK_MAX: Duration = Duration::from_secs(60);
/// This many questions without an answer make a host unreachable.
const MISSED_MAX: u32 = 2;

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the host does not answer")]
    Agent(#[from] ovenbird_agent_client::Error),
    #[error("its answer is not noted")]
    Store(#[from] store::Error),
    #[error("nothing was heard within {ASK_MAX:?}")]
    TimedOut,
}

/// The service.
pub struct Service {
    store: Store,
    agents: Agents,
    hosts: Vec<Host>,
    interval: Duration,
}

impl Service {
    /// Asks each of `hosts` every `interval`.
    pub fn new(store: Store, agents: Agents, hosts: Vec<Host>, interval: Duration) -> Self {
        Self { store, agents, hosts, interval }
    }

    /// Runs until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let this = Arc::new(self);
        let mut tasks = JoinSet::new();
        for host in this.hosts.clone() {
            let (this, shutdown) = (Arc::clone(&this), shutdown.clone());
            tasks.spawn(async move {
                shutdown.run_until_cancelled(this.follow(host, &shutdown)).await;
            });
        }
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a host is not asked any more");
            }
        }
    }

    async fn follow(&self, host: Host, shutdown: &CancellationToken) {
        let mut known = false;
        let mut missed = 0u32;
        let mut is_told = false;
        loop {
            let asked = tokio::time::timeout(ASK_MAX, self.ask(&host)).await;
            let pause = match asked.unwrap_or(Err(Error::TimedOut)) {
                Ok(Some(deleted)) => {
                    if !is_told {
                        tracing::warn!(
                            host.id = %deleted,
                            host.address = host.address,
                            "host was deleted and is left alone: take it out of the configuration, or undrain it"
                        );
                    }
                    (is_told, known) = (true, false);
                    self.interval
                }
                Ok(None) => {
                    is_told = false;
                    if !known || missed >= MISSED_MAX {
                        tracing::info!(host.address = host.address, "host is online");
                    }
                    known = true;
                    missed = 0;
                    self.interval
                }
                Err(error) => {
                    // A Postgres that is away says nothing about the host.
                    missed = missed.saturating_add(u32::from(matches!(error, Error::Agent(_))));
                    self.missed(&host, missed, &error).await;
                    if known { AWAY_INTERVAL.min(self.interval) } else { FIRST_INTERVAL }
                }
            };
            if !sleep(pause, shutdown).await {
                return;
            }
        }
    }

    /// Asks the host and notes its answer, unless somebody deleted it: then its id comes back.
    async fn ask(&self, host: &Host) -> Result<Option<HostId>, Error> {
        if let Some(deleted) = self.store.host_deleted(&host.address).await? {
            return Ok(Some(deleted));
        }
        let target =
            Target { address: host.address.clone(), server_name: host.server_name.clone() };
        let asked = Instant::now();
        let info = self.agents.at(&target)?.get_host().await?;
        self.store.host_report(&report(host, info), asked.elapsed()).await?;
        Ok(None)
    }

    async fn missed(&self, host: &Host, missed: u32, error: &Error) {
        if missed < MISSED_MAX {
            return;
        }
        if missed == MISSED_MAX {
            tracing::warn!(
                host.address = host.address,
                error = chain(error),
                "host is unreachable"
            );
        }
        // Again each time: Postgres may have been away, or another bridge may have heard the host before.
        if let Err(error) = self.store.host_unreachable(&host.address).await {
            tracing::warn!(host.address = host.address, error = chain(&error), "not noted");
        }
    }
}

fn report(host: &Host, info: HostInfo) -> Report {
    Report {
        address: host.address.clone(),
        server_name: host.server_name.clone(),
        capacity: Capacity {
            vcpus: info.vcpus,
            memory_mb: info.memory_mb,
            max_sandbox_vcpus: info.max_sandbox_vcpus,
            max_sandbox_memory_mb: info.max_sandbox_memory_mb,
            disk_free_bytes: info.disk_free_bytes,
        },
        allocated: Allocated {
            vcpus: info.allocated_vcpus,
            memory_mb: info.allocated_memory_mb,
            sandboxes: info.sandboxes,
        },
        versions: Versions {
            agent: info.version,
            qemu: info.qemu_version,
            kernel: info.kernel,
            accelerator: info.accelerator,
            accelerator_reason: info.accelerator_reason,
            storage: info.storage_driver,
        },
        templates: info
            .templates
            .into_iter()
            .filter_map(|held| {
                let kind = match held.kind.as_str() {
                    "image" => TemplateKind::Image,
                    "snapshot" => TemplateKind::Snapshot,
                    other => {
                        tracing::warn!(template = held.name, kind = other, "unknown kind; ignored");
                        return None;
                    }
                };
                Some(Held { host_name: held.name, kind, size_bytes: held.size_bytes })
            })
            .collect(),
    }
}
