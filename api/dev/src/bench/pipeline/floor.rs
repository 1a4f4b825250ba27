//! What the same servers do without Ovenbird: a commit, a push and a pop, a publish and a pull, a line from one NATS
//! client to another.

use std::time::{Duration, Instant};

use anyhow::Context;
use async_nats::jetstream::{
    self,
    consumer::{Consumer, pull},
    stream,
};
use futures::StreamExt as _;
use sqlx::{Connection as _, Executor as _, PgConnection};

use super::percentile;
use crate::platform::record::Record;

const STREAM: &str = "BENCH";
const SUBJECT: &str = "bench.jobs";

/// The middle of each, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Floor {
    pub(super) commit: f64,
    pub(super) push_pop: f64,
    pub(super) publish_pull: f64,
}

impl Floor {
    /// What a build needs of all of them at least.
    pub(super) fn sum(self) -> f64 {
        self.commit + self.push_pop + self.publish_pull
    }
}

/// Does each `rounds` times.
pub(super) async fn measure(record: &Record, rounds: usize) -> anyhow::Result<Floor> {
    Ok(Floor {
        commit: commit(record, rounds).await?,
        push_pop: push_pop(record, rounds).await?,
        publish_pull: publish_pull(record, rounds).await?,
    })
}

async fn commit(record: &Record, rounds: usize) -> anyhow::Result<f64> {
    let mut db = PgConnection::connect(&record.database).await?;
    db.execute("CREATE TABLE IF NOT EXISTS bench (id bigserial, text text)").await?;
    let mut took = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let begun = Instant::now();
        db.execute("INSERT INTO bench (text) VALUES ('a row')").await?;
        took.push(begun.elapsed());
    }
    db.execute("DROP TABLE bench").await?;
    db.close().await?;
    Ok(percentile(&took, 0.5))
}

async fn push_pop(record: &Record, rounds: usize) -> anyhow::Result<f64> {
    let client = redis::Client::open(record.redis.as_str())?;
    let mut redis = client.get_multiplexed_async_connection().await?;
    let mut took = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let begun = Instant::now();
        redis::cmd("RPUSH").arg("bench").arg("id").exec_async(&mut redis).await?;
        redis::cmd("LPOP").arg("bench").exec_async(&mut redis).await?;
        took.push(begun.elapsed());
    }
    Ok(percentile(&took, 0.5))
}

/// A stream of jobs, as the bridge makes them, and its consumer.
pub(super) async fn work_queue(
    jetstream: &jetstream::Context,
    name: &str,
    subject: &str,
) -> anyhow::Result<Consumer<pull::Config>> {
    let stream = jetstream
        .create_stream(stream::Config {
            name: name.into(),
            subjects: vec![subject.into()],
            retention: stream::RetentionPolicy::WorkQueue,
            ..Default::default()
        })
        .await?;
    let durable = Some("bench".to_owned());
    let config = pull::Config { durable_name: durable, ..Default::default() };
    Ok(stream.create_consumer(config).await?)
}

async fn publish_pull(record: &Record, rounds: usize) -> anyhow::Result<f64> {
    let jetstream = jetstream::new(record.nats_client().await?);
    let consumer = work_queue(&jetstream, STREAM, SUBJECT).await?;
    let mut took = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        // The pull waits at the server already, as a free slot's does.
        let mut pulled =
            consumer.batch().max_messages(1).expires(Duration::from_secs(10)).messages().await?;
        let begun = Instant::now();
        jetstream.publish(SUBJECT, "a job".into()).await?.await?;
        let message = pulled.next().await.context("no job")?;
        took.push(begun.elapsed());
        let message = message.map_err(|error| anyhow::anyhow!("{error}"))?;
        message.ack().await.map_err(|error| anyhow::anyhow!("{error}"))?;
    }
    jetstream.delete_stream(STREAM).await?;
    Ok(percentile(&took, 0.5))
}

/// Lines of one client that another one reads, at `per_second`: the middle and the 99th percentile, in milliseconds.
pub(super) async fn lines(
    record: &Record,
    lines: u32,
    per_second: u32,
) -> anyhow::Result<(f64, f64)> {
    let (writer, reader) = (record.nats_client().await?, record.nats_client().await?);
    let mut messages = reader.subscribe("bench.lines").await?;
    reader.flush().await?;
    let _ = reader.request("bench.nobody", "".into()).await;
    let begun = tokio::time::Instant::now();
    let pause = Duration::from_secs(1) / per_second;
    let writing = tokio::spawn(async move {
        for number in 0..lines {
            tokio::time::sleep_until(begun + pause * number).await;
            // As long as a log message of one line.
            let line = format!("{:0>24} {:>150}", super::now_nanos(), number);
            writer.publish("bench.lines", line.into()).await?;
        }
        anyhow::Ok(writer.flush().await?)
    });
    let mut took = Vec::with_capacity(lines as usize);
    while took.len() < lines as usize {
        let message = tokio::time::timeout(Duration::from_secs(30), messages.next()).await?;
        let message = message.context("the subscription ended")?;
        let text = std::str::from_utf8(&message.payload)?;
        took.push(super::since(text.split(' ').next().unwrap_or_default())?);
    }
    writing.await??;
    Ok((percentile(&took, 0.5), percentile(&took, 0.99)))
}
