//! Looks how things stand in Postgres and NATS, for the metrics. What does not answer leaves them as they were.

use std::time::Duration;

use async_nats::jetstream::{Context, consumer::pull};
use ovenbird_contract::nats::{ConsumerSpec, Names};
use ovenbird_db::Store;
use ovenbird_kit::telemetry::chain;
use tokio_util::sync::CancellationToken;

use super::{FEEDS, Metrics, Read};
use crate::pace::sleep;

/// Prometheus reads every quarter of a minute or so.
const EVERY: Duration = Duration::from_secs(5);
/// One question to NATS.
const PATIENCE: Duration = Duration::from_secs(2);

/// The service.
#[derive(Debug)]
pub struct Service {
    metrics: Metrics,
    store: Store,
    js: Context,
    names: Names,
}

impl Service {
    /// Looks at `store` and `js`.
    pub fn new(metrics: Metrics, store: Store, js: Context, names: Names) -> Self {
        Self { metrics, store, js, names }
    }

    /// Runs until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        loop {
            shutdown.run_until_cancelled(self.look()).await;
            if !sleep(EVERY, &shutdown).await {
                return;
            }
        }
    }

    async fn look(&self) {
        match self.store.stats().await {
            Ok(stats) => self.metrics.stand(&stats),
            Err(error) => {
                tracing::debug!(error = chain(&error), "Postgres does not say how things stand")
            }
        }
        for (feed, spec) in FEEDS.into_iter().zip(self.names.ledger_consumers()) {
            if let Some(info) = self.consumer(&spec).await {
                let pending = info.num_pending + info.num_ack_pending as u64;
                let pending = i64::try_from(pending).unwrap_or(i64::MAX);
                self.metrics.ledger_pending.get_or_create(&Read { feed }).set(pending);
            }
        }
        if let Some(info) = self.consumer(&self.names.runners_consumer()).await {
            let free = i64::try_from(info.num_waiting).unwrap_or(i64::MAX);
            self.metrics.slots_free.set(free);
        }
    }

    async fn consumer(&self, spec: &ConsumerSpec) -> Option<async_nats::jetstream::consumer::Info> {
        let ask =
            self.js.get_consumer_from_stream::<pull::Config, _, _>(&spec.durable, &spec.stream);
        match tokio::time::timeout(PATIENCE, ask).await {
            Ok(Ok(consumer)) => Some(consumer.cached_info().clone()),
            Ok(Err(error)) => {
                tracing::debug!(consumer = spec.durable, %error, "NATS does not say how things stand");
                None
            }
            Err(_) => None,
        }
    }
}
