//! `contexts`: archives in the object store. A passive row: no behaviour, no queries.

use sea_orm::entity::prelude::*;

/// One row of `contexts`.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "contexts")]
pub struct Model {
    /// sha256 of the archive, in hex; its name in the object store.
    #[sea_orm(primary_key, auto_increment = false)]
    pub digest: String,
    /// Size of the archive.
    pub size_bytes: i64,
    /// Entries of the archive.
    pub entries: i64,
    /// Size of its files when they are unpacked.
    pub unpacked_bytes: i64,
    /// Who uploaded it first.
    pub uploaded_by: String,
    /// When it was uploaded first.
    pub uploaded_at: DateTimeUtc,
    /// When it was last uploaded, or named by a new build.
    pub used_at: DateTimeUtc,
}

/// Joins are written where they are needed.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
