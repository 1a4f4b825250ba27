//! Where tags point, and where they pointed before. Moves of one tag wait for each other, so its history has
//! neither hole nor overlap: each entry ends in the moment in which the next one begins.
//!
//! Locks are taken in one order everywhere: first the row of the template, then the tag.

use ovenbird_contract::id::TemplateId;
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DatabaseTransaction, EntityTrait, QueryFilter,
    QueryOrder, QuerySelect, TransactionTrait,
};
use uuid::Uuid;

use super::{Error, Store, build_admin::After, sql};
use crate::entity::{template, template_tag};

/// Which entries of a name's tags to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TagFilter {
    /// Only of this tag.
    pub tag: Option<String>,
    /// Only where tags point now.
    pub current: bool,
}

impl Store {
    /// Up to `limit` entries of the tags of `name` after `after`, the latest move first.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn template_tag_list(
        &self,
        name: &str,
        filter: &TagFilter,
        after: Option<After>,
        limit: u64,
    ) -> Result<Vec<template_tag::Model>, Error> {
        use template_tag::Column;
        let mut select = template_tag::Entity::find()
            .filter(Column::Name.eq(name))
            .order_by_desc(Column::SetAt)
            .order_by_desc(Column::Id)
            .limit(limit);
        if let Some(tag) = &filter.tag {
            select = select.filter(Column::Tag.eq(tag));
        }
        if filter.current {
            select = select.filter(Column::SupersededAt.is_null());
        }
        if let Some(After { created_at, id }) = after {
            select =
                select.filter(Condition::any().add(Column::SetAt.lt(created_at)).add(
                    Condition::all().add(Column::SetAt.eq(created_at)).add(Column::Id.lt(id)),
                ));
        }
        Ok(select.all(&self.db).await?)
    }

    /// Whether a template, or a tag at any time, has or had this name.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn template_name_known(&self, name: &str) -> Result<bool, Error> {
        let row = self
            .db
            .query_one_raw(sql(
                "SELECT EXISTS (SELECT 1 FROM templates WHERE name = $1)
                     OR EXISTS (SELECT 1 FROM template_tags WHERE name = $1) AS known",
                [name.into()],
            ))
            .await?;
        Ok(row.map(|row| row.try_get("", "known")).transpose()?.unwrap_or(false))
    }

    /// Points `name:tag` to `template` and answers the entry that says so; where it points there already,
    /// nothing is written. `None` when the template does not exist, is deleted or has another name.
    ///
    /// # Errors
    /// [`Error::Database`]; the tag may have been moved or not, so ask again.
    pub async fn template_tag_set(
        &self,
        name: &str,
        tag: &str,
        template: TemplateId,
        by: &str,
    ) -> Result<Option<template_tag::Model>, Error> {
        let tx = self.db.begin().await?;
        let held = template::Entity::find()
            .from_raw_sql(sql(
                "SELECT * FROM templates WHERE id = $1 AND name = $2 AND deleted_at IS NULL FOR KEY SHARE",
                [template.uuid().into(), name.into()],
            ))
            .one(&tx)
            .await?;
        if held.is_none() {
            return Ok(None);
        }
        tag_lock(&tx, name, tag).await?;
        let before = template_tag::Entity::find()
            .filter(template_tag::Column::Name.eq(name))
            .filter(template_tag::Column::Tag.eq(tag))
            .filter(template_tag::Column::SupersededAt.is_null())
            .one(&tx)
            .await?;
        let entry = match before.filter(|entry| entry.template_id == template.uuid()) {
            Some(entry) => entry,
            None => tag_write(&tx, name, tag, template.uuid(), by).await?,
        };
        tx.commit().await?;
        Ok(Some(entry))
    }

    /// Takes the tag `name:tag` away; its history stays. Answers whether there was one.
    ///
    /// # Errors
    /// [`Error::Database`]; it may be gone or not, so ask again.
    pub async fn template_tag_remove(
        &self,
        name: &str,
        tag: &str,
        by: &str,
    ) -> Result<bool, Error> {
        let tx = self.db.begin().await?;
        tag_lock(&tx, name, tag).await?;
        let removed = tx
            .execute_raw(sql(
                "UPDATE template_tags SET superseded_at = clock_timestamp(), superseded_by = $3
                 WHERE name = $1 AND tag = $2 AND superseded_at IS NULL",
                [name.into(), tag.into(), by.into()],
            ))
            .await?;
        tx.commit().await?;
        Ok(removed.rows_affected() > 0)
    }
}

/// Points `name:tag` to `template`, whose row the transaction has written or locked, and keeps where it
/// pointed before.
pub(super) async fn tag_move(
    tx: &DatabaseTransaction,
    name: &str,
    tag: &str,
    template: Uuid,
    by: &str,
) -> Result<(), Error> {
    tag_lock(tx, name, tag).await?;
    tag_write(tx, name, tag, template, by).await.map(drop)
}

/// Until the transaction ends nobody else moves the tag.
async fn tag_lock(tx: &DatabaseTransaction, name: &str, tag: &str) -> Result<(), Error> {
    tx.execute_raw(sql(
        "SELECT pg_advisory_xact_lock(hashtextextended($1 || ':' || $2, 0))",
        [name.into(), tag.into()],
    ))
    .await?;
    Ok(())
}

/// One moment for the end of the entry before and the beginning of the next. The count makes the insert wait
/// for the update: the index lets only one entry of a tag be the present one.
async fn tag_write(
    tx: &DatabaseTransaction,
    name: &str,
    tag: &str,
    template: Uuid,
    by: &str,
) -> Result<template_tag::Model, Error> {
    template_tag::Entity::find()
        .from_raw_sql(sql(
            "WITH moment AS MATERIALIZED (SELECT clock_timestamp() AS at),
             before AS (
               UPDATE template_tags SET superseded_at = moment.at, superseded_by = $5 FROM moment
               WHERE name = $2 AND tag = $3 AND superseded_at IS NULL RETURNING 1)
             INSERT INTO template_tags (id, name, tag, template_id, set_by, set_at)
             SELECT $1, $2, $3, $4, $5, moment.at FROM moment, (SELECT count(*) FROM before) ended
             RETURNING *",
            [Uuid::now_v7().into(), name.into(), tag.into(), template.into(), by.into()],
        ))
        .one(tx)
        .await?
        .ok_or_else(|| sea_orm::DbErr::RecordNotFound("the tag just written".into()).into())
}
