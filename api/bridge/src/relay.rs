//! Redis list → JetStream job. An id leaves Redis only after the stream has acknowledged its job.
//!
//! An id is moved (BLMOVE) to this bridge's own list, so that it is in Redis at every moment. Each round
//! begins with what is in that list: what a failed round, a broken connection or an abandoned BLMOVE
//! left there. The list of a bridge that dies is given back by the others.
//!
//! The relay decides nothing: a job is published for a build that is queued and has its turn (see the store's `turn`),
//! under a message id that makes the second one a duplicate. A build that waits for the limit of its key leaves Redis
//! without a job, and is pushed again with its turn.

use std::time::Duration;

use async_nats::jetstream::{
    Context,
    context::{PublishError, PublishErrorKind},
    message::PublishMessage,
};
use futures::future::join_all;
use ovenbird_contract::{id::BuildId, job::Job, nats::Names};
use ovenbird_db::{
    Store,
    store::{
        self,
        job::{Published, Queued},
    },
};
use ovenbird_kit::telemetry::{chain, trace};
use redis::{
    AsyncCommands, AsyncConnectionConfig, Direction, RedisError, aio::MultiplexedConnection,
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, field::Empty};

use crate::{
    metrics::Metrics,
    pace::{Pace, sleep},
    queue::Queue,
    streams,
};

/// BLMOVE gives up after this long, so that shutdown and a dead connection are noticed.
const BLOCK: Duration = Duration::from_secs(2);
/// An answer of Redis beyond the blocking time means that the connection is dead.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);
/// A bridge that did not say that it lives for this long is dead to the others.
const ALIVE_FOR: Duration = Duration::from_secs(15);
const ALIVE_EVERY: Duration = Duration::from_secs(4);

