//! The whole runner: a connection, the slots, and the way they end.
//!
//! SIGTERM: nothing is fetched any more. Builds that run go on for the configured `drain`; one that ends in
//! this time ends as usual, every other is handed over: its command runs on in its sandbox, the build goes back to
//! the queue, and the next runner follows the command where this one stopped. Whatever hangs then is left
//! behind after `exit_within`: its lease ends, and the sweep takes care.

use std::{net::SocketAddr, sync::Arc};

use async_nats::{Client, ConnectError, ConnectOptions, Event, jetstream};
use ovenbird_agent_client::Agents;
use ovenbird_contract::{
    id::RunnerId,
    nats::{LANES, Names},
    nats_access::Role,
};
use ovenbird_kit::{Secret, config::list, metrics, secret, telemetry::chain, tls};
use tokio::{
    net::TcpListener,
    sync::watch,
    task::JoinSet,
    time::{Duration, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    attempt::Shared,
    config::Config,
    context::Contexts,
    desk::Desk,
    metrics::Metrics,
    pod,
    queue::{Queue, Verdict},
    worker::Worker,
};

const PING_EVERY: Duration = Duration::from_secs(10);
/// A publish whose ack does not come is sent again after this long.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);
/// A slot whose job had no host asks for the next one after this. Long enough that jobs without a host do not keep the
/// desk busy, and no longer: behind them may be one that has a host.
const NO_ROOM_PAUSE: Duration = Duration::from_millis(100);
/// A flush waits for a connection for as long as there is none. It has this much of `exit_within`, and never more than
/// a fifth of it.
const LAST_FLUSH: Duration = Duration::from_secs(1);

/// Why the runner cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The TLS files are not usable.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// `nats_nkey`.
    #[error("nats_nkey cannot be used")]
    Nkey(#[from] secret::Error),
    /// `lanes`.
    #[error("lanes must name at least one of {}, each once", LANES.join(", "))]
    Lanes,
    /// `[pod]`.
    #[error(transparent)]
    Pod(#[from] pod::Error),
    /// Where metrics are to be served is taken, or not ours.
    #[error("cannot listen on {address}: check metrics_listen")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// NATS refuses the connection. One that is only away is waited for.
    #[error("cannot connect to NATS: check nats_url")]
    Nats(#[from] async_nats::ConnectError),
}

/// A runner that is ready to run.
pub struct Service {
    config: Config,
    shared: Shared,
    names: Names,
    /// How many builds run here.
    busy: watch::Sender<usize>,
    pod: Option<pod::Service>,
    /// Where metrics are served, if anywhere.
    metrics_listener: Option<TcpListener>,
}

impl Service {
    /// Reads the TLS files and connects. Waits for nothing that is merely away.
    ///
    /// # Errors
    /// What no waiting mends.
    pub async fn connect(config: Config) -> Result<Self, Error> {
        let known = |lane: &String| LANES.contains(&lane.as_str());
        let mut lanes = config.lanes.clone();
        lanes.sort_unstable();
        lanes.dedup();
        if lanes.is_empty() || lanes.len() < config.lanes.len() || !lanes.iter().all(known) {
            return Err(Error::Lanes);
        }
        let agents = Agents::new(&config.tls, config.agent.clone())?;
        let busy = watch::Sender::new(0);
        let pod = config.pod.clone().map(|pod| pod::Service::new(pod, busy.subscribe()));
        let pod = pod.transpose()?;
        let runner_id = RunnerId::new();
        let mut options = ConnectOptions::new()
            .name(runner_id.to_string())
            .custom_inbox_prefix(Role::Runner.inbox_prefix())
            .ping_interval(PING_EVERY)
            .event_callback(|event| async move { tell(&event) });
        if let Some(ca) = &config.nats_ca {
            tls::authority("nats_ca", ca)?;
            options = options.add_root_certificates(ca.clone()).require_tls(true);
        }
        if let Some(seed) = &config.nats_nkey {
            options = options.nkey(Secret::read(seed)?.expose().clone());
        }
        let client = connect(&config, options).await?;
        let metrics_listener = match config.metrics_listen {
            Some(address) => Some(
                TcpListener::bind(address)
                    .await
                    .map_err(|source| Error::Listen { address, source })?,
            ),
            None => None,
        };
        let mut jetstream = jetstream::new(client.clone());
        jetstream.set_timeout(ACK_TIMEOUT);
        let names = Names::new(config.prefix.clone());
        let desk = Desk::new(client.clone(), names.clone(), runner_id);
        let contexts = Contexts::new(jetstream.clone(), &names, config.contexts_dir.clone());
        tracing::info!(runner.id = %runner_id, slots = config.slots, lanes = config.lanes.join(", "), "runner ready");
        let shared = Shared {
            client,
            jetstream,
            names: names.clone(),
            desk,
            agents,
            contexts,
            metrics: Metrics::default(),
            boots_max: config.boots_max,
            away_max: config.host_away_max,
            drain: CancellationToken::new(),
        };
        shared.metrics.slots_are(config.slots.max(1));
        Ok(Self { config, shared, names, busy, pod, metrics_listener })
    }

    /// Runs until `stop` is cancelled and everything has ended, or the time for that is over.
    pub async fn run(mut self, stop: CancellationToken) {
        let ended = CancellationToken::new();
        let metrics = self.metrics_listener.take().map(|listener| {
            if let Ok(address) = listener.local_addr() {
                tracing::info!(%address, "metrics are served");
            }
            let registry = self.shared.metrics.registry();
            tokio::spawn(metrics::serve(listener, registry, ended.clone()))
        });
        self.run_slots(stop).await;
        ended.cancel();
        if let Some(metrics) = metrics
            && let Err(error) = metrics.await
        {
            tracing::error!(%error, "metrics broke");
        }
    }

    async fn run_slots(mut self, stop: CancellationToken) {
        let pod = self.pod.take().map(|pod| tokio::spawn(pod.run(stop.clone())));
        let service = Arc::new(self);
        let worker = Worker::new(service.shared.clone());
        let mut slots = JoinSet::new();
        for _ in 0..service.config.slots.max(1) {
            slots.spawn(slot(Arc::clone(&service), worker.clone(), stop.clone()));
        }
        loop {
            let ended = tokio::select! {
                () = stop.cancelled() => break,
                ended = slots.join_next() => ended,
            };
            if let Some(Err(error)) = ended {
                tracing::error!(%error, "a slot broke and is started again");
            }
            slots.spawn(slot(Arc::clone(&service), worker.clone(), stop.clone()));
        }
        let drain = service.shared.drain.clone();
        let running = async { while slots.join_next().await.is_some() {} };
        let last_flush = LAST_FLUSH.min(service.config.exit_within / 5);
        let ended = timeout(service.config.exit_within - last_flush, async {
            tokio::pin!(running);
            if timeout(service.config.drain, &mut running).await.is_err() {
                tracing::info!("drain time is over, giving builds back");
                drain.cancel();
                running.await;
            }
        });
        if ended.await.is_err() {
            tracing::warn!("a build did not end in time and is left to its lease");
            slots.shutdown().await;
        }
        if let Some(Err(error)) = futures::future::OptionFuture::from(pod).await {
            tracing::error!(%error, "telling the pod's deletion cost broke");
        }
        match timeout(last_flush, service.shared.client.flush()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "last acks may be lost"),
            Err(_) => tracing::debug!("NATS is away, last acks may be lost"),
        }
    }
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
        event => tracing::info!(%event, "NATS connection"),
    }
}

/// One build at a time, until `stop`.
async fn slot(service: Arc<Service>, worker: Worker, stop: CancellationToken) {
    let jetstream = service.shared.jetstream.clone();
    let mut queue = Queue::new(&jetstream, &service.names, &service.config.lanes);
    while let Some(taken) = queue.next(&stop).await {
        let busy = Busy::begin(&service.busy);
        let work = worker.work(taken.job.clone());
        let verdict = queue.beside(taken.settle(work)).await;
        drop(busy);
        if let Verdict::NoRoom(_) = verdict {
            let _ = timeout(NO_ROOM_PAUSE, stop.cancelled()).await;
        }
    }
}

/// A slot that has a job; it ends with its value, in a panic too.
struct Busy<'a>(&'a watch::Sender<usize>);

impl<'a> Busy<'a> {
    fn begin(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}
