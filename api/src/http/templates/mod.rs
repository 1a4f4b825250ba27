//! `/v1/admin/templates`.

use std::{collections::BTreeMap, sync::Arc};

use chrono::{DateTime, Utc};
use ovenbird_contract::id::{BuildId, TemplateId};
use ovenbird_db::store::template_admin::TemplateRow;
use poem_openapi::{Enum, Object, OpenApi, param::Query, payload::Json};

use super::{
    Tag,
    auth::{Allowed, Reads},
    error::Failure,
};
use crate::app::{self, App, Error, page::Page};

/// The resource.
#[derive(Debug, Clone)]
pub struct TemplateRoutes {
    app: Arc<App>,
}

impl TemplateRoutes {
    /// The resource over the use cases.
    pub fn new(app: Arc<App>) -> Self {
        Self { app }
    }
}

/// What a template holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
pub enum TemplateType {
    /// A root disk; sandboxes boot from it.
    Image,
    /// Root disk and memory; sandboxes go on from it at once.
    Snapshot,
}

/// What sandboxes start from.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct Template {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The tags that point to it now.
    pub tags: Vec<String>,
    /// What it holds.
    #[oai(rename = "type")]
    pub kind: TemplateType,
    /// Virtual CPUs of a sandbox.
    #[oai(validator(minimum(value = "0")))]
    pub vcpus: u32,
    /// Memory of a sandbox, in MiB.
    #[oai(validator(minimum(value = "0")))]
    pub memory_mb: u32,
    /// Its size on a host, in bytes.
    #[oai(validator(minimum(value = "0")))]
    pub size_bytes: u64,
    /// The template that its build started from.
    pub base_template_id: Option<String>,
    /// The build that made it; absent for one that came with a host.
    pub build_id: Option<String>,
    /// User for whoever starts a sandbox from it.
    pub default_user: Option<String>,
    /// Environment for whoever starts a sandbox from it.
    pub default_env: BTreeMap<String, String>,
    /// Digest of its content, where it is known.
    pub digest: Option<String>,
    /// When it was published.
    pub created_at: DateTime<Utc>,
}

/// A page of templates.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct TemplateList {
    /// Newest first.
    pub items: Vec<Template>,
    /// Pass it as `cursor` for the next page; absent on the last one.
    pub next_cursor: Option<String>,
}

#[OpenApi(prefix_path = "/v1/admin/templates", tag = "Tag::Templates")]
impl TemplateRoutes {
    /// List templates
    ///
    /// Newest first: what builds made, and what came with the hosts.
    #[oai(path = "/", method = "get", operation_id = "template_list")]
    async fn list(
        &self,
        _caller: Allowed<Reads>,
        /// Only templates of this name.
        #[oai(validator(pattern = "^[a-z0-9][a-z0-9_.-]{0,62}$"))]
        name: Query<Option<String>>,
        /// `next_cursor` of the page before.
        #[oai(validator(max_length = 64))]
        cursor: Query<Option<String>>,
        /// Templates of a page.
        #[oai(validator(minimum(value = "1"), maximum(value = "200")), default = "limit_default")]
        limit: Query<u32>,
    ) -> Result<Json<TemplateList>, Failure> {
        let Page { items, next } =
            self.app.template_list(name.0.as_deref(), cursor.0.as_deref(), limit.0).await?;
        let items = items.into_iter().map(told).collect::<Result<_, _>>()?;
        Ok(Json(TemplateList { items, next_cursor: next }))
    }
}

fn limit_default() -> u32 {
    app::page::LIMIT_DEFAULT
}

fn told(row: TemplateRow) -> Result<Template, Error> {
    let TemplateRow { template, tags } = row;
    let kind = match template.kind.as_str() {
        "image" => TemplateType::Image,
        "snapshot" => TemplateType::Snapshot,
        other => {
            let what = format!("unknown type of template `{other}`");
            return Err(Error::internal("reading a template's row", what));
        }
    };
    Ok(Template {
        id: TemplateId::from_uuid(template.id).to_string(),
        name: template.name,
        tags,
        kind,
        vcpus: template.vcpus.unsigned_abs(),
        memory_mb: template.memory_mb.unsigned_abs(),
        size_bytes: template.size_bytes.unsigned_abs(),
        base_template_id: template.base_template_id.map(|id| TemplateId::from_uuid(id).to_string()),
        build_id: template.build_id.map(|id| BuildId::from_uuid(id).to_string()),
        default_user: template.default_user,
        default_env: serde_json::from_value(template.default_env)
            .map_err(|error| Error::internal("reading a template's row", error))?,
        digest: template.digest,
        created_at: template.created_at,
    })
}
