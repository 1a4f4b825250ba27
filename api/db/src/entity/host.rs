//! `hosts`: the machines that run agents, as the bridges' poll sees them. A passive row: no behaviour, no queries.

use sea_orm::entity::prelude::*;

/// One row of `hosts`.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "hosts")]
pub struct Model {
    /// The host.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// `host:port` of its agent; empty until it has registered.
    #[sea_orm(column_type = "Text")]
    pub address: String,
    /// The name in its certificate.
    #[sea_orm(column_type = "Text")]
    pub server_name: String,
    /// `pending`, `online`, `draining` or `unreachable`.
    #[sea_orm(column_type = "Text")]
    pub status: String,
    /// [`crate::store::host::Capacity`].
    #[sea_orm(column_type = "JsonBinary")]
    pub capacity: Json,
    /// [`crate::store::host::Allocated`].
    #[sea_orm(column_type = "JsonBinary")]
    pub allocated: Json,
    /// Words for placement: an object of texts.
    #[sea_orm(column_type = "JsonBinary")]
    pub labels: Json,
    /// [`crate::store::host::Versions`].
    #[sea_orm(column_type = "JsonBinary")]
    pub versions: Json,
    /// When it last answered.
    pub heartbeat: Option<DateTimeUtc>,
    /// When it was first seen.
    pub created_at: DateTimeUtc,
    /// When its drain was asked for.
    pub drain_requested_at: Option<DateTimeUtc>,
    /// By whom.
    #[sea_orm(column_type = "Text", nullable)]
    pub drain_requested_by: Option<String>,
    /// When it was deleted.
    pub deleted_at: Option<DateTimeUtc>,
    /// What people call it.
    #[sea_orm(column_type = "Text", nullable)]
    pub name: Option<String>,
    /// When its agent registered; absent for a host of the bridges' configuration.
    pub registered_at: Option<DateTimeUtc>,
    /// sha256 of its agent's public key.
    pub key_hash: Option<Vec<u8>>,
    /// When the last certificate ends that it was given.
    pub certificate_expires_at: Option<DateTimeUtc>,
}

/// Joins are written where they are needed.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
