//! What runners ask of the desk, and its answers: request and reply on `desk.{claim,renew,finish,release}`; and what
//! bridges ask, `desk.hear`.
//!
//! Every request names the attempt and the runner; the desk compares both, and the lease, in the statement
//! that writes. An answer is [`Reply`]: `{"ok":…}` or `{"refused":{…}}`. A refusal is final for this attempt
//! unless it carries `retry_after_ms`. A request may have the header `traceparent`, of the attempt that asks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    build::Reason,
    id::{BuildId, HostId, RunnerId, TemplateId},
    log::LogCaps,
    standing::ResumeFrom,
};

/// The desk's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply<T> {
    /// Done.
    Ok(T),
    /// Not done, and nothing changed.
    Refused(Refusal),
}

/// Why the desk did nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// A stable word.
    pub code: RefusalCode,
    /// For people.
    pub message: String,
    /// Ask again after this long; absent means never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

/// The stable words of [`Refusal::code`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// No such build.
    NotFound,
    /// The build is not in a state that allows it: another runner has it, or it is over.
    NotClaimable,
    /// Attempt or lease are no longer the caller's.
    StaleAttempt,
    /// No host has room for it, or none holds its base template.
    NoCapacity,
    /// The build's key has as many builds running as it may. The job is to be acknowledged: another one comes.
    KeyLimit,
    /// The request could not be read.
    BadRequest,
    /// The desk could not reach Postgres or NATS.
    Unavailable,
}

/// Asks for a build: `desk.claim`. Repeating it by the same runner answers the same claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimRequest {
    /// The build.
    pub build_id: BuildId,
    /// The attempt of the job.
    pub attempt: u32,
    /// Who asks.
    pub runner_id: RunnerId,
}

/// What a runner needs to work. `P` is the plan: the desk passes it through as stored, a runner reads it
/// as the recipe crate's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Claim<P> {
    /// The build.
    pub build_id: BuildId,
    /// The attempt that now runs.
    pub attempt: u32,
    /// The lease ends after this long without renewal; renew every third of it.
    pub lease_ms: u64,
    /// The steps.
    pub plan: P,
    /// Digest of `plan`.
    pub plan_digest: String,
    /// Name and tag of the template to be.
    pub name: String,
    /// See `name`.
    pub tag: String,
    /// Virtual CPUs of the sandbox.
    pub vcpus: u32,
    /// Memory of the sandbox, in MiB.
    pub memory_mb: u32,
    /// Size of the root disk, in MiB; absent means the base template's.
    #[serde(default)]
    pub disk_mb: Option<u32>,
    /// sha256, in hex, of the context that `COPY` takes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// What the sandbox starts from.
    pub base: Base,
    /// Where it runs.
    pub host: Host,
    /// The id, and the name on the host, of the template that this attempt writes. An attempt that goes on
    /// keeps it: it may be written already.
    pub template_id: TemplateId,
    /// The sandbox of an attempt before, to be destroyed first.
    #[serde(default)]
    pub previous_sandbox_id: Option<String>,
    /// Where the attempt before stood, on the same host: go on there. Absent: begin from the first step.
    #[serde(default)]
    pub resume: Option<ResumeFrom>,
    /// Where the log goes on.
    pub log: LogPosition,
    /// How much goes into it.
    #[serde(default)]
    pub log_caps: LogCaps,
    /// How long the build may go on; absent: for ever.
    #[serde(default)]
    pub time_limit: Option<TimeLimit>,
}

/// The build's overall time, from the beginning of its first attempt. What is left travels as a duration, because
/// the clocks of two machines differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeLimit {
    /// All of it, for people.
    pub max_ms: u64,
    /// What is left. The runner ends the build as failed after this long; nothing of it is tried again.
    pub left_ms: u64,
}

/// A base template, as the host knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// Its name in the catalogue.
    pub name: String,
    /// Its name on the host, for `CreateSandbox`.
    pub host_name: String,
    /// Its default environment, which the build inherits.
    #[serde(default)]
    pub default_env: BTreeMap<String, String>,
    /// Its default user, which the build inherits.
    #[serde(default)]
    pub default_user: Option<String>,
}

/// A host agent's address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// The host.
    pub id: HostId,
    /// `host:port`.
    pub address: String,
    /// The name in its certificate.
    pub server_name: String,
}

/// Where a build's log stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPosition {
    /// The first record to write.
    pub next_seq: u64,
    /// Stream sequence of the last message on the log subject; 0 when there is none.
    pub stream_seq: u64,
}

/// Keeps the lease: `desk.renew`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewRequest {
    /// The build.
    pub build_id: BuildId,
    /// The caller's attempt.
    pub attempt: u32,
    /// The caller.
    pub runner_id: RunnerId,
}

/// The lease goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewed {
    /// Ends after this long.
    pub lease_ms: u64,
    /// Somebody cancelled the build: stop, destroy the sandbox, finish as cancelled.
    #[serde(default)]
    pub cancel: bool,
}

/// Ends the build: `desk.finish`. Repeating it by the same runner answers the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinishRequest {
    /// The build.
    pub build_id: BuildId,
    /// The caller's attempt.
    pub attempt: u32,
    /// The caller.
    pub runner_id: RunnerId,
    /// How it ended.
    pub outcome: Outcome,
    /// Where the log stands after the runner's last record; the desk writes the terminal record after it.
    pub log: LogPosition,
    /// Stream sequence of the runner's last event, so that the row holds every step before it is terminal.
    pub event_stream_seq: u64,
}

/// How the runner's work ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "result")]
pub enum Outcome {
    /// The template is on the host.
    Succeeded(Published),
    /// It failed, and nothing was published.
    Failed {
        /// Why.
        reason: Reason,
    },
    /// The sandbox of a cancelled build is gone.
    Cancelled,
}

/// A template as the runner left it on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Image or snapshot.
    pub kind: TemplateKind,
    /// Its size on the host, in bytes.
    pub size_bytes: u64,
    /// Environment for whoever starts a sandbox from it.
    pub default_env: BTreeMap<String, String>,
    /// User for whoever starts a sandbox from it.
    #[serde(default)]
    pub default_user: Option<String>,
}

/// What a template holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TemplateKind {
    /// A root disk; sandboxes boot from it.
    Image,
    /// Root disk and memory; sandboxes fork from it.
    Snapshot,
}

impl TemplateKind {
    /// The word in Postgres and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Snapshot => "snapshot",
        }
    }
}

/// The build is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finished {}

/// Gives a build back to the queue: `desk.release`. Its sandbox and what runs there are left as they are, for
/// the next runner, unless `lost` is set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseRequest {
    /// The build.
    pub build_id: BuildId,
    /// The caller's attempt.
    pub attempt: u32,
    /// The caller.
    pub runner_id: RunnerId,
    /// Why, for the log.
    pub why: String,
    /// The attempt is lost through no fault of the recipe: it counts, and a host that is to blame
    /// ([`ReasonCode::is_host`](crate::build::ReasonCode::is_host)) is avoided by the next attempt. The build
    /// ends with this reason when no attempt is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<Reason>,
}

/// The build is queued again, or has ended because no attempt is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {}

/// The last word of the subject on which a bridge asks whether runners are heard; without a payload.
pub const HEAR: &str = "hear";

/// They are, and Postgres has noted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusal_has_the_documented_json() {
        let reply: Reply<Finished> = Reply::Refused(Refusal {
            code: RefusalCode::StaleAttempt,
            message: "attempt 2 runs".into(),
            retry_after_ms: None,
        });
        insta::assert_json_snapshot!(reply);
    }
}
