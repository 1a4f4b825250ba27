//! `/v1/admin/templates`.

mod tags;

use std::{collections::BTreeMap, sync::Arc};

use chrono::{DateTime, Utc};
use ovenbird_contract::id::{BuildId, HostId, TemplateId};
use ovenbird_db::{
    entity::template_placement,
    store::{
        template::{Origin, origin},
        template_admin::{TemplateDetail, TemplateRow},
    },
};
use poem_openapi::{
    ApiResponse, Enum, Object, OpenApi,
    param::{Path, Query},
    payload::Json,
};

pub use tags::{TagEntry, TagList, TagRoutes, TagSet};

use super::{
    Tag,
    auth::{Administers, Allowed, Reads},
    error::Failure,
};
use crate::app::{self, App, Error, page::Page, templates::Reference};

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

/// Where a template comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
pub enum TemplateOrigin {
    /// A build made it.
    Build,
    /// It is a sandbox that was made a template.
    Sandbox,
    /// It came with a host. It is removed there, not here.
    Host,
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
    /// Where it comes from.
    pub origin: TemplateOrigin,
    /// The template that its build, or its sandbox, started from.
    pub base_template_id: Option<String>,
    /// The build that made it, where one did.
    pub build_id: Option<String>,
    /// User for whoever starts a sandbox from it.
    pub default_user: Option<String>,
    /// Environment for whoever starts a sandbox from it.
    pub default_env: BTreeMap<String, String>,
    /// Digest of its content, where it is known.
    pub digest: Option<String>,
    /// Where it is. Absent in lists.
    pub placements: Option<Vec<TemplatePlacement>>,
    /// When it was published.
    pub created_at: DateTime<Utc>,
}

/// What a host has of a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
pub enum PlacementState {
    /// It is there.
    Present,
    /// It is to be removed as soon as the host answers.
    Deleting,
    /// The host lost it.
    Missing,
}

/// A template on a host.
#[derive(Debug, Object)]
pub struct TemplatePlacement {
    /// The host.
    pub host_id: String,
    /// What the host has of it.
    pub state: PlacementState,
    /// Its size there, in bytes.
    #[oai(validator(minimum(value = "0")))]
    pub bytes: u64,
}

/// The answer to a deletion.
#[derive(Debug, ApiResponse)]
pub enum TemplateDeleted {
    /// It is in no list any more, and goes from each host that holds it as soon as that host answers.
    #[oai(status = 204)]
    Gone,
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
    /// Newest first: what builds made, what sandboxes became, and what came with the hosts.
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

    /// Get a template
    ///
    /// With its tags, and the hosts that hold it.
    #[oai(path = "/:name", method = "get", operation_id = "template_get")]
    async fn get(
        &self,
        _caller: Allowed<Reads>,
        /// `name:tag`, a name alone for its tag `latest`, or an id.
        #[oai(validator(
            pattern = "^[a-z0-9][a-z0-9_.-]{0,62}(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?$"
        ))]
        name: Path<String>,
    ) -> Result<Json<Template>, Failure> {
        let TemplateDetail { row, placements } =
            self.app.template_get(&Reference::read(&name.0)).await?;
        let placements = placements.into_iter().map(placed).collect::<Result<_, _>>()?;
        Ok(Json(Template { placements: Some(placements), ..told(row)? }))
    }

    /// Delete templates
    ///
    /// A name alone deletes every template of that name; `name:tag` or an id deletes this one only. The tags
    /// that point there go with it. Hosts that are away now lose it as soon as they answer again. Nothing is
    /// deleted while a build that is not over starts from one of them or a sandbox of one of them exists; what
    /// is in the way is listed. A template that came with a host is removed on that host, not here.
    #[oai(path = "/:name", method = "delete", operation_id = "template_delete")]
    async fn delete(
        &self,
        caller: Allowed<Administers>,
        /// A name for all templates of it, or `name:tag`, or an id.
        #[oai(validator(
            pattern = "^[a-z0-9][a-z0-9_.-]{0,62}(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?$"
        ))]
        name: Path<String>,
    ) -> Result<TemplateDeleted, Failure> {
        self.app.template_delete(&caller, &Reference::read(&name.0)).await?;
        Ok(TemplateDeleted::Gone)
    }
}

fn placed(row: template_placement::Model) -> Result<TemplatePlacement, Error> {
    let state = match row.state.as_str() {
        "present" => PlacementState::Present,
        "deleting" => PlacementState::Deleting,
        "missing" => PlacementState::Missing,
        other => {
            let what = format!("unknown state of a placement `{other}`");
            return Err(Error::internal("reading a placement's row", what));
        }
    };
    Ok(TemplatePlacement {
        host_id: HostId::from_uuid(row.host_id).to_string(),
        state,
        bytes: row.bytes.unsigned_abs(),
    })
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
    let origin = match origin(&template)? {
        Origin::Build => TemplateOrigin::Build,
        Origin::Sandbox => TemplateOrigin::Sandbox,
        Origin::Host => TemplateOrigin::Host,
    };
    Ok(Template {
        id: TemplateId::from_uuid(template.id).to_string(),
        name: template.name,
        tags,
        kind,
        vcpus: template.vcpus.unsigned_abs(),
        memory_mb: template.memory_mb.unsigned_abs(),
        size_bytes: template.size_bytes.unsigned_abs(),
        origin,
        base_template_id: template.base_template_id.map(|id| TemplateId::from_uuid(id).to_string()),
        build_id: template.build_id.map(|id| BuildId::from_uuid(id).to_string()),
        default_user: template.default_user,
        default_env: serde_json::from_value(template.default_env)
            .map_err(|error| Error::internal("reading a template's row", error))?,
        digest: template.digest,
        placements: None,
        created_at: template.created_at,
    })
}
