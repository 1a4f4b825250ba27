//! `template_builds`: the truth about builds. A passive row: no behaviour, no queries.

use sea_orm::entity::prelude::*;

/// One row of `template_builds`.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "template_builds")]
pub struct Model {
    /// The build.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// Name of the template to be.
    #[sea_orm(column_type = "Text")]
    pub name: String,
    /// Tag of the template to be.
    #[sea_orm(column_type = "Text")]
    pub tag: String,
    /// The lane whose runners may take it.
    #[sea_orm(column_type = "Text")]
    pub lane: String,
    /// The base as submitted: `name` or `name:tag`.
    #[sea_orm(column_type = "Text")]
    pub base_template: String,
    /// The base as resolved.
    pub base_template_id: Option<Uuid>,
    /// The steps as submitted.
    #[sea_orm(column_type = "JsonBinary")]
    pub recipe: Json,
    /// The recipe crate's plan.
    #[sea_orm(column_type = "JsonBinary")]
    pub plan: Json,
    /// Digest of `plan`.
    #[sea_orm(column_type = "Text")]
    pub plan_digest: String,
    /// The healthcheck as submitted.
    #[sea_orm(column_type = "Text", nullable)]
    pub healthcheck: Option<String>,
    /// Virtual CPUs of the sandbox.
    pub vcpus: i32,
    /// Memory of the sandbox, in MiB.
    pub memory_mb: i32,
    /// Size of the root disk, in MiB.
    pub disk_mb: Option<i32>,
    /// sha256 of the uploaded context.
    #[sea_orm(column_type = "Text", nullable)]
    pub context_digest: Option<String>,
    /// Leave out the hooks of the base template.
    pub skip_hooks: bool,
    /// Labels that its host must have: an object of texts.
    #[sea_orm(column_type = "JsonBinary")]
    pub labels: Json,
    /// [`ovenbird_contract::build::Status`].
    #[sea_orm(column_type = "Text")]
    pub status: String,
    /// The present or last attempt; 0 before the first.
    pub attempt: i32,
    /// Attempts that were lost since the build last made progress.
    pub lost_attempts: i32,
    /// The attempt that last began from the first step.
    pub fresh_attempt: i32,
    /// Highest step that an attempt had reached when it was lost.
    pub furthest_step: i32,
    /// The host that failed the attempt before.
    pub avoid_host_id: Option<Uuid>,
    /// The runner of the attempt; kept at the end, but for a build whose time was over while it had none.
    pub lease_owner: Option<Uuid>,
    /// When the lease ends.
    pub lease_until: Option<DateTimeUtc>,
    /// Where the attempt runs or ran.
    pub host_id: Option<Uuid>,
    /// Sandbox of the attempt.
    pub sandbox_id: Option<Uuid>,
    /// Sandbox of the attempt before.
    pub previous_sandbox_id: Option<Uuid>,
    /// The template that the attempt writes.
    pub planned_template_id: Option<Uuid>,
    /// Highest step that was started.
    pub current_step: i32,
    /// Steps of the recipe.
    pub total_steps: i32,
    /// Array of [`ovenbird_contract::step::StepLog`].
    #[sea_orm(column_type = "JsonBinary")]
    pub logs: Json,
    /// Highest stream sequence among the attempt's applied events.
    pub event_stream_seq: i64,
    /// Highest record of the log that is stored.
    pub log_seq: i64,
    /// Whether the terminal record is stored.
    pub log_end_written: bool,
    /// When the relay last published its job.
    pub job_published_at: Option<DateTimeUtc>,
    /// Stream sequence of that job.
    pub job_stream_seq: Option<i64>,
    /// How often the sweep found the job gone.
    pub job_resends: i32,
    /// Since when it waits for the limit of its key.
    pub held_since: Option<DateTimeUtc>,
    /// `traceparent` of the request that asked for it.
    #[sea_orm(column_type = "Text")]
    pub trace: String,
    /// [`ovenbird_contract::build::Reason`].
    #[sea_orm(column_type = "JsonBinary", nullable)]
    pub reason: Option<Json>,
    /// What it published.
    pub template_id: Option<Uuid>,
    /// Who asked for it.
    #[sea_orm(column_type = "Text")]
    pub requested_by: String,
    /// The build that this one repeats.
    pub retry_of: Option<Uuid>,
    /// When its cancel was asked for.
    pub cancel_requested_at: Option<DateTimeUtc>,
    /// By whom.
    #[sea_orm(column_type = "Text", nullable)]
    pub cancel_requested_by: Option<String>,
    /// Why.
    #[sea_orm(column_type = "Text", nullable)]
    pub cancel_requested_why: Option<String>,
    /// When the sandbox of the cancelled build was gone.
    pub sandbox_destroyed_at: Option<DateTimeUtc>,
    /// When it was submitted.
    pub created_at: DateTimeUtc,
    /// When it was last queued.
    pub queued_at: DateTimeUtc,
    /// When its first attempt began.
    pub started_at: Option<DateTimeUtc>,
    /// When it ended.
    pub completed_at: Option<DateTimeUtc>,
}

/// Joins are written where they are needed.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