/// A round failed; the ids stay in this bridge's list.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("Redis does not answer")]
    Redis(#[from] RedisError),
    #[error("Redis does not answer in time")]
    RedisTimedOut,
    #[error("builds cannot be read")]
    Store(#[from] store::Error),
    #[error("a job has no JSON form")]
    Json(#[from] serde_json::Error),
    #[error("a job cannot be published")]
    Publish(#[from] PublishError),
}

/// The service.
#[derive(Debug)]
pub struct Service {
    id: String,
    client: redis::Client,
    queue: Queue,
    store: Store,
    js: Context,
    names: Names,
    streams: streams::Handle,
    metrics: Metrics,
    batch: usize,
}

/// What the service works with.
#[derive(Debug, Clone)]
pub struct Parts {
    /// For the connection that blocks.
    pub client: redis::Client,
    /// For everything that does not.
    pub queue: Queue,
    /// The builds.
    pub store: Store,
    /// Where jobs are published.
    pub js: Context,
    /// Under which names.
    pub names: Names,
    /// Told when the stream is missing.
    pub streams: streams::Handle,
    /// What counts the jobs.
    pub metrics: Metrics,
}

impl Service {
    /// Relays as the bridge `id`, up to `batch` ids at once. No other bridge may have the id, ever.
    pub fn new(id: String, parts: Parts, batch: usize) -> Self {
        let Parts { client, queue, store, js, names, streams, metrics } = parts;
        Self { id, client, queue, store, js, names, streams, metrics, batch: batch.max(1) }
    }

    /// Runs until `shutdown`, then gives back what it holds.
    pub async fn run(self, shutdown: CancellationToken) {
        tokio::join!(self.live(&shutdown), self.relay(&shutdown));
        let retire = tokio::time::timeout(RESPONSE_TIMEOUT, self.queue.retire(&self.id));
        if !matches!(retire.await, Ok(Ok(()))) {
            tracing::info!("ids in this bridge's list are left to the other bridges");
        }
    }

    async fn live(&self, shutdown: &CancellationToken) {
        loop {
            if let Err(error) = self.queue.alive(&self.id, ALIVE_FOR).await {
                tracing::info!(error = chain(&error), "cannot say in Redis that this bridge lives");
            }
            if !sleep(ALIVE_EVERY, shutdown).await {
                return;
            }
        }
    }

    async fn relay(&self, shutdown: &CancellationToken) {
        let mut pace = Pace::services();
        let mut connection = None;
        while !shutdown.is_cancelled() {
            match self.round(&mut connection, shutdown).await {
                Ok(()) => pace.succeeded(),
                Err(error) => {
                    if matches!(error, Error::Redis(_) | Error::RedisTimedOut) {
                        connection = None;
                    }
                    tracing::warn!(error = chain(&error), "relay waits; nothing is lost");
                    pace.failed(shutdown).await;
                }
            }
        }
    }

    async fn round(
        &self,
        connection: &mut Option<MultiplexedConnection>,
        shutdown: &CancellationToken,
    ) -> Result<(), Error> {
        let redis = match connection {
            Some(redis) => redis,
            None => connection.insert(self.connect().await?),
        };
        let own = self.queue.keys().relaying(&self.id);
        let last = isize::try_from(self.batch).unwrap_or(isize::MAX) - 1;
        let mut ids: Vec<String> = in_time(redis.lrange(&own, 0, last)).await?;
        if ids.is_empty() {
            ids = self.take_waiting(redis, &own).await?;
        }
        if ids.is_empty() {
            let Some(taken) = shutdown.run_until_cancelled(self.take(redis, &own)).await else {
                return Ok(());
            };
            ids = taken?;
        }
        if ids.is_empty() {
            return Ok(());
        }
        let (done, failure) = self.publish(&ids).await?;
        let mut pipe = redis::pipe();
        for id in &done {
            // Every copy: the job of all of them is the same.
            pipe.lrem(&own, 0, id).ignore();
        }
        let () = in_time(pipe.query_async(redis)).await?;
        failure.map_or(Ok(()), Err)
    }

    /// What waits already, up to the batch.
    async fn take_waiting(
        &self,
        redis: &mut MultiplexedConnection,
        own: &str,
    ) -> Result<Vec<String>, Error> {
        let queued = self.queue.keys().queued();
        let mut pipe = redis::pipe();
        for _ in 0..self.batch {
            pipe.lmove(&queued, own, Direction::Left, Direction::Right);
        }
        let taken: Vec<Option<String>> = in_time(pipe.query_async(redis)).await?;
        Ok(taken.into_iter().flatten().collect())
    }

    /// Waits for an id.
    async fn take(
        &self,
        redis: &mut MultiplexedConnection,
        own: &str,
    ) -> Result<Vec<String>, Error> {
        let queued = self.queue.keys().queued();
        let wait =
            redis.blmove(&queued, own, Direction::Left, Direction::Right, BLOCK.as_secs_f64());
        let first: Option<String> = tokio::time::timeout(BLOCK + RESPONSE_TIMEOUT, wait)
            .await
            .map_err(|_| Error::RedisTimedOut)??;
        Ok(first.into_iter().collect())
    }

    /// Publishes the jobs of `ids`; answers the ids that are done with, and what went wrong with others.
    async fn publish(&self, ids: &[String]) -> Result<(Vec<String>, Option<Error>), Error> {
        let mut builds: Vec<BuildId> = Vec::with_capacity(ids.len());
        let mut done: Vec<String> = Vec::with_capacity(ids.len());
        for id in ids {
            match id.parse() {
                Ok(build) if builds.contains(&build) => {}
                Ok(build) => builds.push(build),
                Err(_) => {
                    tracing::warn!(id, "the queue held something that is no build id; dropped");
                    done.push(id.clone());
                }
            }
        }
        let queued = self.store.build_jobs(&builds).await?;
        let waits: Vec<BuildId> = queued.iter().map(|one| one.job.build_id).collect();
        done.extend(builds.iter().filter(|id| !waits.contains(id)).map(ToString::to_string));
        let (queued, held): (Vec<_>, Vec<_>) = queued.into_iter().partition(|one| one.has_turn);
        if !held.is_empty() {
            let ids: Vec<BuildId> = held.iter().map(|one| one.job.build_id).collect();
            self.store.build_held(&ids).await?;
            done.extend(ids.iter().map(ToString::to_string));
        }
        let results = join_all(queued.iter().map(|one| self.publish_one(one))).await;
        let mut published = Vec::with_capacity(queued.len());
        let mut failure = None;
        for (one, result) in queued.iter().zip(results) {
            let build = one.job.build_id;
            match result {
                Ok(stream_seq) => {
                    done.push(build.to_string());
                    let (attempt, resends) = (one.job.attempt, one.resends);
                    published.push(Published { build, attempt, resends, stream_seq });
                }
                Err(error) => failure = Some(error),
            }
        }
        self.metrics.relayed(published.len());
        if !published.is_empty()
            && let Err(error) = self.store.build_jobs_published(&published).await
        {
            tracing::info!(error = chain(&error), "published jobs are not noted; they may double");
        }
        Ok((done, failure))
    }

    /// In the trace of the request that asked for the build; the job is handed on from here.
    async fn publish_one(&self, queued: &Queued) -> Result<u64, Error> {
        let mut job = queued.job.clone();
        let span = tracing::info_span!(
            "relay",
            otel.kind = "producer",
            otel.status_code = Empty,
            build.id = %job.build_id,
            attempt = job.attempt,
            trace.id = Empty,
        );
        trace::join(&span, &job.trace);
        if let Some(traceparent) = trace::traceparent(&span) {
            job.trace = traceparent;
        }
        let published = self.publish_job(queued, &job).instrument(span.clone()).await;
        if published.is_err() {
            span.record("otel.status_code", "ERROR");
        }
        published
    }

    async fn publish_job(&self, queued: &Queued, job: &Job) -> Result<u64, Error> {
        let message_id = match queued.resends {
            0 => queued.job.message_id(),
            n => format!("{}.r{n}", queued.job.message_id()),
        };
        let message =
            PublishMessage::build().message_id(message_id).payload(serde_json::to_vec(job)?.into());
        let ack =
            async { self.js.send_publish(self.names.builds(&queued.lane), message).await?.await };
        match ack.await {
            Ok(ack) => {
                tracing::debug!(build.id = %queued.job.build_id, attempt = queued.job.attempt, "job published");
                Ok(ack.sequence)
            }
            Err(error) => {
                if error.kind() == PublishErrorKind::StreamNotFound {
                    self.streams.wake();
                }
                Err(error.into())
            }
        }
    }

    /// A connection without the client's response timeout: an answer that the client stopped waiting for
    /// would still move an id.
    async fn connect(&self) -> Result<MultiplexedConnection, Error> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(RESPONSE_TIMEOUT))
            .set_response_timeout(None);
        Ok(self.client.get_multiplexed_async_connection_with_config(&config).await?)
    }
}

async fn in_time<T>(answer: impl Future<Output = Result<T, RedisError>>) -> Result<T, Error> {
    Ok(tokio::time::timeout(RESPONSE_TIMEOUT, answer).await.map_err(|_| Error::RedisTimedOut)??)
}
