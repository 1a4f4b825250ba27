//! Templates taken out of the catalogue. The rows stay, marked: what was made from them still names them, and
//! the sweep removes from each host what is marked, also from one that is away now and answers later.
//!
//! What somebody needs is not deleted. The rows are locked before it is looked for, and whoever starts
//! something from a template locks its row as well (the trigger `template_is_kept`), so nothing comes between.

use ovenbird_contract::id::{BuildId, SandboxId, TemplateId};
use sea_orm::{
    ConnectionTrait, DatabaseTransaction, EntityTrait, FromQueryResult, TransactionTrait,
};
use uuid::Uuid;

use super::{
    Error, Store, json, sql,
    template::{Origin, origin},
};
use crate::entity::template;

/// How often two transactions may wait for each other before that is told.
const TRIES: usize = 3;
/// Users of a template that a refusal names at most.
const USERS_MAX: i64 = 20;

/// What to delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doomed {
    /// Every template of this name.
    Name(String),
    /// This one.
    One(TemplateId),
}

/// What still needs a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    /// A build that is not over starts from it.
    Build(BuildId),
    /// A sandbox that is not destroyed was started from it.
    Sandbox(SandboxId),
}

/// Why nothing was deleted; nothing changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// There is no such template.
    NotFound,
    /// It came with a host, which would offer it again.
    OfHost {
        /// Its name on the host.
        host_name: String,
    },
    /// Somebody needs it; some of them.
    InUse(Vec<User>),
}

#[derive(Debug, FromQueryResult)]
struct UserRow {
    is_build: bool,
    id: Uuid,
}

impl Store {
    /// Deletes templates, and takes the tags that point to them away. Answers which ones.
    ///
    /// # Errors
    /// [`Error::Database`]; all of it was done or nothing, so ask again.
    pub async fn template_delete(
        &self,
        doomed: &Doomed,
        by: &str,
    ) -> Result<Result<Vec<TemplateId>, Refused>, Error> {
        for _ in 1..TRIES {
            match self.template_delete_once(doomed, by).await {
                Err(error) if error.is_deadlock() => {}
                done => return done,
            }
        }
        self.template_delete_once(doomed, by).await
    }

    async fn template_delete_once(
        &self,
        doomed: &Doomed,
        by: &str,
    ) -> Result<Result<Vec<TemplateId>, Refused>, Error> {
        let tx = self.db.begin().await?;
        let rows = lock(&tx, doomed).await?;
        if rows.is_empty() {
            return Ok(Err(Refused::NotFound));
        }
        for row in &rows {
            if origin(row)? == Origin::Host {
                return Ok(Err(Refused::OfHost { host_name: row.host_name.clone() }));
            }
        }
        let ids = json(&rows.iter().map(|row| row.id).collect::<Vec<_>>())?;
        let users = users(&tx, &ids).await?;
        if !users.is_empty() {
            return Ok(Err(Refused::InUse(users)));
        }
        for (statement, with_author) in [
            ("UPDATE templates SET deleted_at = clock_timestamp() WHERE id IN", false),
            ("UPDATE template_placements SET state = 'deleting' WHERE template_id IN", false),
            (
                "UPDATE template_tags SET superseded_at = clock_timestamp(), superseded_by = $2
                 WHERE superseded_at IS NULL AND template_id IN",
                true,
            ),
        ] {
            let text =
                format!("{statement} (SELECT value::uuid FROM jsonb_array_elements_text($1))");
            let author = with_author.then(|| by.into());
            tx.execute_raw(sql(&text, [ids.clone().into()].into_iter().chain(author))).await?;
        }
        tx.commit().await?;
        Ok(Ok(rows.into_iter().map(|row| TemplateId::from_uuid(row.id)).collect()))
    }
}

/// In the order of their ids, so that two deletions do not wait for each other.
async fn lock(tx: &DatabaseTransaction, doomed: &Doomed) -> Result<Vec<template::Model>, Error> {
    let (which, value) = match doomed {
        Doomed::Name(name) => ("name = $1", name.clone().into()),
        Doomed::One(id) => ("id = $1", id.uuid().into()),
    };
    let text = format!(
        "SELECT * FROM templates WHERE {which} AND deleted_at IS NULL ORDER BY id FOR UPDATE"
    );
    Ok(template::Entity::find().from_raw_sql(sql(&text, [value])).all(tx).await?)
}

async fn users(tx: &DatabaseTransaction, ids: &serde_json::Value) -> Result<Vec<User>, Error> {
    let rows = UserRow::find_by_statement(sql(
        "WITH doomed AS (SELECT value::uuid AS id FROM jsonb_array_elements_text($1))
         (SELECT true AS is_build, b.id FROM template_builds b JOIN doomed ON b.base_template_id = doomed.id
          WHERE b.status IN ('queued', 'running', 'cancelling') LIMIT $2)
         UNION ALL
         (SELECT false, s.id FROM sandboxes s JOIN doomed ON s.template_id = doomed.id
          WHERE s.destroyed_at IS NULL AND s.status NOT IN ('destroyed', 'failed') LIMIT $2)
         LIMIT $2",
        [ids.clone().into(), USERS_MAX.into()],
    ))
    .all(tx)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| match row.is_build {
            true => User::Build(BuildId::from_uuid(row.id)),
            false => User::Sandbox(SandboxId::from_uuid(row.id)),
        })
        .collect())
}
