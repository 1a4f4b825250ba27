//! What is told of a sandbox, and how its row becomes that. No decision is made here.

use chrono::{DateTime, Utc};
use ovenbird_agent_client::MetricRange;
use ovenbird_contract::{
    id::{HostId, SandboxId, TemplateId},
    sandbox::{Reason, Status},
};
use ovenbird_db::{
    entity::sandbox::Model as Row,
    store::sandbox::{MetricPoint, SandboxDetail},
};
use poem_openapi::{Enum, Object};

use crate::app::Error;

/// Where a sandbox stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
pub enum SandboxStatus {
    /// Its host is making it.
    Creating,
    /// It can be used.
    Running,
    /// Its memory is on its way to the host's disk.
    Pausing,
    /// Its memory is on the host's disk; resume it to use it.
    Paused,
    /// Its memory is on its way back.
    Resuming,
    /// It is becoming a template.
    Saving,
    /// It is being removed; when its host does not answer, as soon as it does.
    Destroying,
    /// Nothing of it is left on its host.
    Destroyed,
    /// It ended by itself; `reason` says why.
    Failed,
}

impl From<Status> for SandboxStatus {
    fn from(status: Status) -> Self {
        match status {
            Status::Creating => Self::Creating,
            Status::Running => Self::Running,
            Status::Pausing => Self::Pausing,
            Status::Paused => Self::Paused,
            Status::Resuming => Self::Resuming,
            Status::Saving => Self::Saving,
            Status::Destroying => Self::Destroying,
            Status::Destroyed => Self::Destroyed,
            Status::Failed => Self::Failed,
        }
    }
}

impl From<SandboxStatus> for Status {
    fn from(status: SandboxStatus) -> Self {
        match status {
            SandboxStatus::Creating => Self::Creating,
            SandboxStatus::Running => Self::Running,
            SandboxStatus::Pausing => Self::Pausing,
            SandboxStatus::Paused => Self::Paused,
            SandboxStatus::Resuming => Self::Resuming,
            SandboxStatus::Saving => Self::Saving,
            SandboxStatus::Destroying => Self::Destroying,
            SandboxStatus::Destroyed => Self::Destroyed,
            SandboxStatus::Failed => Self::Failed,
        }
    }
}

/// A microVM that somebody started from a template.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct Sandbox {
    /// Its id.
    pub id: String,
    /// The template that it started from.
    pub template_id: String,
    /// That template's name.
    pub template: String,
    /// Where it stands.
    pub status: SandboxStatus,
    /// Virtual CPUs.
    #[oai(validator(minimum(value = "0")))]
    pub vcpus: u32,
    /// Memory, in MiB.
    #[oai(validator(minimum(value = "0")))]
    pub memory_mb: u32,
    /// Size of the root disk, in MiB, where one was asked for.
    #[oai(validator(minimum(value = "0")))]
    pub disk_mb: Option<u32>,
    /// Idle seconds until it is paused by itself; 0 means never.
    #[oai(validator(minimum(value = "0")))]
    pub timeout_sec: u32,
    /// The host that it is on.
    pub host_id: String,
    /// Its address, reachable from its host.
    pub host_ip: Option<String>,
    /// Why it failed.
    pub reason: Option<SandboxReason>,
    /// The template that it becomes, or became.
    pub snapshot: Option<SandboxSnapshot>,
    /// Who asked for it: the id of an API key.
    pub requested_by: String,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// When it was last used, as far as its host has told.
    pub last_active_at: DateTime<Utc>,
    /// When it was gone.
    pub destroyed_at: Option<DateTime<Utc>>,
}

/// Why a sandbox failed.
#[derive(Debug, Object)]
pub struct SandboxReason {
    /// A stable word, such as `stopped`.
    pub code: String,
    /// What happened.
    pub message: String,
}

/// The template that a sandbox becomes.
#[derive(Debug, Object)]
pub struct SandboxSnapshot {
    /// The template's id.
    pub template_id: String,
    /// Its name.
    pub name: String,
    /// The tag that points to it once it is there.
    pub tag: String,
}

