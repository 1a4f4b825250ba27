//! Reads `LOGS` and `EVENTS` and writes them to Postgres: one transaction for each batch of messages, then
//! the acks.
//!
//! Messages come at least once, and to several bridges in any order; what is written is the same
//! whatever the order and however often (see `ovenbird_db::store::ledger`). A message that cannot be
//! read, or that Postgres refuses for its content, is logged and terminated: it never holds up the others.

mod events;
mod logs;

use std::time::Duration;

use async_nats::jetstream::{
    AckKind, Context, Message,
    consumer::{PullConsumer, pull},
};
use futures::StreamExt as _;
use ovenbird_contract::nats::{ConsumerSpec, Names};
use ovenbird_db::{Store, store};
use ovenbird_kit::telemetry::chain;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{metrics::Metrics, pace::Pace, streams};

/// Most messages of one transaction.
const BATCH_MESSAGES: usize = 500;
/// Most bytes of one transaction, about; also bounds what is fetched ahead.
const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// How long a batch of log messages waits for more. Readers of a log take its tail from the stream, and fewer,
/// larger runs are better ones.
const LOGS_LINGER: Duration = Duration::from_millis(50);
/// How long for the next of them: the last ones of a build are waited for, by its finish.
const LOGS_QUIET: Duration = Duration::from_millis(30);
/// How long a batch of events waits for more. A finish waits for it.
const EVENTS_LINGER: Duration = Duration::from_millis(2);
/// A batch that takes longer is written anew: a connection that died without a word would hold it for ever.
const APPLY_MAX: Duration = Duration::from_secs(60);
/// One pull request at the server.
const PULL_EXPIRES: Duration = Duration::from_secs(20);
/// The server says this often that a pull is alive; a consumer that is gone shows itself after two.
const PULL_HEARTBEAT: Duration = Duration::from_secs(2);

/// Which stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Feed {
    Logs,
    Events,
}

impl Feed {
    fn name(self) -> &'static str {
        match self {
            Self::Logs => "logs",
            Self::Events => "events",
        }
    }
}

/// A feed cannot be read.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("consumer {name} cannot be read")]
    Consumer {
        name: String,
        #[source]
        source: async_nats::Error,
    },
    #[error("the pull ended")]
    Ended,
}

/// The service.
#[derive(Debug)]
pub struct Service {
    store: Store,
    js: Context,
    names: Names,
    streams: streams::Handle,
    metrics: Metrics,
}

impl Service {
    /// Writes to `store` what `js` holds; a missing consumer is told to `streams`.
    pub fn new(
        store: Store,
        js: Context,
        names: Names,
        streams: streams::Handle,
        metrics: Metrics,
    ) -> Self {
        Self { store, js, names, streams, metrics }
    }

    /// Runs until `shutdown`; the batch in hand is ended.
    pub async fn run(self, shutdown: CancellationToken) {
        let [logs, events] = self.names.ledger_consumers();
        tokio::join!(
            self.follow(Feed::Logs, &logs, &shutdown),
            self.follow(Feed::Events, &events, &shutdown),
        );
    }

    async fn follow(&self, feed: Feed, spec: &ConsumerSpec, shutdown: &CancellationToken) {
        let mut pace = Pace::services();
        while !shutdown.is_cancelled() {
            let Err(error) = self.read(feed, spec, shutdown, &mut pace).await else { return };
            self.streams.wake();
            tracing::warn!(
                stream = spec.stream,
                error = chain(&error),
                "the ledger waits; nothing is lost"
            );
            pace.failed(shutdown).await;
        }
    }

    async fn read(
        &self,
        feed: Feed,
        spec: &ConsumerSpec,
        shutdown: &CancellationToken,
        pace: &mut Pace,
    ) -> Result<(), Error> {
        let mut messages = self.pull(spec).await?;
        loop {
            let Some(first) = shutdown.run_until_cancelled(messages.next()).await else {
                return Ok(());
            };
            let failed = |source: async_nats::Error| Error::Consumer {
                name: format!("{}/{}", spec.stream, spec.durable),
                source,
            };
            let mut batch = vec![first.ok_or(Error::Ended)?.map_err(|error| failed(error.into()))?];
            let end = collect(&mut messages, feed, &mut batch).await;
            pace.succeeded();
            self.write(feed, batch, shutdown).await;
            if let Some(error) = end {
                return Err(failed(error));
            }
        }
    }

