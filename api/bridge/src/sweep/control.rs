//! Hears on the control subjects that somebody cancelled a build, so that the rules need not wait for their
//! timers. Of several bridges one hears each message; one that is lost costs the time of a timer.

use async_nats::Client;
use futures::StreamExt as _;
use ovenbird_contract::{
    build::Status,
    id::BuildId,
    nats::{CONTROL_QUEUE, Names},
};
use ovenbird_db::store;
use ovenbird_kit::telemetry::chain;
use tokio_util::sync::CancellationToken;

use super::{Service, Woken};
use crate::pace::Pace;

impl Service {
    /// Wakes the rules until `shutdown`.
    pub(super) async fn listen(&self, woken: &Woken, shutdown: &CancellationToken) {
        let mut pace = Pace::services();
        while !shutdown.is_cancelled() {
            match subscribe(&self.client, &self.names).await {
                Ok(mut messages) => {
                    pace.succeeded();
                    while let Some(Some(message)) =
                        shutdown.run_until_cancelled(messages.next()).await
                    {
                        let id =
                            message.subject.rsplit_once('.').and_then(|(_, id)| id.parse().ok());
                        if let Some(build) = id {
                            self.heard(build, woken).await;
                        }
                    }
                }
                Err(error) => {
                    tracing::info!(%error, "control messages are not heard; the timers go on");
                    pace.failed(shutdown).await;
                }
            }
        }
    }

    async fn heard(&self, build: BuildId, woken: &Woken) {
        woken.cancels.notify_one();
        woken.ends.notify_one();
        let row = match self.store.build_row(build).await {
            Ok(Some(row)) => row,
            Ok(None) => return,
            Err(error) => {
                return tracing::info!(build.id = %build, error = chain(&error), "not looked at");
            }
        };
        // Its end is told by whoever ends its log.
        if store::build::status(&row).is_ok_and(|status| status == Status::Cancelling) {
            self.states.tell(build, store::build::attempt(&row), Status::Cancelling).await;
        }
    }
}

async fn subscribe(
    client: &Client,
    names: &Names,
) -> Result<async_nats::Subscriber, async_nats::SubscribeError> {
    client.queue_subscribe(names.control_all(), CONTROL_QUEUE.into()).await
}