/// A page of sandboxes.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct SandboxList {
    /// Newest first.
    pub items: Vec<Sandbox>,
    /// Pass it as `cursor` for the next page; absent on the last one.
    pub next_cursor: Option<String>,
}

/// How far back metrics go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub enum MetricsRange {
    /// Ten minutes, a point every 5 s.
    #[oai(rename = "10m")]
    TenMinutes,
    /// Two hours, a point every minute.
    #[oai(rename = "2h")]
    TwoHours,
    /// A day, a point every ten minutes.
    #[oai(rename = "24h")]
    Day,
}

/// What a sandbox used.
#[derive(Debug, Object)]
pub struct SandboxMetrics {
    /// Oldest first. While it is paused there are none.
    pub points: Vec<SandboxMetric>,
}

/// What a sandbox used at a time.
#[derive(Debug, Object)]
pub struct SandboxMetric {
    /// When.
    pub at: DateTime<Utc>,
    /// Of one processor, in percent: 100 is one virtual CPU that is busy all the time.
    pub cpu_pct: f64,
    /// The host's memory that it takes, in bytes.
    pub mem_bytes: i64,
    /// What its disk takes on the host, in bytes.
    pub disk_bytes: i64,
}

impl From<MetricPoint> for SandboxMetric {
    fn from(point: MetricPoint) -> Self {
        let MetricPoint { at, cpu_pct, mem_bytes, disk_bytes } = point;
        Self { at, cpu_pct, mem_bytes, disk_bytes }
    }
}

impl Sandbox {
    /// A sandbox as it is told, with the name of its template.
    ///
    /// # Errors
    /// When the row holds what this version never writes.
    pub fn of(row: Row, template: String) -> Result<Self, Error> {
        let snapshot = match (row.snapshot_id, row.snapshot_name, row.snapshot_tag) {
            (Some(id), Some(name), Some(tag)) => {
                let template_id = TemplateId::from_uuid(id).to_string();
                Some(SandboxSnapshot { template_id, name, tag })
            }
            _ => None,
        };
        let status = row.status.parse::<Status>().map_err(corrupt)?;
        Ok(Self {
            id: SandboxId::from_uuid(row.id).to_string(),
            template_id: TemplateId::from_uuid(row.template_id).to_string(),
            template,
            status: status.into(),
            vcpus: row.vcpus.unsigned_abs(),
            memory_mb: row.memory_mb.unsigned_abs(),
            disk_mb: row.disk_mb.map(i32::unsigned_abs),
            timeout_sec: row.timeout_sec.unsigned_abs(),
            host_id: HostId::from_uuid(row.host_id).to_string(),
            host_ip: row.host_ip,
            reason: row.reason.map(reason).transpose()?,
            snapshot,
            requested_by: row.requested_by,
            created_at: row.created_at,
            last_active_at: row.last_active_at,
            destroyed_at: row.destroyed_at,
        })
    }
}

impl TryFrom<SandboxDetail> for Sandbox {
    type Error = Error;

    fn try_from(detail: SandboxDetail) -> Result<Self, Error> {
        Self::of(detail.sandbox, detail.template.name)
    }
}

/// The code is told as its word in JSON, so that a new one needs no change here.
fn reason(json: serde_json::Value) -> Result<SandboxReason, Error> {
    let reason: Reason = serde_json::from_value(json).map_err(corrupt)?;
    let code = serde_json::to_value(reason.code).map_err(corrupt)?;
    let code = code.as_str().unwrap_or_default().to_owned();
    Ok(SandboxReason { code, message: reason.message })
}

fn corrupt(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::internal("reading a sandbox's row", error)
}

impl From<MetricsRange> for MetricRange {
    fn from(range: MetricsRange) -> Self {
        match range {
            MetricsRange::TenMinutes => Self::TenMinutes,
            MetricsRange::TwoHours => Self::TwoHours,
            MetricsRange::Day => Self::Day,
        }
    }
}
