//! Says on `EVENTS` that a build changed its state, after the change is in Postgres.
//!
//! For those who watch; nobody decides by it, so an event that cannot be published is only logged. It also knows
//! up to where the events of a build go, for who waits until the ledger has written them.

use std::time::Duration;

use async_nats::jetstream::stream::LastRawMessageErrorKind;
use async_nats::jetstream::{Context, message::PublishMessage};
use chrono::Utc;
use ovenbird_contract::{
    build::Status,
    event::{Event, What},
    id::BuildId,
    nats::Names,
};

/// One publish.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Publishes states. Cheap to clone.
#[derive(Debug, Clone)]
pub struct States {
    js: Context,
    names: Names,
}

impl States {
    /// Over `js`.
    pub fn new(js: Context, names: Names) -> Self {
        Self { js, names }
    }

    /// Publishes that `build` is in `status` since `attempt`. The event's id is made of these three, so
    /// that a repeated one is stored once.
    pub async fn tell(&self, build: BuildId, attempt: u32, status: Status) {
        let mut event = Event::new(build, attempt, 0, Utc::now(), What::State { status });
        event.id = format!("{build}/{attempt}/{status}");
        let payload = match serde_json::to_vec(&event) {
            Ok(payload) => payload,
            Err(error) => return tracing::warn!(%error, "a state event has no JSON form"),
        };
        let message = PublishMessage::build().message_id(&event.id).payload(payload.into());
        let publish =
            async { self.js.send_publish(self.names.events(&build), message).await?.await };
        match tokio::time::timeout(TIMEOUT, publish).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::info!(build.id = %build, %status, %error, "state event is not published");
            }
            Err(_) => {
                tracing::info!(build.id = %build, %status, "state event is not published in time")
            }
        }
    }

    /// Stream sequence of the last event of `build`; nothing when there is none, or it cannot be asked.
    pub async fn last(&self, build: BuildId) -> Option<u64> {
        let look = async {
            let name = self.names.events_stream().name;
            let stream = self.js.get_stream_no_info(name).await.ok()?;
            match stream.get_last_raw_message_by_subject(&self.names.events(&build)).await {
                Ok(message) => Some(message.sequence),
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => None,
                Err(error) => {
                    tracing::info!(build.id = %build, %error, "cannot see the build's last event");
                    None
                }
            }
        };
        tokio::time::timeout(TIMEOUT, look).await.ok().flatten()
    }
}