    async fn pull(&self, spec: &ConsumerSpec) -> Result<pull::Stream, Error> {
        let failed =
            |source| Error::Consumer { name: format!("{}/{}", spec.stream, spec.durable), source };
        let consumer: PullConsumer = self
            .js
            .get_consumer_from_stream(&spec.durable, &spec.stream)
            .await
            .map_err(|error| failed(error.into()))?;
        consumer
            .stream()
            .max_messages_per_batch(BATCH_MESSAGES)
            .max_bytes_per_batch(BATCH_BYTES)
            .expires(PULL_EXPIRES)
            .heartbeat(PULL_HEARTBEAT)
            .messages()
            .await
            .map_err(|error| failed(error.into()))
    }

    /// Writes a batch and acks it. While Postgres is away it is tried again; the server may give the
    /// messages to another bridge meanwhile, which is fine.
    async fn write(&self, feed: Feed, batch: Vec<Message>, shutdown: &CancellationToken) {
        let mut pace = Pace::services();
        loop {
            let applied = match tokio::time::timeout(APPLY_MAX, self.apply(feed, &batch)).await {
                Ok(applied) => applied,
                Err(_) => {
                    tracing::warn!("the ledger had no answer of Postgres; writing once more");
                    continue;
                }
            };
            match applied {
                Ok(()) => {
                    self.metrics.ledger_wrote(feed.name(), batch.len());
                    break;
                }
                Err(error) if error.is_permanent() && batch.len() == 1 => {
                    poison(feed, &batch[0], &chain(&error)).await;
                    return;
                }
                Err(error) if error.is_permanent() => {
                    tracing::warn!(error = chain(&error), "a batch is refused; writing one by one");
                    for message in batch {
                        Box::pin(self.write(feed, vec![message], shutdown)).await;
                    }
                    return;
                }
                Err(error) => {
                    tracing::warn!(error = chain(&error), "the ledger waits for Postgres");
                    if !pace.failed(shutdown).await {
                        return;
                    }
                }
            }
        }
        for message in &batch {
            if let Err(error) = message.ack().await {
                tracing::info!(%error, "an ack was not sent; the message comes again");
                return;
            }
        }
    }

    async fn apply(&self, feed: Feed, batch: &[Message]) -> Result<(), store::Error> {
        match feed {
            Feed::Logs => self.apply_logs(batch).await,
            Feed::Events => self.apply_events(batch).await,
        }
    }
}

/// Takes what comes within the feed's time, up to the bounds of a batch; answers why the feed ended, if
/// it did.
async fn collect(
    messages: &mut pull::Stream,
    feed: Feed,
    batch: &mut Vec<Message>,
) -> Option<async_nats::Error> {
    let (linger, quiet) = match feed {
        Feed::Logs => (LOGS_LINGER, LOGS_QUIET),
        Feed::Events => (EVENTS_LINGER, EVENTS_LINGER),
    };
    let until = Instant::now() + linger;
    let mut bytes: usize = batch.iter().map(|message| message.payload.len()).sum();
    while batch.len() < BATCH_MESSAGES && bytes < BATCH_BYTES {
        let next = until.min(Instant::now() + quiet);
        match tokio::time::timeout_at(next, messages.next()).await {
            Ok(Some(Ok(message))) => {
                bytes += message.payload.len();
                batch.push(message);
            }
            Ok(Some(Err(error))) => return Some(error.into()),
            Ok(None) => return Some("the pull ended".into()),
            Err(_) => return None,
        }
    }
    None
}

/// Stream sequence of a message; 0 when it did not come from a stream.
fn stream_seq(message: &Message) -> u64 {
    message.info().map_or(0, |info| info.stream_sequence)
}

/// Gives up on a message.
async fn poison(feed: Feed, message: &Message, why: &str) {
    tracing::error!(
        ?feed, subject = %message.subject, stream_seq = stream_seq(message), why,
        "a message cannot be written; it is left out"
    );
    if let Err(error) = message.ack_with(AckKind::Term).await {
        tracing::info!(%error, "it comes again");
    }
}
