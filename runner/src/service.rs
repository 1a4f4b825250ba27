//! The whole runner: a connection, the slots, and the way they end.
//!
//! SIGTERM: nothing is fetched any more. Builds that run go on for the configured `drain`; one that ends in
//! this time ends as usual, every other is handed over: its command runs on in its sandbox, the build goes back to
//! the queue, and the next runner follows the command where this one stopped. Whatever hangs then is left
//! behind after `exit_within`: its lease ends, and the sweep takes care.

use std::sync::Arc;

use async_nats::{ConnectOptions, jetstream};
use ovenbird_agent_client::Agents;
use ovenbird_contract::{id::RunnerId, nats::Names, nats_access::Role};
use ovenbird_kit::{Secret, secret, tls};
use tokio::{
    task::JoinSet,
    time::{Duration, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    attempt::Shared,
    config::Config,
    context::Contexts,
    desk::Desk,
    queue::{Queue, Verdict},
    worker::Worker,
};

const PING_EVERY: Duration = Duration::from_secs(10);
/// A publish whose ack does not come is sent again after this long.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);

/// A flush waits for a connection for as long as there is none.
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
    /// NATS refuses the connection. One that is only away is waited for.
    #[error("cannot connect to NATS: check nats_url")]
    Nats(#[from] async_nats::ConnectError),
}

/// A runner that is ready to run.
pub struct Service {
    config: Config,
    shared: Shared,
    names: Names,
}

impl Service {
    /// Reads the TLS files and connects. Waits for nothing that is merely away.
    ///
    /// # Errors
    /// What no waiting mends.
    pub async fn connect(config: Config) -> Result<Self, Error> {
        let agents = Agents::new(&config.tls, config.agent.clone())?;
        let runner_id = RunnerId::new();
        let mut options = ConnectOptions::new()
            .name(runner_id.to_string())
            .custom_inbox_prefix(Role::Runner.inbox_prefix())
            .ping_interval(PING_EVERY)
            .retry_on_initial_connect()
            .event_callback(|event| async move { tracing::info!(%event, "NATS connection") });
        if let Some(seed) = &config.nats_nkey {
            options = options.nkey(Secret::read(seed)?.expose().clone());
        }
        let client = options.connect(config.nats_url.expose().as_str()).await?;
        let mut jetstream = jetstream::new(client.clone());
        jetstream.set_timeout(ACK_TIMEOUT);
        let names = Names::new(config.prefix.clone());
        let desk = Desk::new(client.clone(), names.clone(), runner_id);
        let contexts = Contexts::new(jetstream.clone(), &names, config.contexts_dir.clone());
        tracing::info!(runner.id = %runner_id, slots = config.slots, lane = config.lane, "runner ready");
        let shared = Shared {
            client,
            jetstream,
            names: names.clone(),
            desk,
            agents,
            contexts,
            boots_max: config.boots_max,
            away_max: config.host_away_max,
            drain: CancellationToken::new(),
        };
        Ok(Self { config, shared, names })
    }

    /// Runs until `stop` is cancelled and everything has ended, or the time for that is over.
    pub async fn run(self, stop: CancellationToken) {
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
        let ended = timeout(service.config.exit_within, async {
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
        match timeout(LAST_FLUSH, service.shared.client.flush()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "last acks may be lost"),
            Err(_) => tracing::debug!("NATS is away, last acks may be lost"),
        }
    }
}

/// One build at a time, until `stop`.
async fn slot(service: Arc<Service>, worker: Worker, stop: CancellationToken) {
    let jetstream = service.shared.jetstream.clone();
    let mut queue = Queue::new(jetstream, &service.names, &service.config.lane);
    while let Some(taken) = queue.next(&stop).await {
        let work = worker.work(taken.job.clone());
        if let Verdict::NoRoom(pause) = taken.settle(work).await {
            let _ = timeout(pause, stop.cancelled()).await;
        }
    }
}
