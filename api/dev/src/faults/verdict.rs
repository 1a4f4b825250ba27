//! What must hold after the faults, whatever they were.

use std::{collections::BTreeMap, time::Duration};

use async_nats::jetstream;
use chrono::{DateTime, Utc};
use ovenbird_contract::nats::Names;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{
    load::{LINES, Load, Shape},
    restarts::Restarts,
};
use crate::{api::Api, host::Host, platform::Platform};

/// Sweeps have this long to remove what faults left.
const SWEPT_WITHIN: Duration = Duration::from_secs(90);
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Records per page.
const PAGE: u64 = 1000;

/// Everything that does not hold, empty when all does; and how builds began again. `log_lost_at` is when NATS lost its
/// data, if it has.
///
/// # Errors
/// When the platform cannot be asked.
pub(super) async fn broken(
    platform: &mut Platform,
    api: &Api,
    builds: &[(Load, Value)],
    log_lost_at: Option<DateTime<Utc>>,
) -> anyhow::Result<(Vec<String>, Restarts)> {
    let mut broken = Vec::new();
    let mut restarts = Restarts::default();
    let templates = templates_by_build(api).await?;
    let until = Instant::now() + SWEPT_WITHIN;
    for (load, build) in builds {
        let told = |what: String| format!("{} ({}): {what}", load.name, load.id);
        broken.extend(outcome(load, build, &templates).map(told));
        // The sweep writes the end of a log that a fault kept the desk from writing.
        let wrong = loop {
            let records = records(api, &load.id).await?;
            let wrong = log(load, build, &records);
            if wrong.is_empty() || Instant::now() >= until {
                restarts.add(&load.name, &records, log_lost_at);
                break wrong;
            }
            sleep(LOOK_AGAIN).await;
        };
        broken.extend(wrong.into_iter().map(told));
    }
    loop {
        let left = left(platform, &templates).await?;
        if left.is_empty() {
            return Ok((broken, restarts));
        }
        if Instant::now() >= until {
            broken.extend(left);
            return Ok((broken, restarts));
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// Names of templates by the build that made them.
async fn templates_by_build(api: &Api) -> anyhow::Result<BTreeMap<String, Vec<Value>>> {
    let mut found: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for template in api.templates_all().await? {
        if let Some(build) = template["build_id"].as_str() {
            found.entry(build.to_owned()).or_default().push(template.clone());
        }
    }
    Ok(found)
}

fn outcome(load: &Load, build: &Value, templates: &BTreeMap<String, Vec<Value>>) -> Option<String> {
    let status = build["status"].as_str().unwrap_or_default();
    let code = build["reason"]["code"].as_str().unwrap_or_default();
    let made = templates.get(&load.id).map_or(0, Vec::len);
    let (right, published) = match load.shape {
        Shape::Image | Shape::Snapshot => (status == "succeeded", 1),
        Shape::Failing => ((status, code) == ("failed", "step_failed"), 0),
        Shape::Cancelled => (status == "cancelled" || status == "succeeded", 0),
    };
    let published = if status == "succeeded" { 1 } else { published };
    if !right {
        return Some(format!("{:?} ended as {status} {}", load.shape, build["reason"]));
    }
    (made != published).then(|| format!("{made} templates instead of {published}"))
}

async fn records(api: &Api, id: &str) -> anyhow::Result<Vec<Value>> {
    let mut records = Vec::new();
    read(api, id, &mut records).await?;
    Ok(records)
}

/// Adds the whole log to `records`, or as much of it as can be read.
///
/// # Errors
/// When the API does not answer.
pub(super) async fn read(api: &Api, id: &str, records: &mut Vec<Value>) -> anyhow::Result<()> {
    loop {
        let last = records.last().and_then(|record| record["seq"].as_u64()).unwrap_or(0);
        let page = api.logs(id, last + 1, PAGE).await?;
        let more = page["records"].as_array().cloned().unwrap_or_default();
        if more.is_empty() {
            return Ok(());
        }
        records.extend(more);
    }
}

/// The log has no hole, ends once, and has every line of a step that passed once, from the last beginning on.
fn log(load: &Load, build: &Value, records: &[Value]) -> Vec<String> {
    let mut broken = Vec::new();
    let seqs: Vec<u64> = records.iter().filter_map(|record| record["seq"].as_u64()).collect();
    if seqs != (1..=records.len() as u64).collect::<Vec<_>>() {
        broken.push(format!("its log has holes: {seqs:?}"));
    }
    let ends = records.iter().filter(|record| record.get("end").is_some()).count();
    if ends != 1 || records.last().is_none_or(|record| record.get("end").is_none()) {
        broken.push(format!("its log has {ends} ends"));
    }
    if build["status"] != "succeeded" || load.shape == Shape::Cancelled {
        return broken;
    }
    let begun = records.iter().rposition(|record| {
        let text = record["text"].as_str().unwrap_or_default();
        record["stream"] == "system" && text.contains("begins from the first step")
    });
    let last = &records[begun.unwrap_or(0)..];
    for number in 1..=2 {
        let prefix = format!("step {number} line ");
        let lines: Vec<&str> = last
            .iter()
            .filter(|record| record["stream"] == "stdout")
            .filter_map(|record| record["text"].as_str()?.strip_prefix(&prefix))
            .collect();
        let expected: Vec<String> = (1..=LINES).map(|line| line.to_string()).collect();
        if lines != expected {
            broken.push(format!("step {number} has the lines {}", lines.join(",")));
        }
    }
    broken
}

/// Sandboxes, jobs, leases and templates that belong to nobody.
async fn left(
    platform: &mut Platform,
    templates: &BTreeMap<String, Vec<Value>>,
) -> anyhow::Result<Vec<String>> {
    let mut left = Vec::new();
    let leases = "SELECT count(*) FROM template_builds WHERE lease_until IS NOT NULL";
    match platform.sql(leases).await?.trim() {
        "0" => {}
        count => left.push(format!("{count} leases are left")),
    }
    let record = platform.record();
    let known: Vec<&str> =
        templates.values().flatten().filter_map(|template| template["id"].as_str()).collect();
    for agent in &record.agents {
        let host = Host::connect(agent).await?;
        for sandbox in host.sandboxes().await? {
            left.push(format!("sandbox {} is {}", sandbox.sandbox_id, sandbox.status));
        }
        for template in host.templates().await? {
            if template.starts_with("tpl_") && !known.contains(&template.as_str()) {
                left.push(format!("template {template} was never published"));
            }
        }
    }
    let jetstream = jetstream::new(record.nats_client().await?);
    let spec = Names::default().runners_consumer();
    let jobs = jetstream.get_stream(&spec.stream).await?.cached_info().state.messages;
    if jobs > 0 {
        left.push(format!("{jobs} jobs are left"));
    }
    Ok(left)
}
