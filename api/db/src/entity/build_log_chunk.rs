//! `build_log_chunks`: runs of log records, compressed. [`crate::chunk`] reads and writes `records`. A passive row: no behaviour, no queries.

use sea_orm::entity::prelude::*;

/// One row of `build_log_chunks`.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "build_log_chunks")]
pub struct Model {
    /// The build.
    #[sea_orm(primary_key, auto_increment = false)]
    pub build_id: Uuid,
    /// `seq` of the first record.
    #[sea_orm(primary_key, auto_increment = false)]
    pub first_seq: i64,
    /// `seq` of the last record.
    pub last_seq: i64,
    /// zstd of a JSON array of records.
    #[sea_orm(column_type = "VarBinary(StringLen::None)")]
    pub records: Vec<u8>,
    /// Stream sequence of the message that held the last record.
    pub stream_seq: i64,
    /// When it was written.
    pub created_at: DateTimeUtc,
}

/// Joins are written where they are needed.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
