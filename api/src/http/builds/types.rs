//! What is told of a build, and how its row becomes that. No decision is made here.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use ovenbird_contract::{
    build::{Reason, Status},
    id::{BuildId, HostId, SandboxId, TemplateId},
    step::{Amount, Phase, StepLog},
};
use ovenbird_db::{entity::template_build, store::build_admin::BuildDetail};
use poem_openapi::{Enum, Object};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::submission::RecipeEntry;
use crate::app::{Error, builds};

/// Where a build stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
pub enum BuildStatus {
    /// Waits for a runner.
    Queued,
    /// A runner works on it.
    Running,
    /// Somebody cancelled it; its sandbox is being destroyed.
    Cancelling,
    /// Its template is published.
    Succeeded,
    /// It ended without a template; `reason` says why.
    Failed,
    /// Somebody cancelled it; `sandbox_destroyed_at` says when its sandbox was gone.
    Cancelled,
}

impl From<Status> for BuildStatus {
    fn from(status: Status) -> Self {
        match status {
            Status::Queued => Self::Queued,
            Status::Running => Self::Running,
            Status::Cancelling => Self::Cancelling,
            Status::Succeeded => Self::Succeeded,
            Status::Failed => Self::Failed,
            Status::Cancelled => Self::Cancelled,
        }
    }
}

impl From<BuildStatus> for Status {
    fn from(status: BuildStatus) -> Self {
        match status {
            BuildStatus::Queued => Self::Queued,
            BuildStatus::Running => Self::Running,
            BuildStatus::Cancelling => Self::Cancelling,
            BuildStatus::Succeeded => Self::Succeeded,
            BuildStatus::Failed => Self::Failed,
            BuildStatus::Cancelled => Self::Cancelled,
        }
    }
}

/// A build.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct Build {
    /// Its id.
    pub id: String,
    /// Name of the template to be.
    pub name: String,
    /// Tag of the template to be.
    pub tag: String,
    /// The template it starts from, as submitted.
    pub base_template: String,
    /// The steps, as submitted.
    pub recipe: Vec<RecipeEntry>,
    /// When the template is ready, as submitted.
    pub healthcheck: Option<String>,
    /// Virtual CPUs of the sandbox.
    #[oai(validator(minimum(value = "0")))]
    pub vcpus: u32,
    /// Memory of the sandbox, in MiB.
    #[oai(validator(minimum(value = "0")))]
    pub memory_mb: u32,
    /// Size of the root disk, in MiB, where one was asked for.
    #[oai(validator(minimum(value = "0")))]
    pub disk_mb: Option<u32>,
    /// sha256, in hex, of the context that `COPY` takes from.
    #[oai(validator(pattern = "^[0-9a-f]{64}$"))]
    pub context: Option<String>,
    /// The lane whose runners may take it.
    pub lane: String,
    /// Labels that its host must have, where some were asked for.
    pub labels: Option<BTreeMap<String, String>>,
    /// Where it stands.
    pub status: BuildStatus,
    /// The present or last attempt; 0 before the first.
    #[oai(validator(minimum(value = "0")))]
    pub attempt: u32,
    /// The step that was started last, as you numbered it; 0 before the first.
    #[oai(validator(minimum(value = "0")))]
    pub current_step: u32,
    /// Steps of the recipe.
    #[oai(validator(minimum(value = "0")))]
    pub total_steps: u32,
    /// What each step did, with the head and tail of its output. Absent in lists.
    pub logs: Option<Vec<StepEntry>>,
    /// Why it failed, why it is queued again, or why its sandbox is not destroyed yet.
    pub reason: Option<BuildReason>,
    /// The host it runs or ran on.
    pub host_id: Option<String>,
    /// The sandbox it runs or ran in.
    pub sandbox_id: Option<String>,
    /// The template it made.
    pub template_id: Option<String>,
    /// Who asked for it: the id of an API key.
    pub requested_by: String,
    /// Who cancelled it.
    pub cancel: Option<Cancel>,
    /// When the sandbox of the cancelled build was gone, by its host's own word; absent when it had none.
    pub sandbox_destroyed_at: Option<DateTime<Utc>>,
    /// User for whoever starts a sandbox from its template; there once the build succeeded.
    pub default_user: Option<String>,
    /// Environment for whoever starts a sandbox from its template; there once the build succeeded.
    pub default_env: Option<BTreeMap<String, String>>,
    /// When it was submitted.
    pub created_at: DateTime<Utc>,
    /// When it was last put into the queue.
    pub queued_at: DateTime<Utc>,
    /// When its first attempt began.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub completed_at: Option<DateTime<Utc>>,
    /// The build that this one repeats.
    pub retry_of: Option<String>,
    /// Where to go from here.
    pub links: BuildLinks,
}

