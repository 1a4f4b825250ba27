//! Looks how things stand in Postgres and NATS, for the metrics. Of what does not answer they say nothing (NaN).

use std::time::Duration;

use async_nats::jetstream::{Context, consumer::pull};
use ovenbird_contract::nats::{ConsumerSpec, Names};
use ovenbird_db::Store;
use ovenbird_kit::telemetry::chain;
use tokio_util::sync::CancellationToken;

use super::{FEEDS, Metrics};
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
        let stats = self.store.stats().await;
        if let Err(error) = &stats {
            tracing::debug!(error = chain(error), "Postgres does not say how things stand");
        }
        self.metrics.stand(stats.ok().as_ref());
        for (feed, spec) in FEEDS.into_iter().zip(self.names.ledger_consumers()) {
            let info = self.consumer(&spec).await;
            let waits = info.map(|info| info.num_pending + info.num_ack_pending as u64);
            self.metrics.ledger_waits(feed, waits);
        }
        let runners = self.consumer(&self.names.runners_consumer()).await;
        self.metrics.slots_wait(runners.map(|info| info.num_waiting));
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
