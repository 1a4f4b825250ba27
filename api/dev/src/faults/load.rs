//! The builds that are under way while faults happen, and what each of them must come to.

use std::time::Duration;

use anyhow::Context;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::api::Api;

/// Builds under way at the same time.
const AT_ONCE: usize = 6;
/// Lines of one step.
pub(super) const LINES: usize = 20;
/// A build that is not over this long after the last fault hangs.
const LONGEST: Duration = Duration::from_secs(300);
const ASK_AGAIN: Duration = Duration::from_millis(300);

/// What a build does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Two steps, then an image.
    Image,
    /// A process, a healthcheck, then a snapshot.
    Snapshot,
    /// Its second step fails.
    Failing,
    /// Somebody cancels it.
    Cancelled,
}

/// A build of the load.
#[derive(Debug, Clone)]
pub(super) struct Load {
    /// What it does.
    pub(super) shape: Shape,
    /// The template's name, used by no other build.
    pub(super) name: String,
    /// Its id.
    pub(super) id: String,
}

/// A step that says whether it ran before in this sandbox, and then its lines.
fn step(number: usize) -> String {
    format!(
        "RUN echo x >> /ran-{number}; \
         [ $(wc -l < /ran-{number}) = 1 ] || {{ echo 'step {number} ran twice'; exit 9; }}; \
         i=1; while [ $i -le {LINES} ]; do echo \"step {number} line $i\"; i=$((i+1)); sleep 0.05; done"
    )
}

fn request(shape: Shape, name: &str) -> Value {
    let last = match shape {
        Shape::Failing => "RUN echo 'this one fails'; exit 3".to_owned(),
        Shape::Cancelled => "RUN sleep 20".to_owned(),
        Shape::Image | Shape::Snapshot => step(2),
    };
    let mut recipe = vec!["ENV N=1".to_owned(), step(1), last];
    let mut request = json!({ "name": name, "memory_mb": 256 });
    if shape == Shape::Snapshot {
        recipe.push("START while :; do sleep 1; done".into());
        request["healthcheck"] = "--interval=200ms --timeout=10s true".into();
    }
    request["recipe"] = recipe.into();
    request
}

/// Submits builds until `enough` is cancelled, and answers them with what the API says of them at their end.
///
/// # Errors
/// When the API refuses a build, or one is not over in time.
pub(super) async fn run(
    api: &Api,
    seed: u64,
    enough: CancellationToken,
    ended: mpsc::Sender<()>,
) -> anyhow::Result<Vec<(Load, Value)>> {
    let mut random = StdRng::seed_from_u64(seed ^ 0x10ad);
    let mut under_way = JoinSet::new();
    let mut over = Vec::new();
    for number in 0.. {
        while under_way.len() >= AT_ONCE {
            over.extend(under_way.join_next().await.transpose()?.transpose()?);
            let _ = ended.try_send(());
        }
        if enough.is_cancelled() {
            break;
        }
        let shape = match random.random_range(0..10) {
            0..5 => Shape::Image,
            5..7 => Shape::Snapshot,
            7 => Shape::Failing,
            _ => Shape::Cancelled,
        };
        let name = format!("load-{seed}-{number}");
        let cancel_after = Duration::from_millis(random.random_range(0..8000));
        under_way.spawn(one(api.clone(), shape, name, cancel_after, enough.clone()));
    }
    while let Some(one) = under_way.join_next().await {
        over.push(one??);
        let _ = ended.try_send(());
    }
    Ok(over)
}

async fn one(
    api: Api,
    shape: Shape,
    name: String,
    cancel_after: Duration,
    enough: CancellationToken,
) -> anyhow::Result<(Load, Value)> {
    let build = submitted(&api, shape, &name).await?;
    let id = build["id"].as_str().context("a build without id")?.to_owned();
    let load = Load { shape, name, id };
    if shape == Shape::Cancelled {
        sleep(cancel_after).await;
        cancelled(&api, &load.id).await?;
    }
    let mut late = None;
    loop {
        if let Ok(build) = api.build_get(&load.id).await
            && matches!(build["status"].as_str(), Some("succeeded" | "failed" | "cancelled"))
        {
            return Ok((load, build));
        }
        if enough.is_cancelled() {
            let until = *late.get_or_insert_with(|| Instant::now() + LONGEST);
            anyhow::ensure!(Instant::now() < until, "{} ({}) hangs", load.name, load.id);
        }
        sleep(ASK_AGAIN).await;
    }
}

/// Asks until the API answers; the key makes it one build however often it is asked.
async fn submitted(api: &Api, shape: Shape, name: &str) -> anyhow::Result<Value> {
    let until = Instant::now() + LONGEST;
    loop {
        match api.build_submit(&request(shape, name), name).await {
            Ok(build) => return Ok(build),
            Err(error) if refused(&error) || Instant::now() > until => return Err(error),
            Err(_) => sleep(ASK_AGAIN).await,
        }
    }
}

async fn cancelled(api: &Api, id: &str) -> anyhow::Result<()> {
    let until = Instant::now() + LONGEST;
    loop {
        match api.build_cancel(id, "the fault suite").await {
            Ok(_) => return Ok(()),
            Err(error) if error.to_string().contains("409") => return Ok(()),
            Err(error) if refused(&error) || Instant::now() > until => return Err(error),
            Err(_) => sleep(ASK_AGAIN).await,
        }
    }
}

/// The API's own no, which asking again does not change. What an api that was killed had begun is held for a while.
fn refused(error: &anyhow::Error) -> bool {
    let text = error.to_string();
    if text.contains("idempotency_held") {
        return false;
    }
    ["400", "401", "403", "404", "409", "422"]
        .iter()
        .any(|code| text.starts_with(&format!("the API says {code}")))
}