/// Paths of a build.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct BuildLinks {
    /// The build.
    #[oai(rename = "self")]
    pub itself: String,
    /// Its log, in pages.
    pub logs: String,
    /// Its log, live.
    pub stream: String,
    /// Cancels it; there as long as it can be.
    pub cancel: Option<String>,
    /// Retries it; there once it can be.
    pub retry: Option<String>,
    /// The build that this one repeats.
    pub retry_of: Option<String>,
}

/// A cancel.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct Cancel {
    /// When it was asked for.
    pub at: DateTime<Utc>,
    /// Who asked: the id of an API key.
    pub by: String,
    /// Why.
    pub why: Option<String>,
}

/// Why a build failed or went back to the queue.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct BuildReason {
    /// A stable word, such as `step_failed`.
    pub code: String,
    /// What happened and what to do.
    pub message: String,
    /// The step, as you numbered it.
    #[oai(validator(minimum(value = "0")))]
    pub step: Option<u32>,
    /// The end of the step's output, or of the sandbox's console.
    pub tail: Option<String>,
}

/// The part of a build that a step belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
pub enum StepPhase {
    /// Booting the sandbox.
    Boot,
    /// The base template's hooks before the steps.
    Pre,
    /// A step of the recipe.
    Step,
    /// The base template's hooks after the steps.
    Post,
    /// Waiting for the healthcheck.
    Health,
    /// Writing the template.
    Publish,
}

/// What one step did.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct StepEntry {
    /// The step, as you numbered it; 0 outside of the recipe.
    #[oai(validator(minimum(value = "0")))]
    pub step: u32,
    /// The part of the build.
    pub phase: StepPhase,
    /// The step as you wrote it, or what is done, in words.
    pub cmd: String,
    /// Head and tail of its standard output.
    pub stdout: String,
    /// Head and tail of its standard error.
    pub stderr: String,
    /// Its exit code, where a command ended.
    pub exit: Option<i32>,
    /// Whether it did what was asked.
    pub ok: bool,
    /// How long it took, in milliseconds.
    #[oai(validator(minimum(value = "0")))]
    pub elapsed_ms: u64,
    /// Taken from an earlier build instead of run.
    pub cached: bool,
    /// What `stdout` and `stderr` leave out; it is in the log, but for `log_truncated`.
    pub truncated: Option<StepTruncated>,
    /// What of its output the caps kept out of the log, too. Head and tail are always there.
    pub log_truncated: Option<StepTruncated>,
}

/// Output that is left out.
#[derive(Debug, Object)]
pub struct StepTruncated {
    /// Bytes left out.
    #[oai(validator(minimum(value = "0")))]
    pub bytes: u64,
    /// Line ends among them.
    #[oai(validator(minimum(value = "0")))]
    pub lines: u64,
}

impl From<Amount> for StepTruncated {
    fn from(left: Amount) -> Self {
        Self { bytes: left.bytes, lines: left.lines }
    }
}

impl From<StepLog> for StepEntry {
    fn from(step: StepLog) -> Self {
        Self {
            step: step.step,
            phase: match step.phase {
                Phase::Boot => StepPhase::Boot,
                Phase::Pre => StepPhase::Pre,
                Phase::Step => StepPhase::Step,
                Phase::Post => StepPhase::Post,
                Phase::Health => StepPhase::Health,
                Phase::Publish => StepPhase::Publish,
            },
            cmd: step.cmd,
            stdout: step.stdout,
            stderr: step.stderr,
            exit: step.exit,
            ok: step.ok,
            elapsed_ms: step.elapsed_ms,
            cached: step.cached,
            truncated: step.truncated.map(StepTruncated::from),
            log_truncated: step.log_truncated.map(StepTruncated::from),
        }
    }
}

