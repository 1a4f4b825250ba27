//! Templates as the api sees them: found by name and tag, by id, and listed.

use std::collections::BTreeMap;

use ovenbird_contract::id::TemplateId;
use sea_orm::{ColumnTrait, Condition, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use uuid::Uuid;

use super::{Error, Store, build_admin::After};
use crate::entity::{template, template_placement, template_tag};

/// A template, the tags that point to it now and where it is.
#[derive(Debug, Clone, PartialEq)]
pub struct TemplateDetail {
    /// The template and its tags.
    pub row: TemplateRow,
    /// The hosts that hold it, or held it.
    pub placements: Vec<template_placement::Model>,
}

/// A template and the tags that point to it now.
#[derive(Debug, Clone, PartialEq)]
pub struct TemplateRow {
    /// The template.
    pub template: template::Model,
    /// Its present tags, in order.
    pub tags: Vec<String>,
}

impl Store {
    /// The template that `name:tag` points to now.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn template_resolve(
        &self,
        name: &str,
        tag: &str,
    ) -> Result<Option<template::Model>, Error> {
        super::template::tagged(&self.db, name, tag).await
    }

    /// Names of templates, for a hint: at most `limit`.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn template_names(&self, limit: u64) -> Result<Vec<String>, Error> {
        use template::Column;
        Ok(template::Entity::find()
            .select_only()
            .column(Column::Name)
            .distinct()
            .filter(Column::DeletedAt.is_null())
            .order_by_asc(Column::Name)
            .limit(limit)
            .into_tuple()
            .all(&self.db)
            .await?)
    }

    /// Up to `limit` templates after `after`, newest first, with the tags that point to them.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn template_list(
        &self,
        name: Option<&str>,
        after: Option<After>,
        limit: u64,
    ) -> Result<Vec<TemplateRow>, Error> {
        use template::Column;
        let mut select = template::Entity::find()
            .filter(Column::DeletedAt.is_null())
            .order_by_desc(Column::CreatedAt)
            .order_by_desc(Column::Id)
            .limit(limit);
        if let Some(name) = name {
            select = select.filter(Column::Name.eq(name));
        }
        if let Some(After { created_at, id }) = after {
            select = select.filter(Condition::any().add(Column::CreatedAt.lt(created_at)).add(
                Condition::all().add(Column::CreatedAt.eq(created_at)).add(Column::Id.lt(id)),
            ));
        }
        let templates = select.all(&self.db).await?;
        self.template_rows(templates).await
    }

    /// A template that is not deleted.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn template_get(&self, id: TemplateId) -> Result<Option<TemplateDetail>, Error> {
        let template = template::Entity::find_by_id(id.uuid())
            .filter(template::Column::DeletedAt.is_null())
            .one(&self.db)
            .await?;
        let Some(row) = self.template_rows(template.into_iter().collect()).await?.pop() else {
            return Ok(None);
        };
        let placements = template_placement::Entity::find()
            .filter(template_placement::Column::TemplateId.eq(id.uuid()))
            .order_by_asc(template_placement::Column::HostId)
            .all(&self.db)
            .await?;
        Ok(Some(TemplateDetail { row, placements }))
    }

    async fn template_rows(
        &self,
        templates: Vec<template::Model>,
    ) -> Result<Vec<TemplateRow>, Error> {
        let ids: Vec<Uuid> = templates.iter().map(|template| template.id).collect();
        let tags = template_tag::Entity::find()
            .filter(template_tag::Column::TemplateId.is_in(ids))
            .filter(template_tag::Column::SupersededAt.is_null())
            .order_by_asc(template_tag::Column::Tag)
            .all(&self.db)
            .await?;
        let mut by_template: BTreeMap<Uuid, Vec<String>> = BTreeMap::new();
        for tag in tags {
            by_template.entry(tag.template_id).or_default().push(tag.tag);
        }
        Ok(templates
            .into_iter()
            .map(|template| {
                let tags = by_template.remove(&template.id).unwrap_or_default();
                TemplateRow { template, tags }
            })
            .collect())
    }
}
