//! How long a line is on its way, from the guest to a NATS subscriber and to a reader of the SSE stream.

use std::time::Duration;

use anyhow::Context;
use futures::StreamExt as _;
use ovenbird_contract::nats::Names;
use serde_json::{Value, json};

use super::percentile;
use crate::{api::Api, platform::record::Record};

const LONGEST: Duration = Duration::from_secs(300);

/// What one reader saw.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// The middle, in milliseconds.
    pub(super) p50: f64,
    /// In milliseconds.
    pub(super) p99: f64,
    /// Lines that were written and not seen.
    pub(super) lost: usize,
}

/// A build whose step writes `lines` at `per_second`, seen by a NATS subscriber.
pub(super) async fn over_nats(
    record: &Record,
    api: &Api,
    lines: u32,
    per_second: u32,
) -> anyhow::Result<Seen> {
    let client = record.nats_client().await?;
    let every = Names::default().builds("").replace("builds.", "logs.*");
    let subscription = client.subscribe(every).await?;
    client.flush().await?;
    let _ = client.request("bench.nobody", "".into()).await;
    begin(api, lines, per_second).await?;
    let took = tokio::time::timeout(LONGEST, read(subscription)).await;
    Ok(seen(&took.context("the lines hang")??, lines))
}

/// The same, seen by a reader of the SSE stream.
pub(super) async fn over_sse(api: &Api, lines: u32, per_second: u32) -> anyhow::Result<Seen> {
    let id = begin(api, lines, per_second).await?;
    let reading = async {
        let mut took = Vec::new();
        let mut records = std::pin::pin!(api.logs_stream(&id, 0).await?);
        while let Some(record) = records.next().await {
            note(&record?, &mut took)?;
        }
        anyhow::Ok(took)
    };
    let took = tokio::time::timeout(LONGEST, reading).await;
    Ok(seen(&took.context("the lines hang")??, lines))
}

async fn begin(api: &Api, lines: u32, per_second: u32) -> anyhow::Result<String> {
    let request = json!({
        "name": format!("lines-{per_second}"),
        "recipe": [format!("RUN bench-lines {lines} {per_second}")],
    });
    let submitted = api.build_create(&request).await?;
    Ok(submitted["id"].as_str().context("a build without id")?.to_owned())
}

async fn read(mut messages: async_nats::Subscriber) -> anyhow::Result<Vec<Duration>> {
    let mut took = Vec::new();
    while let Some(message) = messages.next().await {
        let batch: Value = serde_json::from_slice(&message.payload)?;
        for record in batch["records"].as_array().into_iter().flatten() {
            if note(record, &mut took)? {
                return Ok(took);
            }
        }
    }
    anyhow::bail!("the subscription ended")
}

/// Takes the time of a line; answers whether the record is the last one.
fn note(record: &Value, took: &mut Vec<Duration>) -> anyhow::Result<bool> {
    if record["stream"] == "stdout" {
        let text = record["text"].as_str().unwrap_or_default();
        took.push(super::since(text.split(' ').nth(1).unwrap_or_default())?);
    }
    Ok(record.get("end").is_some())
}

fn seen(took: &[Duration], lines: u32) -> Seen {
    Seen {
        p50: percentile(took, 0.5),
        p99: percentile(took, 0.99),
        lost: (lines as usize).saturating_sub(took.len()),
    }
}
