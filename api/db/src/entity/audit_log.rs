//! `audit_log`: who did what. A passive row: no behaviour, no queries.

use sea_orm::entity::prelude::*;

/// One row of `audit_log`.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "audit_log")]
pub struct Model {
    /// The entry.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// When.
    pub at: DateTimeUtc,
    /// Who.
    #[sea_orm(column_type = "Text")]
    pub actor: String,
    /// What.
    #[sea_orm(column_type = "Text")]
    pub action: String,
    /// To what.
    #[sea_orm(column_type = "Text")]
    pub target: String,
    /// In which request.
    #[sea_orm(column_type = "Text", nullable)]
    pub request_id: Option<String>,
    /// HTTP status of the answer; none while it is being done, or when its end is not known.
    pub status: Option<i32>,
    /// What else is known.
    #[sea_orm(column_type = "JsonBinary")]
    pub details: Json,
}

/// Joins are written where they are needed.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
