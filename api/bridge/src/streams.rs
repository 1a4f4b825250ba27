//! Streams and consumers as `ovenbird-contract` describes them: made or brought up to date at the start,
//! made again when they vanish.
//!
//! Woken by a timer, and by whoever finds one missing. What was in a stream that vanished is not this
//! service's business: the sweep finds the jobs that are gone.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::{
    Context,
    consumer::{AckPolicy, pull},
    context::{CreateStreamError, GetStreamErrorKind},
    stream::{self, DiscardPolicy, RetentionPolicy, StorageType},
};
use ovenbird_contract::nats::{ConsumerSpec, Names, Retention, StreamSpec};
use ovenbird_kit::telemetry::chain;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::pace::Pace;

/// JetStream refused, or is away.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A stream could not be made.
    #[error("stream {name} cannot be made")]
    Stream {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: CreateStreamError,
    },
    /// A stream or consumer could not be looked at.
    #[error("{name} cannot be looked at")]
    Look {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: async_nats::Error,
    },
    /// A consumer could not be made.
    #[error("consumer {name} cannot be made")]
    Consumer {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: async_nats::Error,
    },
}

/// Tells the service that a stream or consumer is missing, and others that all were made. Cheap to
/// clone.
#[derive(Debug, Clone, Default)]
pub struct Handle {
    missing: Arc<Notify>,
    made: Arc<watch::Sender<bool>>,
}

impl Handle {
    /// Have the streams looked at now.
    pub fn wake(&self) {
        self.missing.notify_one();
    }

    /// Waits until everything was made once; `false` when the process is to stop before.
    pub async fn made(&self, shutdown: &CancellationToken) -> bool {
        let mut made = self.made.subscribe();
        let made = shutdown.run_until_cancelled(made.wait_for(|made| *made)).await;
        matches!(made, Some(Ok(_)))
    }
}

/// The service.
#[derive(Debug)]
pub struct Service {
    js: Context,
    names: Names,
    room: Room,
    interval: Duration,
    handle: Handle,
}

/// Where what is made stands, and how much of it there may be.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// Servers on which each stream stands.
    pub replicas: usize,
    /// Bytes of all contexts. NATS keeps that much free for them, so that the other streams are never short of it.
    pub contexts_bytes: u64,
}

impl Service {
    /// Looks every `interval`, and when `handle` is woken.
    pub fn new(js: Context, names: Names, room: Room, interval: Duration, handle: Handle) -> Self {
        Self { js, names, room, interval, handle }
    }

    /// Runs until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut pace = Pace::services();
        let mut made = false;
        loop {
            let done = if made { self.remake().await } else { self.ensure().await };
            if let Err(error) = done {
                tracing::warn!(error = chain(&error), "streams are not ready; trying again");
                if !pace.failed(&shutdown).await {
                    return;
                }
                continue;
            }
            made = true;
            self.handle.made.send_replace(true);
            pace.succeeded();
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(self.interval) => {}
                () = self.handle.missing.notified() => {}
            }
        }
    }

    /// Makes everything again when anything is missing.
    async fn remake(&self) -> Result<(), Error> {
        if self.complete().await? {
            return Ok(());
        }
        tracing::warn!("a stream or consumer vanished; making it again");
        self.ensure().await
    }

    async fn ensure(&self) -> Result<(), Error> {
        ensure(&self.js, &self.names, self.room).await
    }

    async fn complete(&self) -> Result<bool, Error> {
        for spec in streams(&self.names) {
            match self.js.get_stream(&spec.name).await {
                Ok(_) => {}
                Err(error) => match error.kind() {
                    GetStreamErrorKind::JetStream(ref answer) if answer.code() == 404 => {
                        return Ok(false);
                    }
                    _ => return Err(Error::Look { name: spec.name, source: error.into() }),
                },
            }
        }
        for spec in consumers(&self.names) {
            let stream = self
                .js
                .get_stream_no_info(&spec.stream)
                .await
                .map_err(|error| Error::Look { name: spec.stream.clone(), source: error.into() })?;
            // Any answer but the consumer means that it must be made; a JetStream that is away shows
            // itself then.
            if stream.consumer_info(&spec.durable).await.is_err() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Makes every stream and consumer, or brings it up to date. Repeating it changes nothing. Contexts come last: where NATS
/// has no room for them, builds without one go on all the same.
///
/// # Errors
/// The first one that could not be made.
pub async fn ensure(js: &Context, names: &Names, room: Room) -> Result<(), Error> {
    let [of_builds @ .., contexts] = streams(names);
    for spec in of_builds {
        ensure_stream(js, spec, room).await?;
    }
    for spec in consumers(names) {
        let (stream, name) = (spec.stream.clone(), spec.durable.clone());
        js.create_consumer_on_stream(consumer_config(spec), stream)
            .await
            .map_err(|source| Error::Consumer { name, source: source.into() })?;
    }
    ensure_stream(js, contexts, room).await
}

async fn ensure_stream(js: &Context, spec: StreamSpec, room: Room) -> Result<(), Error> {
    let name = spec.name.clone();
    let made = js.create_or_update_stream(stream_config(spec, room)).await;
    made.map(drop).map_err(|source| Error::Stream { name, source })
}

fn streams(names: &Names) -> [StreamSpec; 4] {
    [names.builds_stream(), names.logs_stream(), names.events_stream(), names.contexts_stream()]
}

/// The default lane's comes first: in a stream of an older version it reads all lanes, and makes room for the others now.
fn consumers(names: &Names) -> [ConsumerSpec; 4] {
    let [logs, events] = names.ledger_consumers();
    let [default, high] = names.runners_consumers();
    [default, high, logs, events]
}

fn stream_config(spec: StreamSpec, room: Room) -> stream::Config {
    let (retention, max_age) = match spec.retention {
        Retention::WorkQueue => (RetentionPolicy::WorkQueue, Duration::ZERO),
        Retention::Age(age) => (RetentionPolicy::Limits, age),
        Retention::Objects => (RetentionPolicy::Limits, Duration::ZERO),
    };
    let is_object_store = spec.retention == Retention::Objects;
    stream::Config {
        name: spec.name,
        subjects: spec.subjects,
        retention,
        max_age,
        storage: StorageType::File,
        duplicate_window: spec.duplicate_window,
        max_message_size: spec.max_message_bytes,
        allow_direct: true,
        allow_rollup: is_object_store,
        // Half an object is none: rather no new one than one that pushes out an old one's chunks.
        discard: if is_object_store { DiscardPolicy::New } else { DiscardPolicy::Old },
        max_bytes: if is_object_store {
            i64::try_from(room.contexts_bytes).unwrap_or(i64::MAX)
        } else {
            // No bound of its own: by age, or by what is worked off.
            -1
        },
        num_replicas: room.replicas,
        ..Default::default()
    }
}

fn consumer_config(spec: ConsumerSpec) -> pull::Config {
    pull::Config {
        durable_name: Some(spec.durable),
        filter_subject: spec.subject.unwrap_or_default(),
        ack_policy: AckPolicy::Explicit,
        ack_wait: spec.ack_wait,
        max_ack_pending: spec.max_ack_pending,
        ..Default::default()
    }
}
