//! `templates`: the catalogue. Where tags point stands in `template_tags`. A passive row: no behaviour, no queries.

use sea_orm::entity::prelude::*;

/// One row of `templates`.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "templates")]
pub struct Model {
    /// The template.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// Its name.
    #[sea_orm(column_type = "Text")]
    pub name: String,
    /// The tag it was published under.
    #[sea_orm(column_type = "Text")]
    pub tag: String,
    /// `image` or `snapshot`.
    #[sea_orm(column_name = "type", column_type = "Text")]
    pub kind: String,
    /// Its name on the hosts.
    #[sea_orm(column_type = "Text")]
    pub host_name: String,
    /// Virtual CPUs of a sandbox.
    pub vcpus: i32,
    /// Memory of a sandbox, in MiB.
    pub memory_mb: i32,
    /// Size on a host, in bytes.
    pub size_bytes: i64,
    /// What its build started from.
    pub base_template_id: Option<Uuid>,
    /// The build that made it; absent for one that came with a host.
    pub build_id: Option<Uuid>,
    /// User for whoever starts a sandbox from it.
    #[sea_orm(column_type = "Text", nullable)]
    pub default_user: Option<String>,
    /// Environment for whoever starts a sandbox from it: an object of texts.
    #[sea_orm(column_type = "JsonBinary")]
    pub default_env: Json,
    /// Digest of its content.
    #[sea_orm(column_type = "Text", nullable)]
    pub digest: Option<String>,
    /// How it was made.
    #[sea_orm(column_type = "JsonBinary")]
    pub provenance: Json,
    /// When it was published.
    pub created_at: DateTimeUtc,
    /// When it was deleted.
    pub deleted_at: Option<DateTimeUtc>,
}

/// Joins are written where they are needed.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
