//! A load that rises and falls.

use std::time::Duration;

use anyhow::Context;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use super::Plan;
use crate::{api::Api, build};

/// Lines per second of a step: as much as a quiet build writes.
const LINES_PER_SECOND: u32 = 5;

/// What a machine with other work may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// A build that ended.
#[derive(Debug, Clone)]
pub(super) struct Built {
    pub(super) name: String,
    pub(super) status: String,
    pub(super) attempts: u64,
    /// An attempt after the first one began from the first step.
    pub(super) restarted: bool,
    /// From its first claim to its end.
    pub(super) took: Duration,
}

/// Submits all builds of the plan, each at its time, and follows them to their ends.
pub(super) async fn run(api: Api, plan: Plan) -> anyhow::Result<Vec<Built>> {
    let begun = Instant::now();
    let mut under_way = JoinSet::new();
    for (number, after) in moments(plan.builds, plan.rises, plan.falls).into_iter().enumerate() {
        let (api, work) = (api.clone(), plan.work);
        under_way.spawn(async move {
            sleep_until(begun + after).await;
            one(&api, number, work).await
        });
    }
    let mut built = Vec::new();
    while let Some(one) = under_way.join_next().await {
        built.push(one??);
    }
    Ok(built)
}

async fn one(api: &Api, number: usize, work: Duration) -> anyhow::Result<Built> {
    let lines = (work / 2).as_secs_f64() * f64::from(LINES_PER_SECOND);
    let step = format!("RUN bench-lines {} {LINES_PER_SECOND}", lines.round());
    let name = format!("scale-{number}");
    let lane = if number % 6 == 5 { "high" } else { "default" };
    let request = json!({ "name": name, "recipe": [&step, &step], "lane": lane });
    // The key makes it one build however often it is asked for.
    let submitted = patiently(|| api.build_submit(&request, &name)).await?;
    let id = submitted["id"].as_str().context("a build without id")?;
    let begun = Instant::now().into_std();
    let ended = patiently(|| build::follow_existing(api, id, begun, |_| {})).await?;
    let restarted = ended.records.iter().any(|record| {
        let text = record["text"].as_str().unwrap_or_default();
        let again = record["attempt"].as_u64().is_some_and(|attempt| attempt > 1);
        again && record["stream"] == "system" && text.contains("begins from the first step")
    });
    let attempts = ended.build["attempt"].as_u64().context("a build without attempt")?;
    let moment = |key: &str| moment(&ended.build, key);
    let took = (moment("completed_at")? - moment("started_at")?).to_std().unwrap_or_default();
    Ok(Built { name, status: ended.status().to_owned(), attempts, restarted, took })
}

/// Asks again while a service behind the API does not answer: whatever is asked here may be asked twice.
async fn patiently<T, F: Future<Output = anyhow::Result<T>>>(
    mut ask: impl FnMut() -> F,
) -> anyhow::Result<T> {
    let until = Instant::now() + PATIENCE;
    loop {
        match ask().await {
            Err(error) if error.to_string().contains("503") && Instant::now() < until => {
                sleep(ASK_AGAIN).await;
            }
            answer => return answer,
        }
    }
}

fn moment(build: &Value, key: &str) -> anyhow::Result<DateTime<Utc>> {
    let text = build[key].as_str().with_context(|| format!("a build without {key}"))?;
    Ok(DateTime::parse_from_rfc3339(text)?.to_utc())
}

/// When each build comes: two thirds of them ever faster while the load rises, the others ever slower while it falls.
fn moments(builds: usize, rises: Duration, falls: Duration) -> Vec<Duration> {
    let rising = builds * 2 / 3;
    let falling = builds - rising;
    let part = |number: usize, of: usize| number as f64 / of.max(1) as f64;
    let up = (0..rising).map(|number| rises.mul_f64(part(number, rising).sqrt()));
    let down = (0..falling)
        .map(|number| rises + falls.mul_f64(1.0 - (1.0 - part(number, falling)).sqrt()));
    up.chain(down).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_come_ever_faster_and_then_ever_slower() {
        let (rises, falls) = (Duration::from_secs(30), Duration::from_secs(50));
        let moments = moments(60, rises, falls);
        assert_eq!(moments.len(), 60);
        assert!(moments.is_sorted() && moments[39] < rises && moments[40] == rises);
        let pause = |at: usize| moments[at + 1] - moments[at];
        assert!(pause(0) > pause(20) && pause(20) > pause(38));
        assert!(pause(40) < pause(50) && pause(50) < pause(58));
        assert!(moments[59] < rises + falls);
    }
}
