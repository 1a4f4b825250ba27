//! Asks every agent for its state, and notes the answers: who is there, what it may promise, which templates it
//! holds. Every bridge does; the answers of several are the same.
//!
//! This is the hosts' heartbeat: an agent knows nobody to send one to, needs neither NATS nor Redis, and is asked on
//! the way on which it is called for builds, too. Whom to ask stands in Postgres, where agents register, and in the
//! configuration, for those that do not.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

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
/// It is looked this often, at most, for hosts that have registered.
const REGISTERED_INTERVAL: Duration = Duration::from_millis(500);
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

/// Whom to ask, and by what it is known.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Asked {
    /// Of a host that registered; one of the configuration is known by its address.
    id: Option<HostId>,
    address: String,
    server_name: String,
}

/// The service.
pub struct Service {
    store: Store,
    agents: Agents,
    hosts: Vec<Host>,
    interval: Duration,
}

impl Service {
    /// Asks each of `hosts`, and each that has registered, every `interval`.
    pub fn new(store: Store, agents: Agents, hosts: Vec<Host>, interval: Duration) -> Self {
        Self { store, agents, hosts, interval }
    }

    /// Runs until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let this = Arc::new(self);
        let mut tasks = JoinSet::new();
        let follow = |tasks: &mut JoinSet<()>, host: Asked, stop: CancellationToken| {
            let this = Arc::clone(&this);
            tasks.spawn(async move {
                stop.run_until_cancelled(this.follow(host, &stop)).await;
            });
        };
        let told = |ended: Result<(), tokio::task::JoinError>| {
            if let Err(error) = ended {
                tracing::error!(%error, "a host is not asked any more");
            }
        };
        for Host { address, server_name } in this.hosts.clone() {
            follow(&mut tasks, Asked { id: None, address, server_name }, shutdown.clone());
        }
        let mut followed = HashMap::<Asked, CancellationToken>::new();
        let mut is_told = false;
        loop {
            match this.registered().await {
                Ok(registered) => {
                    // One that was deleted, or registered again elsewhere, is not asked as before.
                    followed.retain(|host, stop| {
                        let stays = registered.contains(host);
                        if !stays {
                            stop.cancel();
                        }
                        stays
                    });
                    for host in registered {
                        followed.entry(host).or_insert_with_key(|host| {
                            let stop = shutdown.child_token();
                            follow(&mut tasks, host.clone(), stop.clone());
                            stop
                        });
                    }
                    is_told = false;
                }
                Err(error) => {
                    if !is_told {
                        let error = chain(&error);
                        tracing::warn!(error, "it is not known which hosts have registered");
                    }
                    is_told = true;
                }
            }
            if !sleep(REGISTERED_INTERVAL.min(this.interval), &shutdown).await {
                break;
            }
            while let Some(ended) = tasks.try_join_next() {
                told(ended);
            }
        }
        while let Some(ended) = tasks.join_next().await {
            told(ended);
        }
    }

    async fn registered(&self) -> Result<HashSet<Asked>, store::Error> {
        let hosts = self.store.host_registered().await?.into_iter();
        let asked = hosts.map(|host| Asked {
            id: Some(HostId::from_uuid(host.id)),
            address: host.address,
            server_name: host.server_name,
        });
        Ok(asked.collect())
    }

    async fn follow(&self, host: Asked, shutdown: &CancellationToken) {
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
                            "host was deleted, or registered by itself, and is left alone: take it out of the \
                             configuration, or undrain it"
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

    /// Asks the host and notes its answer, unless the configuration is not to be followed: then its id comes back.
    async fn ask(&self, host: &Asked) -> Result<Option<HostId>, Error> {
        if host.id.is_none()
            && let Some(alone) = self.store.host_left_alone(&host.address).await?
        {
            return Ok(Some(alone));
        }
        let target =
            Target { address: host.address.clone(), server_name: host.server_name.clone() };
        let asked = Instant::now();
        let info = self.agents.at(&target)?.get_host().await?;
        let report = report(host, info);
        match host.id {
            None => drop(self.store.host_report(&report, asked.elapsed()).await?),
            // One that is gone is not asked again.
            Some(id) => drop(self.store.host_report_of(id, &report, asked.elapsed()).await?),
        }
        Ok(None)
    }

    async fn missed(&self, host: &Asked, missed: u32, error: &Error) {
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

fn report(host: &Asked, info: HostInfo) -> Report {
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
