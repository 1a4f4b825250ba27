//! The part of a log that is in the stream and not yet in Postgres.
//!
//! Read through a consumer of its own that ends where the stream ended when it was made: whoever wants
//! what comes later asks again, or listens.

use std::{collections::VecDeque, time::Duration};

use async_nats::jetstream::{
    self, ErrorCode,
    consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull},
    stream::{ConsumerErrorKind, RawMessageErrorKind},
};
use futures::StreamExt as _;
use ovenbird_contract::{
    id::BuildId,
    log::{Batch, Record},
    nats::Names,
};
use uuid::Uuid;

use crate::app::Error;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// Messages of one pull. A message is 16 KiB of text or little more.
const PULL: usize = 64;
/// A pull is answered in this time, or NATS is away.
const PULL_TIMEOUT: Duration = Duration::from_secs(5);
/// The server waits this long for messages that it said it has.
const PULL_WAIT: Duration = Duration::from_secs(2);
/// The server forgets a consumer that was left behind after this long.
const FORGET_AFTER: Duration = Duration::from_secs(20);

/// What is left of the stream, for one build.
#[derive(Debug)]
pub(super) struct Tail {
    jetstream: jetstream::Context,
    stream: String,
    consumer: PullConsumer,
    /// Messages that the stream held and that did not come yet.
    pending: u64,
    batches: VecDeque<Vec<Record>>,
}

impl Tail {
    /// The messages of `build` after `stream_seq`; `None` when there are none.
    pub(super) async fn open(
        jetstream: &jetstream::Context,
        names: &Names,
        build: &BuildId,
        stream_seq: u64,
    ) -> Result<Option<Self>, Error> {
        let Some(tail) = Self::after(jetstream, names, build, stream_seq).await? else {
            return Ok(None);
        };
        if tail.pending > 0 {
            return Ok(Some(tail));
        }
        let is_new = stream_seq > 0 && tail.last_message(names, build).await? < stream_seq;
        tail.close().await;
        if !is_new {
            return Ok(None);
        }
        // The stream was lost and made anew: it counts from 1 again.
        match Self::after(jetstream, names, build, 0).await? {
            Some(tail) if tail.pending > 0 => Ok(Some(tail)),
            Some(tail) => {
                tail.close().await;
                Ok(None)
            }
            None => Ok(None),
        }
    }

    /// Stream sequence of the build's last message; without one, the greatest there is.
    async fn last_message(&self, names: &Names, build: &BuildId) -> Result<u64, Error> {
        let away = |error: Source| Error::unavailable("NATS", error);
        let stream = self.jetstream.get_stream_no_info(&self.stream).await;
        let stream = stream.map_err(|error| away(error.into()))?;
        match stream.get_last_raw_message_by_subject(&names.logs(build)).await {
            Ok(message) => Ok(message.sequence),
            Err(error) if matches!(error.kind(), RawMessageErrorKind::NoMessageFound) => {
                Ok(u64::MAX)
            }
            Err(error) => Err(away(error.into())),
        }
    }

    async fn after(
        jetstream: &jetstream::Context,
        names: &Names,
        build: &BuildId,
        stream_seq: u64,
    ) -> Result<Option<Self>, Error> {
        let stream = names.logs_stream().name;
        let config = pull::Config {
            // Without a name the request is one that NATS cannot tell from one about another's consumer.
            name: Some(Uuid::new_v4().simple().to_string()),
            description: Some("a reader of one build's log".into()),
            filter_subject: names.logs(build),
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: stream_seq + 1 },
            ack_policy: AckPolicy::None,
            memory_storage: true,
            num_replicas: 1,
            inactive_threshold: FORGET_AFTER,
            ..Default::default()
        };
        let consumer = match jetstream.create_consumer_on_stream(config, &stream).await {
            Ok(consumer) => consumer,
            Err(error) => {
                return match error.kind() {
                    // No runner and no bridge has been here yet: there is no log.
                    ConsumerErrorKind::JetStream(said)
                        if said.error_code() == ErrorCode::STREAM_NOT_FOUND =>
                    {
                        Ok(None)
                    }
                    _ => Err(Error::unavailable("NATS", error)),
                };
            }
        };
        let pending = consumer.cached_info().num_pending;
        let (jetstream, batches) = (jetstream.clone(), VecDeque::new());
        Ok(Some(Self { jetstream, stream, consumer, pending, batches }))
    }

    /// The next message's records; `None` at the end.
    pub(super) async fn batch(&mut self) -> Result<Option<Vec<Record>>, Error> {
        if self.batches.is_empty() && self.pending > 0 {
            tokio::time::timeout(PULL_TIMEOUT, self.pull())
                .await
                .map_err(|late| Error::unavailable("NATS", late))??;
        }
        Ok(self.batches.pop_front())
    }

    async fn pull(&mut self) -> Result<(), Error> {
        let away =
            |error: Box<dyn std::error::Error + Send + Sync>| Error::unavailable("NATS", error);
        let want = PULL.min(usize::try_from(self.pending).unwrap_or(PULL));
        let mut messages = self
            .consumer
            .batch()
            .max_messages(want)
            .expires(PULL_WAIT)
            .messages()
            .await
            .map_err(|error| away(error.into()))?;
        while let Some(message) = messages.next().await {
            let message = message.map_err(away)?;
            self.pending =
                message.info().map_err(away)?.pending.min(self.pending.saturating_sub(1));
            self.batches.push_back(read(&message.payload)?);
        }
        if self.batches.is_empty() {
            // The stream may have dropped them meanwhile, by age.
            self.pending = 0;
        }
        Ok(())
    }

    /// Forgets the consumer. The server would do so by itself, later.
    pub(super) async fn close(self) {
        let name = &self.consumer.cached_info().name;
        if let Err(error) = self.jetstream.delete_consumer_from_stream(name, &self.stream).await {
            tracing::debug!(error = %error, "a log reader's consumer is left to the server");
        }
    }
}

/// The records of one message.
pub(super) fn read(payload: &[u8]) -> Result<Vec<Record>, Error> {
    serde_json::from_slice::<Batch>(payload)
        .map(|batch| batch.records)
        .map_err(|error| Error::internal("reading a log message", error))
}
