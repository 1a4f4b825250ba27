//! Builds: reading a row, and what its columns mean.

use ovenbird_contract::{build::Status, id::BuildId};
use sea_orm::{ConnectionTrait, EntityTrait, QuerySelect, sea_query::LockType};

use super::{Error, Store, corrupt, sql};
use crate::entity::template_build;

/// The status in a row.
///
/// # Errors
/// [`Error::Corrupt`] when it is no status; the table's check forbids that.
pub fn status(row: &template_build::Model) -> Result<Status, Error> {
    row.status.parse().map_err(corrupt("template_builds", "status"))
}

/// The attempt in a row; the table's check keeps it from being negative.
pub fn attempt(row: &template_build::Model) -> u32 {
    u32::try_from(row.attempt).unwrap_or(0)
}

impl Store {
    /// A build's row, by id.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn build_row(&self, id: BuildId) -> Result<Option<template_build::Model>, Error> {
        Ok(template_build::Entity::find_by_id(id.uuid()).one(&self.db).await?)
    }

    /// Builds by status, for queues and metrics.
    ///
    /// # Errors
    /// [`Error::Database`], [`Error::Corrupt`].
    pub async fn build_count_by_status(&self) -> Result<Vec<(Status, u64)>, Error> {
        let rows = self
            .db
            .query_all_raw(sql(
                "SELECT status, count(*) AS builds FROM template_builds GROUP BY status",
                [],
            ))
            .await?;
        rows.into_iter()
            .map(|row| {
                let text: String = row.try_get("", "status")?;
                let count: i64 = row.try_get("", "builds")?;
                let status = text.parse().map_err(corrupt("template_builds", "status"))?;
                Ok((status, u64::try_from(count).unwrap_or(0)))
            })
            .collect()
    }
}

/// The row, locked against other writers until the transaction ends. Not the lock that a foreign key
/// needs: the ledger may add log chunks meanwhile.
pub(super) async fn lock(
    tx: &impl ConnectionTrait,
    id: BuildId,
) -> Result<Option<template_build::Model>, Error> {
    Ok(template_build::Entity::find_by_id(id.uuid()).lock(LockType::NoKeyUpdate).one(tx).await?)
}
