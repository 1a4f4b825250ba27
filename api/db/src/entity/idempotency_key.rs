//! `idempotency_keys`: requests that may be sent again. A passive row: no behaviour, no queries.

use sea_orm::entity::prelude::*;

/// One row of `idempotency_keys`.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "idempotency_keys")]
pub struct Model {
    /// Who sent it.
    #[sea_orm(primary_key, auto_increment = false)]
    pub api_key_id: Uuid,
    /// What it asked for.
    #[sea_orm(primary_key, auto_increment = false, column_type = "Text")]
    pub operation: String,
    /// The client's word for it.
    #[sea_orm(primary_key, auto_increment = false, column_type = "Text")]
    pub idempotency_key: String,
    /// Keyed hash of its path and body.
    #[sea_orm(column_type = "VarBinary(StringLen::None)")]
    pub fingerprint: Vec<u8>,
    /// The id of what it makes.
    pub resource_id: Uuid,
    /// Who carries it out.
    pub holder: Uuid,
    /// Until when the others leave it alone.
    pub held_until: DateTimeUtc,
    /// When it was answered.
    pub answered_at: Option<DateTimeUtc>,
    /// The sealed answer, unless it could not be kept.
    #[sea_orm(column_type = "VarBinary(StringLen::None)", nullable)]
    pub answer: Option<Vec<u8>>,
    /// When it is forgotten.
    pub expires_at: DateTimeUtc,
}

/// Joins are written where they are needed.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
