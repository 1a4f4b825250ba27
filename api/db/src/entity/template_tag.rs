//! `template_tags`: where each tag points and pointed; moving one back is the rollback. A passive row: no behaviour, no queries.

use sea_orm::entity::prelude::*;

/// One row of `template_tags`.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "template_tags")]
pub struct Model {
    /// The entry.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// Name of the template.
    #[sea_orm(column_type = "Text")]
    pub name: String,
    /// The tag.
    #[sea_orm(column_type = "Text")]
    pub tag: String,
    /// What it points to.
    pub template_id: Uuid,
    /// Who moved it.
    #[sea_orm(column_type = "Text")]
    pub set_by: String,
    /// When it was moved here.
    pub set_at: DateTimeUtc,
    /// When it was moved on; absent for the present one.
    pub superseded_at: Option<DateTimeUtc>,
    /// Who moved it on, or took it away.
    #[sea_orm(column_type = "Text", nullable)]
    pub superseded_by: Option<String>,
}

/// Joins are written where they are needed.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
