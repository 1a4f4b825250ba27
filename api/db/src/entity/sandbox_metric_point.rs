//! `sandbox_metric_points`: what sandboxes used. A passive row: no behaviour, no queries.

use sea_orm::entity::prelude::*;

/// One row of `sandbox_metric_points`.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "sandbox_metric_points")]
pub struct Model {
    /// The sandbox.
    #[sea_orm(primary_key, auto_increment = false)]
    pub sandbox_id: Uuid,
    /// `10m`, `2h` or `24h`.
    #[sea_orm(primary_key, auto_increment = false, column_type = "Text")]
    pub range: String,
    /// When.
    #[sea_orm(primary_key, auto_increment = false)]
    pub at: DateTimeUtc,
    /// CPU, in percent of one.
    pub cpu_pct: f64,
    /// Memory, in bytes.
    pub mem_bytes: i64,
    /// Disk, in bytes.
    pub disk_bytes: i64,
}

/// Joins are written where they are needed.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
