//! `template_placements`: which host holds which template. A passive row: no behaviour, no queries.

use sea_orm::entity::prelude::*;

/// One row of `template_placements`.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "template_placements")]
pub struct Model {
    /// The template.
    #[sea_orm(primary_key, auto_increment = false)]
    pub template_id: Uuid,
    /// The host.
    #[sea_orm(primary_key, auto_increment = false)]
    pub host_id: Uuid,
    /// `present`, `deleting` or `missing`.
    #[sea_orm(column_type = "Text")]
    pub state: String,
    /// Size there, in bytes.
    pub bytes: i64,
    /// When that was last known to be so.
    pub seen_at: DateTimeUtc,
}

/// Joins are written where they are needed.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
