//! `sandboxes`: those that were started from templates. A passive row: no behaviour, no queries.

use sea_orm::entity::prelude::*;

/// One row of `sandboxes`.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "sandboxes")]
pub struct Model {
    /// The sandbox.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// What it started from.
    pub template_id: Uuid,
    /// Where it is.
    pub host_id: Uuid,
    /// Where it stands.
    #[sea_orm(column_type = "Text")]
    pub status: String,
    /// Virtual CPUs.
    pub vcpus: i32,
    /// Memory, in MiB.
    pub memory_mb: i32,
    /// Root disk, in MiB, where one was asked for.
    pub disk_mb: Option<i32>,
    /// Its address on the host.
    #[sea_orm(column_type = "Text", nullable)]
    pub host_ip: Option<String>,
    /// Idle seconds until it is paused; 0 means never.
    pub timeout_sec: i32,
    /// The requester's own words.
    #[sea_orm(column_type = "JsonBinary")]
    pub labels: Json,
    /// Who asked for it.
    #[sea_orm(column_type = "Text")]
    pub requested_by: String,
    /// Why it failed.
    #[sea_orm(column_type = "JsonBinary", nullable)]
    pub reason: Option<Json>,
    /// When it was asked for.
    pub created_at: DateTimeUtc,
    /// When it was last used.
    pub last_active_at: DateTimeUtc,
    /// When it was gone.
    pub destroyed_at: Option<DateTimeUtc>,
    /// Raised by every change of `status`.
    pub revision: i64,
    /// When `status` was written.
    pub status_since: DateTimeUtc,
    /// A call to its host is under way until then at the latest.
    pub busy_until: Option<DateTimeUtc>,
    /// The template that it becomes, or became.
    pub snapshot_id: Option<Uuid>,
    /// Under this name.
    #[sea_orm(column_type = "Text", nullable)]
    pub snapshot_name: Option<String>,
    /// And this tag.
    #[sea_orm(column_type = "Text", nullable)]
    pub snapshot_tag: Option<String>,
}

/// Joins are written where they are needed.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
