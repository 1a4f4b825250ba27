//! A build's events, in order, each acknowledged before the next.

use async_nats::jetstream::{Context, context::PublishError, message::PublishMessage};
use chrono::Utc;
use ovenbird_contract::{
    event::{Event, What},
    id::BuildId,
    nats::Names,
};
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// An event that cannot be written for this long ends the attempt, even when the lease holds.
const RETRIES_FOR: Duration = Duration::from_secs(300);
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LONGEST: Duration = Duration::from_secs(2);

/// The events of one attempt.
#[derive(Debug)]
pub struct Events {
    jetstream: Context,
    subject: String,
    build_id: BuildId,
    attempt: u32,
    sent: u64,
    last_stream_seq: u64,
    give_up: CancellationToken,
}

/// NATS did not take it while the lease held, or for too long.
#[derive(Debug, thiserror::Error)]
#[error("NATS did not take an event")]
pub struct GaveUp(#[source] PublishError);

impl Events {
    /// Once `give_up` is cancelled a publish that fails is not repeated any more.
    pub fn new(
        jetstream: Context,
        names: &Names,
        build_id: BuildId,
        attempt: u32,
        give_up: CancellationToken,
    ) -> Self {
        let subject = names.events(&build_id);
        Self { jetstream, subject, build_id, attempt, sent: 0, last_stream_seq: 0, give_up }
    }

    /// Publishes what happened; repeated while the lease holds, stored once by its id.
    ///
    /// # Errors
    /// [`GaveUp`].
    pub async fn publish(&mut self, what: What) -> Result<(), GaveUp> {
        self.sent += 1;
        let event = Event::new(self.build_id, self.attempt, self.sent, Utc::now(), what);
        let payload =
            serde_json::to_vec(&event).expect("an event has no map with other keys than text");
        let mut delay = RETRY_FIRST;
        let end = Instant::now() + RETRIES_FOR;
        loop {
            match self.send(&event.id, payload.clone()).await {
                Ok(sequence) => {
                    self.last_stream_seq = sequence;
                    return Ok(());
                }
                Err(error) if self.give_up.is_cancelled() || Instant::now() >= end => {
                    return Err(GaveUp(error));
                }
                Err(error) => {
                    tracing::warn!(build.id = %self.build_id, %error, "event publish failed, trying again");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = self.give_up.cancelled() => {}
            }
            delay = (delay * 2).min(RETRY_LONGEST);
        }
    }

    /// Stream sequence of the last event; 0 before the first.
    pub fn last_stream_seq(&self) -> u64 {
        self.last_stream_seq
    }

    async fn send(&self, id: &str, payload: Vec<u8>) -> Result<u64, PublishError> {
        let message = PublishMessage::build().payload(payload.into()).message_id(id);
        let ack = self.jetstream.send_publish(self.subject.clone(), message).await?.await?;
        Ok(ack.sequence)
    }
}
