//! The round trips of a build from its submission to its claim that wait for one another, made by bare clients of the
//! same servers, with next to nothing to do at either end. What is checked and noted on the way is not among them.
//!
//! ```text
//! api     key (Postgres), tokens (Redis) ─► build (a commit) ─► RPUSH
//! bridge  BLMOVE ─► the job (Postgres) ─► JetStream publish
//! runner  pull ─► request
//! bridge  claim (a commit) ─► event
//! ```

use std::time::{Duration, Instant};

use anyhow::Context;
use async_nats::jetstream::{
    self,
    consumer::{Consumer, pull},
};
use futures::StreamExt as _;
use redis::AsyncCommands as _;
use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::task::JoinSet;

use super::{PAUSE, floor::work_queue, percentile};
use crate::platform::record::Record;

const STREAM: &str = "BENCH_CHAIN";
const JOBS: &str = "bench.chain.jobs";
const CLAIM: &str = "bench.chain.claim";
const CLAIMED: &str = "bench.chain.claimed";
const QUEUED: &str = "bench:chain:queued";
const RELAYING: &str = "bench:chain:relaying";
const LONGEST: Duration = Duration::from_secs(10);

/// The middle, in milliseconds.
pub(super) async fn measure(record: &Record, rounds: usize) -> anyhow::Result<f64> {
    let mut db = PgConnection::connect(&record.database).await?;
    db.execute("CREATE TABLE bench_chain (id bigserial PRIMARY KEY, state text)").await?;
    let redis = redis::Client::open(record.redis.as_str())?;
    let mut redis = redis.get_multiplexed_async_connection().await?;
    let client = record.nats_client().await?;
    let mut claimed = client.subscribe(CLAIMED).await?;
    client.flush().await?;
    let mut others = JoinSet::new();
    let jetstream = begin(record, &mut others).await?;

    let mut took = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let begun = Instant::now();
        let tokens = async { Ok(redis.incr::<_, _, i64>("bench:chain:tokens", 1).await?) };
        tokio::try_join!(look_up(&mut db, 1), tokens)?;
        let insert = "INSERT INTO bench_chain (state) VALUES ('queued') RETURNING id";
        let id: i64 = sqlx::query_scalar(insert).fetch_one(&mut db).await?;
        let _: i64 = redis.rpush(QUEUED, id).await?;
        let waited = tokio::time::timeout(LONGEST, async {
            tokio::select! {
                event = claimed.next() => event.map(drop).context("the subscription ended"),
                Some(ended) = others.join_next() => ended?.and(Err(anyhow::anyhow!("a part of the chain ended"))),
            }
        });
        waited.await.context("the chain hangs")??;
        took.push(begun.elapsed());
        tokio::time::sleep(PAUSE).await;
    }
    others.shutdown().await;
    jetstream.delete_stream(STREAM).await?;
    db.execute("DROP TABLE bench_chain").await?;
    Ok(percentile(&took, 0.5))
}

/// Starts the relay, the runner and the desk.
async fn begin(
    record: &Record,
    others: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<jetstream::Context> {
    let jetstream = jetstream::new(record.nats_client().await?);
    let consumer = work_queue(&jetstream, STREAM, JOBS).await?;
    let db = PgConnection::connect(&record.database).await?;
    others.spawn(desk(record.nats_client().await?, db));
    others.spawn(runner(record.nats_client().await?, consumer));
    let redis = redis::Client::open(record.redis.as_str())?;
    let redis = redis.get_multiplexed_async_connection().await?;
    let db = PgConnection::connect(&record.database).await?;
    others.spawn(relay(redis, db, jetstream.clone()));
    Ok(jetstream)
}

async fn relay(
    mut redis: redis::aio::MultiplexedConnection,
    mut db: PgConnection,
    jetstream: jetstream::Context,
) -> anyhow::Result<()> {
    loop {
        let (left, right) = (redis::Direction::Left, redis::Direction::Right);
        let id: Option<i64> = redis.blmove(QUEUED, RELAYING, left, right, 0.1).await?;
        let Some(id) = id else { continue };
        look_up(&mut db, id).await?;
        jetstream.publish(JOBS, id.to_string().into()).await?.await?;
        let _: i64 = redis.lrem(RELAYING, 0, id).await?;
    }
}

async fn runner(
    client: async_nats::Client,
    consumer: Consumer<pull::Config>,
) -> anyhow::Result<()> {
    loop {
        let mut pulled = consumer.batch().max_messages(1).expires(LONGEST).messages().await?;
        let Some(message) = pulled.next().await else { continue };
        let message = message.map_err(|error| anyhow::anyhow!("{error}"))?;
        client.request(CLAIM, message.payload.clone()).await?;
        message.ack().await.map_err(|error| anyhow::anyhow!("{error}"))?;
    }
}

async fn desk(client: async_nats::Client, mut db: PgConnection) -> anyhow::Result<()> {
    let mut requests = client.subscribe(CLAIM).await?;
    while let Some(request) = requests.next().await {
        let id: i64 = std::str::from_utf8(&request.payload)?.parse()?;
        let claim = "UPDATE bench_chain SET state = 'running' WHERE id = $1";
        sqlx::query(claim).bind(id).execute(&mut db).await?;
        client.publish(CLAIMED, "".into()).await?;
        client.publish(request.reply.context("no reply subject")?, "".into()).await?;
    }
    anyhow::bail!("the subscription ended")
}

async fn look_up(db: &mut PgConnection, id: i64) -> anyhow::Result<()> {
    let look_up = "SELECT state FROM bench_chain WHERE id = $1";
    sqlx::query_scalar::<_, String>(look_up).bind(id).fetch_optional(db).await?;
    Ok(())
}
