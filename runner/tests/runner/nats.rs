//! A NATS server with the streams that the bridge makes.

use std::time::Duration;

use async_nats::jetstream::{
    self, Context,
    consumer::{AckPolicy, pull},
    stream::{self, RetentionPolicy},
};
use futures::StreamExt as _;
use ovenbird_contract::{
    event::Event,
    id::BuildId,
    log::{Batch, Record},
    nats::{Names, Retention, StreamSpec},
};
use ovenbird_testkit::{Folder, Nats};

pub(crate) const SOON: Duration = Duration::from_secs(30);

/// A server of its own for one test.
pub(crate) struct Server {
    pub(crate) nats: Nats,
    pub(crate) client: async_nats::Client,
    /// The test's own, patient.
    pub(crate) jetstream: Context,
    pub(crate) names: Names,
    pub(crate) folder: Folder,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let folder = Folder::new("runner").unwrap();
        let nats = Nats::start(&folder.join("nats")).await.unwrap();
        let client = async_nats::connect(nats.url()).await.unwrap();
        let mut jetstream = jetstream::new(client.clone());
        jetstream.set_timeout(SOON);
        let names = Names::default();
        for spec in [
            names.builds_stream(),
            names.logs_stream(),
            names.events_stream(),
            names.contexts_stream(),
        ] {
            jetstream.create_stream(config(spec)).await.unwrap();
        }
        for spec in names.runners_consumers() {
            let consumer = pull::Config {
                durable_name: Some(spec.durable),
                filter_subject: spec.subject.unwrap(),
                ack_policy: AckPolicy::Explicit,
                ack_wait: spec.ack_wait,
                max_ack_pending: spec.max_ack_pending,
                ..pull::Config::default()
            };
            jetstream.create_consumer_on_stream(consumer, spec.stream).await.unwrap();
        }
        Self { nats, client, jetstream, names, folder }
    }

    /// As impatient as a runner's.
    pub(crate) fn of_runner(&self) -> Context {
        let mut jetstream = self.jetstream.clone();
        jetstream.set_timeout(Duration::from_secs(2));
        jetstream
    }

    /// All messages of a build's log, in order, with their stream sequence.
    pub(crate) async fn log(&self, build: &BuildId) -> Vec<(u64, Batch)> {
        let subject = self.names.logs(build);
        let read = self.read(&self.names.logs_stream().name, subject).await;
        read.into_iter().map(|(seq, text)| (seq, serde_json::from_slice(&text).unwrap())).collect()
    }

    /// All records of a build's log.
    pub(crate) async fn records(&self, build: &BuildId) -> Vec<Record> {
        self.log(build).await.into_iter().flat_map(|(_, batch)| batch.records).collect()
    }

    /// The texts of a build's log.
    pub(crate) async fn texts(&self, build: &BuildId) -> Vec<String> {
        let text = |record| match record {
            Record::Line(line) => line.text,
            Record::End(_) => "end".to_owned(),
        };
        self.records(build).await.into_iter().map(text).collect()
    }

    /// All events of a build.
    pub(crate) async fn events(&self, build: &BuildId) -> Vec<Event> {
        let subject = self.names.events(build);
        let read = self.read(&self.names.events_stream().name, subject).await;
        read.into_iter().map(|(_, text)| serde_json::from_slice(&text).unwrap()).collect()
    }

    async fn read(&self, stream: &str, subject: String) -> Vec<(u64, Vec<u8>)> {
        let stream = self.jetstream.get_stream(stream).await.unwrap();
        let ordered = pull::OrderedConfig { filter_subject: subject, ..Default::default() };
        let mut consumer = stream.create_consumer(ordered).await.unwrap();
        let pending = consumer.info().await.unwrap().num_pending;
        let messages = consumer.messages().await.unwrap();
        messages
            .take(usize::try_from(pending).unwrap())
            .map(|message| {
                let message = message.unwrap();
                (message.info().unwrap().stream_sequence, message.payload.to_vec())
            })
            .collect()
            .await
    }

    /// The logs' stream takes nothing any more, as when its disk is full, until it is mended.
    pub(crate) async fn stall_logs(&self, stalled: bool) {
        let spec = self.names.logs_stream();
        let max_message_size = if stalled { 1 } else { spec.max_message_bytes };
        let config = stream::Config { max_message_size, ..config(spec) };
        self.jetstream.update_stream(config).await.unwrap();
    }

    /// Jobs that are out, and jobs that wait.
    pub(crate) async fn jobs(&self) -> (usize, u64) {
        let spec = self.names.runners_consumer();
        let mut consumer = self
            .jetstream
            .get_consumer_from_stream::<pull::Config, _, _>(&spec.durable, &spec.stream)
            .await
            .unwrap();
        let info = consumer.info().await.unwrap();
        (info.num_ack_pending, info.num_pending)
    }
}

fn config(spec: StreamSpec) -> stream::Config {
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
        duplicate_window: spec.duplicate_window,
        max_message_size: spec.max_message_bytes,
        allow_direct: is_object_store,
        allow_rollup: is_object_store,
        ..stream::Config::default()
    }
}

/// Records are numbered from 1 without a hole.
pub(crate) fn assert_gapless(records: &[Record]) {
    assert!(!records.is_empty());
    for (record, expected) in records.iter().zip(1..) {
        assert_eq!(record.seq(), expected);
    }
}
