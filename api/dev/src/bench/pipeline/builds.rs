//! How long a build waits for its claim, what a step costs beside its command, and how many builds runners drain.

use std::time::{Duration, Instant};

use anyhow::Context;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use ovenbird_contract::nats::Names;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};

use super::{PAUSE, percentile};
use crate::{api::Api, build, platform::record::Record};

/// Steps of the builds whose steps are measured.
const STEPS: usize = 20;
/// Submissions at the same time.
const SUBMITS: usize = 8;
const LONGEST: Duration = Duration::from_secs(300);

/// From the submission to the news that a runner has the build, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claims {
    /// The middle.
    pub(super) p50: f64,
    /// The 99th percentile.
    pub(super) p99: f64,
    /// The middle of the part between the two statements that make the build queued and running.
    pub(super) queued: f64,
}

/// One build at a time on an idle platform.
pub(super) async fn claims(
    record: &Record,
    api: &Api,
    rounds: usize,
    said: impl Fn(u64),
) -> anyhow::Result<Claims> {
    let client = record.nats_client().await?;
    let every = Names::default().builds("").replace("builds.", "events.build.*");
    let mut events = client.subscribe(every).await?;
    client.flush().await?;
    let _ = client.request("bench.nobody", "".into()).await;
    let mut took = Vec::with_capacity(rounds);
    for round in 0..rounds {
        let request = json!({ "name": format!("claim-{round}"), "recipe": ["RUN true"] });
        let begun = Instant::now();
        let submitted = api.build_create(&request).await?;
        let id = submitted["id"].as_str().context("a build without id")?.to_owned();
        until_status(&mut events, &id, "running").await?;
        took.push(begun.elapsed());
        until_status(&mut events, &id, "succeeded").await?;
        tokio::time::sleep(PAUSE).await;
        said(round as u64 + 1);
    }
    let mut db = PgConnection::connect(&record.database).await?;
    let queued = sqlx::query_scalar(
        "SELECT percentile_cont(0.5) WITHIN GROUP (
           ORDER BY extract(epoch FROM started_at - queued_at)::float8 * 1000)
         FROM template_builds WHERE name LIKE 'claim-%'",
    );
    let queued = queued.fetch_one(&mut db).await?;
    Ok(Claims { p50: percentile(&took, 0.5), p99: percentile(&took, 0.99), queued })
}

async fn until_status(
    events: &mut async_nats::Subscriber,
    id: &str,
    status: &str,
) -> anyhow::Result<()> {
    let reading = async {
        while let Some(message) = events.next().await {
            let event: Value = serde_json::from_slice(&message.payload)?;
            let at = event["data"]["status"].as_str().unwrap_or_default();
            if event["build_id"] == id && event["type"] == "build.state" {
                anyhow::ensure!(at != "failed" || at == status, "{id} failed");
                if at == status {
                    return Ok(());
                }
            }
        }
        anyhow::bail!("the subscription ended")
    };
    tokio::time::timeout(LONGEST, reading).await.with_context(|| format!("{id} hangs"))?
}

/// Of a step whose command takes no time: the middle of what it takes, in milliseconds.
pub(super) async fn steps(api: &Api) -> anyhow::Result<f64> {
    let request = json!({ "name": "steps", "recipe": vec!["RUN true"; STEPS] });
    let ended = build::follow(api, &request, |_| {}).await?;
    anyhow::ensure!(ended.status() == "succeeded", "{}", ended.reason());
    let entries = ended.build["logs"].as_array().cloned().unwrap_or_default();
    let took: Vec<Duration> = entries
        .iter()
        .filter(|entry| entry["phase"] == "step")
        .filter_map(|entry| entry["elapsed_ms"].as_u64().map(Duration::from_millis))
        .collect();
    anyhow::ensure!(took.len() == STEPS, "{} steps instead of {STEPS}", took.len());
    Ok(percentile(&took, 0.5))
}

/// Builds per second, from the first submission to the last end.
pub(super) async fn drain(api: &Api, builds: usize) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let ids: Vec<String> = stream::iter(0..builds)
        .map(|number| async move {
            let request = json!({ "name": format!("drain-{number}"), "recipe": ["RUN true"] });
            let submitted = api.build_create(&request).await?;
            let id = submitted["id"].as_str().context("a build without id")?;
            anyhow::Ok(id.to_owned())
        })
        .buffer_unordered(SUBMITS)
        .try_collect()
        .await?;
    // Every log ends, and a log that has ended answers at once: waiting for one after the other is waiting for all.
    for id in &ids {
        let ended = build::follow_existing(api, id, begun, |_| {}).await?;
        anyhow::ensure!(ended.status() == "succeeded", "{}", ended.reason());
    }
    Ok(builds as f64 / begun.elapsed().as_secs_f64())
}
