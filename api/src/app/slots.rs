//! How many slots of runners are free: each free slot has one pull waiting at the work queue, so its consumer
//! knows. Nobody else does, for runners are known to nobody.

use std::time::Duration;

use async_nats::jetstream::{Context, consumer::pull};
use ovenbird_contract::nats::{LANES, Names};

/// What the answer may take.
const DEADLINE: Duration = Duration::from_secs(1);

/// Asks the work queue. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Slots {
    jetstream: Context,
    names: Names,
}

impl Slots {
    /// Asks over `jetstream`.
    pub fn new(jetstream: Context, names: Names) -> Self {
        Self { jetstream, names }
    }

    /// Slots that wait for a build of `lane`; `None` when that is not known. A slot that has just been told that no host
    /// has room pauses, and is not counted; one that has just taken a build of another lane is, for two seconds at most.
    pub async fn free(&self, lane: &str) -> Option<usize> {
        if !LANES.contains(&lane) {
            return None;
        }
        let spec = self.names.runners_consumer_of(lane);
        let ask = self
            .jetstream
            .get_consumer_from_stream::<pull::Config, _, _>(&spec.durable, &spec.stream);
        match tokio::time::timeout(DEADLINE, ask).await {
            Ok(Ok(consumer)) => Some(consumer.cached_info().num_waiting),
            Ok(Err(error)) => {
                tracing::info!(%error, "the work queue does not say how many slots are free");
                None
            }
            Err(_) => {
                tracing::info!(
                    "NATS does not answer in time; how many slots are free is not known"
                );
                None
            }
        }
    }
}