impl Build {
    /// A build as it is told alone, its step logs included.
    ///
    /// # Errors
    /// When the row holds what this version never writes.
    pub fn whole(found: BuildDetail) -> Result<Self, Error> {
        let BuildDetail { mut build, template } = found;
        let logs: Vec<StepLog> = read("template_builds.logs", build.logs.take())?;
        let logs = logs.into_iter().map(StepEntry::from).collect();
        let mut told = Self::brief(build)?;
        told.logs = Some(logs);
        if let Some(template) = template {
            told.default_env = Some(read("templates.default_env", template.default_env)?);
            told.default_user = template.default_user;
        }
        Ok(told)
    }

    /// A build as it is told in a list.
    ///
    /// # Errors
    /// As [`Build::whole`].
    pub fn brief(row: template_build::Model) -> Result<Self, Error> {
        let id = BuildId::from_uuid(row.id);
        let status: Status = row.status.parse().map_err(corrupt)?;
        let reason = match row.reason {
            Some(reason) => Some(told(read("template_builds.reason", reason)?)?),
            None => None,
        };
        let cancel = row.cancel_requested_at.map(|at| Cancel {
            at,
            by: row.cancel_requested_by.unwrap_or_default(),
            why: row.cancel_requested_why,
        });
        let labels: BTreeMap<_, _> = read("template_builds.labels", row.labels)?;
        Ok(Self {
            name: row.name,
            tag: row.tag,
            base_template: row.base_template,
            recipe: builds::recipe_entries(row.recipe).into_iter().map(RecipeEntry).collect(),
            healthcheck: row.healthcheck,
            vcpus: row.vcpus.unsigned_abs(),
            memory_mb: row.memory_mb.unsigned_abs(),
            disk_mb: row.disk_mb.map(i32::unsigned_abs),
            context: row.context_digest,
            lane: row.lane,
            labels: Some(labels).filter(|labels| !labels.is_empty()),
            status: status.into(),
            attempt: row.attempt.unsigned_abs(),
            current_step: row.current_step.unsigned_abs(),
            total_steps: row.total_steps.unsigned_abs(),
            logs: None,
            reason,
            host_id: row.host_id.map(|id| HostId::from_uuid(id).to_string()),
            sandbox_id: row.sandbox_id.map(|id| SandboxId::from_uuid(id).to_string()),
            template_id: row.template_id.map(|id| TemplateId::from_uuid(id).to_string()),
            requested_by: row.requested_by,
            cancel,
            sandbox_destroyed_at: row.sandbox_destroyed_at,
            default_user: None,
            default_env: None,
            created_at: row.created_at,
            queued_at: row.queued_at,
            started_at: row.started_at,
            completed_at: row.completed_at,
            retry_of: row.retry_of.map(|id| BuildId::from_uuid(id).to_string()),
            links: links(id, status, row.retry_of.map(BuildId::from_uuid)),
            id: id.to_string(),
        })
    }
}

fn links(id: BuildId, status: Status, retry_of: Option<BuildId>) -> BuildLinks {
    let itself = format!("/v1/admin/builds/{id}");
    let below = |what: &str| format!("{itself}/{what}");
    BuildLinks {
        logs: below("logs"),
        stream: below("logs/stream"),
        cancel: matches!(status, Status::Queued | Status::Running).then(|| below("cancel")),
        retry: matches!(status, Status::Failed | Status::Cancelled).then(|| below("retry")),
        retry_of: retry_of.map(|id| format!("/v1/admin/builds/{id}")),
        itself,
    }
}

/// The code is told as its word in JSON, so that a new one needs no change here.
fn told(reason: Reason) -> Result<BuildReason, Error> {
    let code = serde_json::to_value(reason.code).map_err(corrupt)?;
    Ok(BuildReason {
        code: code.as_str().unwrap_or_default().to_owned(),
        message: reason.message,
        step: reason.step,
        tail: reason.tail,
    })
}

fn read<T: DeserializeOwned>(column: &'static str, value: Value) -> Result<T, Error> {
    serde_json::from_value(value).map_err(|error| Error::internal(column, error))
}

fn corrupt(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::internal("reading a build's row", error)
}
