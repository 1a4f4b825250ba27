//! Connects to Postgres, Redis and NATS, and runs the services until the shutdown.
//!
//! Nothing has to be there at the start: every service waits for what it needs.

use std::{net::SocketAddr, time::Duration};

use async_nats::{Client, ConnectError, ConnectOptions, Event, jetstream};
use ovenbird_agent_client::{Agents, Config as AgentConfig, Deadlines};
use ovenbird_contract::{nats::Names, nats_access::Role, redis::Keys};
use ovenbird_db::Store;
use ovenbird_kit::{Secret, config::list, metrics, secret, telemetry::chain, tls};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    desk::{self, Desk},
    hosts, ledger,
    log::Log,
    metrics::{Metrics, watch},
    queue::Queue,
    relay,
    state::States,
    streams, sweep,
};

/// A request to NATS or JetStream without an answer for this long has failed.
const NATS_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two attempts to reach NATS at most.
const NATS_RECONNECT_MAX: Duration = Duration::from_secs(1);

/// A host has this long to destroy a sandbox before it is asked again.
const DESTROY_DEADLINE: Duration = Duration::from_secs(10);

/// The settings cannot be worked with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `database_url`.
    #[error("database_url cannot be used")]
    Database(#[from] ovenbird_db::Error),
    /// `redis_url`.
    #[error("redis_url cannot be used")]
    Redis(#[from] redis::RedisError),
    /// `nats_url`.
    #[error("nats_url cannot be used")]
    Nats(#[from] async_nats::ConnectError),
    /// `nats_nkey`.
    #[error("nats_nkey cannot be used")]
    Nkey(#[from] secret::Error),
    /// `nats_replicas`.
    #[error("nats_replicas is {0}: it must be from 1 to 5")]
    Replicas(usize),
    /// `database_ca`, `redis_ca` or `nats_ca`.
    #[error("an authority cannot be used")]
    Authority(#[source] tls::Error),
    /// `metrics_listen`.
    #[error("cannot listen on {address}: check metrics_listen")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A defect; whoever started the bridge starts it again.
    #[error("a service of the bridge failed")]
    ServiceFailed,
    /// `[tls]`.
    #[error("the [tls] section cannot be used")]
    Tls(#[from] tls::Error),
    /// Hosts without `[tls]`.
    #[error("there are [[hosts]] but no [tls] section")]
    TlsMissing,
}

/// A bridge that is ready to run.
pub struct Bridge {
    id: String,
    config: Config,
    store: Store,
    redis: redis::Client,
    queue: Queue,
    client: async_nats::Client,
    js: jetstream::Context,
    names: Names,
    agents: Option<Agents>,
    metrics: Metrics,
    metrics_listener: Option<TcpListener>,
}

impl Bridge {
    /// Reads TLS files and prepares the connections; they come up when they are used.
    ///
    /// # Errors
    /// [`Error`] names the setting that cannot be used.
    pub async fn new(config: Config) -> Result<Self, Error> {
        let id = uuid::Uuid::now_v7().simple().to_string();
        let agents = match &config.tls {
            Some(files) => Some(Agents::new(files, agent_config())?),
            None if config.hosts.is_empty() => None,
            None => return Err(Error::TlsMissing),
        };
        if !(1..=5).contains(&config.nats_replicas) {
            return Err(Error::Replicas(config.nats_replicas));
        }
        check_authorities(&config)?;
        let database = ovenbird_db::connect_over(
            config.database_url.expose(),
            config.database_ca.as_deref(),
            config.database_connections,
            "ovenbird-bridge",
        )
        .await?;
        let redis = redis_client(&config)?;
        let queue = Queue::new(&redis, Keys::new(&config.prefix))?;
        let mut options = ConnectOptions::new()
            .name(format!("ovenbird-bridge {id}"))
            .custom_inbox_prefix(Role::Bridge.inbox_prefix())
            .request_timeout(Some(NATS_TIMEOUT))
            .reconnect_delay_callback(|attempts| {
                let pause = Duration::from_millis(20)
                    .saturating_mul(u32::try_from(attempts).unwrap_or(u32::MAX));
                pause.min(NATS_RECONNECT_MAX)
            })
            .event_callback(|event| async move { tell(&event) });
        if let Some(ca) = &config.nats_ca {
            options = options.add_root_certificates(ca.clone()).require_tls(true);
        }
        if let Some(seed) = &config.nats_nkey {
            options = options.nkey(Secret::read(seed)?.expose().clone());
        }
        let client = connect(&config, options).await?;
        let js = jetstream::ContextBuilder::new()
            .timeout(NATS_TIMEOUT)
            .ack_timeout(NATS_TIMEOUT)
            .build(client.clone());
        let names = Names::new(&config.prefix);
        let store = Store::new(database).limited(config.key_builds_max);
        let metrics_listener = match config.metrics_listen {
            Some(address) => Some(
                TcpListener::bind(address)
                    .await
                    .map_err(|source| Error::Listen { address, source })?,
            ),
            None => None,
        };
        let metrics = Metrics::default();
        Ok(Self {
            id,
            config,
            store,
            redis,
            queue,
            client,
            js,
            names,
            agents,
            metrics,
            metrics_listener,
        })
    }

    /// Runs every service until `shutdown`, and waits for their ends.
    ///
    /// # Errors
    /// [`Error::ServiceFailed`] when a service ended before, which ends the others.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), Error> {
        let stop = shutdown.child_token();
        let mut services = JoinSet::new();
        if let Some(listener) = self.metrics_listener.take() {
            if let Ok(address) = listener.local_addr() {
                tracing::info!(%address, "metrics are served");
            }
            let registry = self.metrics.registry(self.store.clone());
            services.spawn(metrics::serve(listener, registry, stop.clone()));
            let (store, js, names) = (self.store.clone(), self.js.clone(), self.names.clone());
            let watch = watch::Service::new(self.metrics.clone(), store, js, names);
            services.spawn(watch.run(stop.clone()));
        }
        self.spawn_services(&mut services, &stop);
        let mut outcome = Ok(());
        while let Some(ended) = services.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a service of the bridge broke");
            } else if stop.is_cancelled() {
                continue;
            }
            outcome = Err(Error::ServiceFailed);
            stop.cancel();
        }
        if let Err(error) = self.client.drain().await {
            tracing::debug!(%error, "the NATS connection was gone already");
        }
        outcome
    }

    fn spawn_services(&self, services: &mut JoinSet<()>, stop: &CancellationToken) {
        let streams = streams::Handle::default();
        let log = Log::new(self.js.clone(), self.names.clone(), streams.clone());
        let states = States::new(self.js.clone(), self.names.clone());
        let config = &self.config;
        services.spawn(
            streams::Service::new(
                self.js.clone(),
                self.names.clone(),
                streams::Room {
                    replicas: config.nats_replicas,
                    contexts_bytes: config.contexts_bytes,
                },
                config.streams_interval,
                streams.clone(),
            )
            .run(stop.clone()),
        );
        let relay = relay::Service::new(
            self.id.clone(),
            relay::Parts {
                client: self.redis.clone(),
                queue: self.queue.clone(),
                store: self.store.clone(),
                js: self.js.clone(),
                names: self.names.clone(),
                streams: streams.clone(),
                metrics: self.metrics.clone(),
            },
            config.relay_batch,
        );
        let (made, token) = (streams.clone(), stop.clone());
        services.spawn(async move {
            if made.made(&token).await {
                relay.run(token).await;
            }
        });
        let desk = Desk {
            store: self.store.clone(),
            log: log.clone(),
            queue: self.queue.clone(),
            states: states.clone(),
            lease: config.lease,
            finish_wait: config.finish_wait,
            attempts_max: config.attempts_max,
            build_time_max: config.build_time_max,
            log_caps: config.log_caps(),
            metrics: self.metrics.clone(),
        };
        services.spawn(
            desk::Service::new(desk, self.client.clone(), self.names.clone(), config.desk_requests)
                .run(stop.clone()),
        );
        let ledger = ledger::Service::new(
            self.store.clone(),
            self.js.clone(),
            self.names.clone(),
            streams.clone(),
            self.metrics.clone(),
        );
        let (made, token) = (streams, stop.clone());
        services.spawn(async move {
            if made.made(&token).await {
                ledger.run(token).await;
            }
        });
        services.spawn(self.sweep(log, states).run(stop.clone()));
        if let Some(agents) = self.agents.clone() {
            services.spawn(
                hosts::Service::new(
                    self.store.clone(),
                    agents,
                    config.hosts.clone(),
                    config.hosts_interval,
                )
                .run(stop.clone()),
            );
        }
    }

    fn sweep(&self, log: Log, states: States) -> sweep::Service {
        sweep::Service {
            store: self.store.clone(),
            queue: self.queue.clone(),
            log,
            states,
            agents: self.agents.clone(),
            client: self.client.clone(),
            js: self.js.clone(),
            names: self.names.clone(),
            attempts_max: self.config.attempts_max,
            build_time_max: self.config.build_time_max,
            times: sweep::Times {
                interval: self.config.sweep_interval,
                lease: self.config.lease,
                leases_interval: leases_interval(self.config.lease),
                orphans_interval: self.config.orphans_interval,
                orphan_grace: self.config.orphan_grace,
                cancel_patience: self.config.cancel_patience,
                push_after: self.config.push_after,
                job_settled: self.config.job_settled,
                job_fallback: self.config.job_fallback,
                audit_kept: self.config.audit_kept,
                contexts_kept: self.config.contexts_kept,
            },
            metrics: self.metrics.clone(),
        }
    }
}

/// A file that is not usable would otherwise only show in warnings, again and again.
fn check_authorities(config: &Config) -> Result<(), Error> {
    let files = [
        ("database_ca", &config.database_ca),
        ("redis_ca", &config.redis_ca),
        ("nats_ca", &config.nats_ca),
    ];
    for (key, file) in files {
        if let Some(file) = file {
            tls::authority(key, file).map_err(Error::Authority)?;
        }
    }
    Ok(())
}

fn redis_client(config: &Config) -> Result<redis::Client, Error> {
    let url = config.redis_url.expose().as_str();
    let Some(ca) = &config.redis_ca else { return Ok(redis::Client::open(url)?) };
    let root_cert = Some(tls::authority("redis_ca", ca).map_err(Error::Authority)?);
    let authorities = redis::TlsCertificates { client_tls: None, root_cert };
    Ok(redis::Client::build_with_tls(url, authorities)?)
}

/// Connects to NATS, now or as soon as it is there.
async fn connect(config: &Config, options: ConnectOptions) -> Result<Client, ConnectError> {
    let servers = list(config.nats_url.expose());
    if config.nats_ca.is_some() {
        // Only the first try says what is wrong with a certificate; those in the background do not.
        match options.clone().connect(&servers[..]).await {
            Ok(client) => return Ok(client),
            Err(error) => tracing::warn!(error = chain(&error), "NATS is not connected yet"),
        }
    }
    options.retry_on_initial_connect().connect(&servers[..]).await
}

/// What cannot be connected to is worth a warning: the address may be wrong, or the certificate.
fn tell(event: &Event) {
    match event {
        Event::ClientError(error) => tracing::warn!(%error, "NATS connection"),
        Event::ServerError(error) => tracing::warn!(%error, "NATS connection"),
        event => tracing::info!(%event, "NATS connection"),
    }
}

/// A question that failed is asked again soon; the client need not repeat it. Nor does anybody wait long for a
/// sandbox that cannot be destroyed yet: the agent goes on with it, and other builds wait for this one.
fn agent_config() -> AgentConfig {
    let deadlines = Deadlines { destroy: DESTROY_DEADLINE, ..Deadlines::default() };
    AgentConfig { attempts: 1, deadlines, ..AgentConfig::default() }
}

/// A build whose runner died waits for a tenth of the lease more at most, within reason.
fn leases_interval(lease: Duration) -> Duration {
    (lease / 10).clamp(Duration::from_millis(100), Duration::from_secs(2))
}
