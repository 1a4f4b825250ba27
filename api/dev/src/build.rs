//! Following one build from its submission to its end, for the demo and the end-to-end tests.

use std::time::{Duration, Instant};

use anyhow::Context;
use futures::StreamExt;
use serde_json::Value;

use crate::api::Api;

/// The longest a build of ours may take before it counts as stuck.
const LONGEST: Duration = Duration::from_secs(600);

/// A build that ended, and what was seen of it.
#[derive(Debug, Clone)]
pub struct Followed {
    /// The build as the API answers it, after its end.
    pub build: Value,
    /// Every record of its log, the terminal one included, in the order in which they came.
    pub records: Vec<Value>,
    /// From the submission to the first line of a step.
    pub first_line: Option<Duration>,
    /// From the submission to the terminal record.
    pub total: Duration,
}

impl Followed {
    /// Its status.
    pub fn status(&self) -> &str {
        self.build["status"].as_str().unwrap_or_default()
    }

    /// The name of its template on the host.
    ///
    /// # Errors
    /// When it has none.
    pub fn template(&self) -> anyhow::Result<&str> {
        self.build["template_id"].as_str().with_context(|| format!("no template: {}", self.build))
    }

    /// Why it failed, with the tail of the step's output.
    pub fn reason(&self) -> String {
        let reason = &self.build["reason"];
        let text = |key: &str| reason[key].as_str().unwrap_or_default();
        format!("{} {}\n{}", self.status(), text("message"), text("tail"))
    }
}

/// Submits a build and follows its log over SSE to the end; `seen` gets each record as it comes.
///
/// # Errors
/// When the API refuses it, the stream breaks, or the build takes over ten minutes.
pub async fn follow(
    api: &Api,
    request: &Value,
    seen: impl FnMut(&Value),
) -> anyhow::Result<Followed> {
    let submitted = Instant::now();
    let build = api.build_create(request).await?;
    let id = build["id"].as_str().context("a build without id")?;
    follow_existing(api, id, submitted, seen).await
}

/// Follows a build that was submitted at `submitted`.
///
/// # Errors
/// As [`follow`].
pub async fn follow_existing(
    api: &Api,
    id: &str,
    submitted: Instant,
    mut seen: impl FnMut(&Value),
) -> anyhow::Result<Followed> {
    let mut records = Vec::new();
    let mut first_line = None;
    let reading = async {
        let mut stream = std::pin::pin!(api.logs_stream(id, 0).await?);
        while let Some(record) = stream.next().await {
            let record = record?;
            let of_step = record["step"].as_u64().is_some_and(|step| step > 0);
            if of_step && record["stream"] != "system" && first_line.is_none() {
                first_line = Some(submitted.elapsed());
            }
            seen(&record);
            records.push(record);
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(LONGEST, reading).await.context("the build hangs")??;
    let total = submitted.elapsed();
    let ended = records.last().is_some_and(|record| record.get("end").is_some());
    anyhow::ensure!(ended, "the log stream of {id} ended before its terminal record");
    Ok(Followed { build: api.build_get(id).await?, records, first_line, total })
}
