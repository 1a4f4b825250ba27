//! `/v1/admin/templates/{name}/tags`.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use ovenbird_contract::id::TemplateId;
use ovenbird_db::{entity::template_tag, store::template_tag::TagFilter};
use poem_openapi::{
    ApiResponse, Object, OpenApi,
    param::{Path, Query},
    payload::Json,
};
use serde_json::Value;

use super::limit_default;
use crate::{
    app::{App, page::Page},
    http::{
        Tag,
        auth::{Administers, Allowed, Reads},
        body::Submitted,
        error::Failure,
    },
};

/// The resource.
#[derive(Debug, Clone)]
pub struct TagRoutes {
    app: Arc<App>,
}

impl TagRoutes {
    /// The resource over the use cases.
    pub fn new(app: Arc<App>) -> Self {
        Self { app }
    }
}

/// Where a tag points, or pointed for a while.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct TagEntry {
    /// The name whose tag it is.
    pub name: String,
    /// The tag.
    pub tag: String,
    /// The template that it points to, or pointed to; that one may be deleted by now.
    pub template_id: String,
    /// Since when.
    pub set_at: DateTime<Utc>,
    /// Who set it: the id of an API key, or `host` for a template that came with a host.
    pub set_by: String,
    /// Until when; absent where it points now.
    pub superseded_at: Option<DateTime<Utc>>,
    /// Who moved it on or took it away.
    pub superseded_by: Option<String>,
}

/// A page of entries.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct TagList {
    /// The latest move first.
    pub items: Vec<TagEntry>,
    /// Pass it as `cursor` for the next page; absent on the last one.
    pub next_cursor: Option<String>,
}

/// Where a tag is to point. Unknown fields are refused.
#[derive(Debug, Object)]
pub struct TagSet {
    /// A template of this name.
    #[oai(validator(pattern = "^tpl_[0-7][0-9a-hjkmnp-tv-z]{25}$"))]
    pub template_id: String,
}

/// The answer to a removal.
#[derive(Debug, ApiResponse)]
pub enum TagRemoved {
    /// The tag is gone; its template stays.
    #[oai(status = 204)]
    Gone,
}

#[OpenApi(prefix_path = "/v1/admin/templates", tag = "Tag::Templates")]
impl TagRoutes {
    /// List tags and their history
    ///
    /// Every entry says where a tag points, or pointed from `set_at` to `superseded_at`; the latest move comes
    /// first. To move a tag back, set it to the `template_id` of an earlier entry.
    #[oai(path = "/:name/tags", method = "get", operation_id = "template_tag_list")]
    async fn list(
        &self,
        _caller: Allowed<Reads>,
        /// The name of the templates.
        #[oai(validator(pattern = "^[a-z0-9][a-z0-9_.-]{0,62}$"))]
        name: Path<String>,
        /// Only this tag.
        #[oai(validator(pattern = "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$"))]
        tag: Query<Option<String>>,
        /// Only where tags point now, without history.
        #[oai(default)]
        current: Query<bool>,
        /// `next_cursor` of the page before.
        #[oai(validator(max_length = 64))]
        cursor: Query<Option<String>>,
        /// Entries of a page.
        #[oai(validator(minimum(value = "1"), maximum(value = "200")), default = "limit_default")]
        limit: Query<u32>,
    ) -> Result<Json<TagList>, Failure> {
        let filter = TagFilter { tag: tag.0, current: current.0 };
        let Page { items, next } =
            self.app.template_tag_list(&name.0, &filter, cursor.0.as_deref(), limit.0).await?;
        Ok(Json(TagList { items: items.into_iter().map(told).collect(), next_cursor: next }))
    }

    /// Set or move a tag
    ///
    /// Points the tag to a template of this name, a newer or an older one. Builds and sandboxes that name the
    /// tag start from there from then on; what runs is not touched. Moves of one tag are done one after the
    /// other. Repeating it changes nothing.
    #[oai(path = "/:name/tags/:tag", method = "put", operation_id = "template_tag_set")]
    async fn set(
        &self,
        caller: Allowed<Administers>,
        /// The name of the templates.
        #[oai(validator(pattern = "^[a-z0-9][a-z0-9_.-]{0,62}$"))]
        name: Path<String>,
        /// The tag.
        #[oai(validator(pattern = "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$"))]
        tag: Path<String>,
        body: Submitted<TagSet>,
    ) -> Result<Json<TagEntry>, Failure> {
        let template = body.value.get("template_id").and_then(Value::as_str);
        let entry =
            self.app.template_tag_set(&caller, &name.0, &tag.0, template, body.problems).await?;
        Ok(Json(told(entry)))
    }

    /// Take a tag away
    ///
    /// The template that it points to stays, and so does the tag's history.
    #[oai(path = "/:name/tags/:tag", method = "delete", operation_id = "template_tag_remove")]
    async fn remove(
        &self,
        caller: Allowed<Administers>,
        /// The name of the templates.
        #[oai(validator(pattern = "^[a-z0-9][a-z0-9_.-]{0,62}$"))]
        name: Path<String>,
        /// The tag.
        #[oai(validator(pattern = "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$"))]
        tag: Path<String>,
    ) -> Result<TagRemoved, Failure> {
        self.app.template_tag_remove(&caller, &name.0, &tag.0).await?;
        Ok(TagRemoved::Gone)
    }
}

fn told(row: template_tag::Model) -> TagEntry {
    TagEntry {
        name: row.name,
        tag: row.tag,
        template_id: TemplateId::from_uuid(row.template_id).to_string(),
        set_at: row.set_at,
        set_by: row.set_by,
        superseded_at: row.superseded_at,
        superseded_by: row.superseded_by,
    }
}
