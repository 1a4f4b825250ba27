//! `/v1/sandboxes`: what lives from a create to a delete. Commands stand in [`exec`], files in [`files`].

pub mod exec;
pub mod files;
mod sse;
mod types;

use std::sync::Arc;

use ovenbird_contract::id::{SandboxId, TemplateId};
use poem::Request;
use poem_openapi::{
    ApiResponse, Object, OpenApi,
    param::{Path, Query},
    payload::Json,
};

pub use types::{MetricsRange, Sandbox, SandboxList, SandboxMetrics, SandboxStatus};

use super::{
    Tag,
    auth::{Allowed, Builds, Reads},
    body::{Optional, Submitted},
    error::Failure,
    parameters, request,
};
use crate::app::{
    self, App, Error,
    page::Page,
    sandboxes::{Draft, Naming, Origin},
};

/// The resource.
#[derive(Debug, Clone)]
pub struct SandboxRoutes {
    app: Arc<App>,
}

impl SandboxRoutes {
    /// The resource over the use cases.
    pub fn new(app: Arc<App>) -> Self {
        Self { app }
    }
}

/// A sandbox to be. Unknown fields are refused.
#[derive(Debug, Object)]
pub struct SandboxCreate {
    /// The template to start from: `name`, `name:tag`, or a template's id.
    #[oai(validator(
        pattern = "^([a-z0-9][a-z0-9_.-]{0,62}(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?|tpl_[0-7][0-9a-hjkmnp-tv-z]{25})$"
    ))]
    pub template: String,
    /// Virtual CPUs; the template's when absent. Those of a snapshot cannot be changed.
    #[oai(validator(minimum(value = "1"), maximum(value = "1024")))]
    pub vcpus: Option<u32>,
    /// Memory, in MiB; the template's when absent. That of a snapshot cannot be changed.
    #[oai(validator(minimum(value = "1"), maximum(value = "16777216")))]
    pub memory_mb: Option<u32>,
    /// Size of the root disk, in MiB, which the template must fit into; the template's when absent.
    #[oai(validator(minimum(value = "1"), maximum(value = "16777216")))]
    pub disk_mb: Option<u32>,
    /// Idle seconds until it is paused by itself; 0 means never.
    #[oai(validator(minimum(value = "0"), maximum(value = "31536000")), default)]
    pub timeout_sec: u32,
}

/// How a sandbox goes on.
#[derive(Debug, Object)]
pub struct SandboxResume {
    /// Idle seconds until it is paused by itself, from now on; 0 means never. As before when absent.
    #[oai(validator(minimum(value = "0"), maximum(value = "31536000")))]
    pub timeout_sec: Option<u32>,
}

/// What a sandbox becomes.
#[derive(Debug, Object)]
pub struct SandboxSave {
    /// Name of the template to be.
    #[oai(validator(pattern = "^[a-z0-9][a-z0-9_.-]{0,62}$"))]
    pub name: String,
    /// Tag of the template to be; it moves here once the template is there.
    #[oai(validator(pattern = "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$"), default = "default_tag")]
    pub tag: String,
}

fn default_tag() -> String {
    app::builds::TAG_DEFAULT.to_owned()
}

/// The answer to a new sandbox.
#[derive(Debug, ApiResponse)]
pub enum Created {
    /// The sandbox, which runs. When that takes longer than a minute it is still `creating`.
    #[oai(status = 201)]
    Sandbox(
        Json<Sandbox>,
        /// Where the sandbox is.
        #[oai(header = "Location")]
        String,
    ),
}

/// The answer to a ping.
#[derive(Debug, ApiResponse)]
pub enum Pinged {
    /// It counts as use.
    #[oai(status = 204)]
    Done,
}

#[OpenApi(prefix_path = "/v1/sandboxes", tag = "Tag::Sandboxes")]
impl SandboxRoutes {
    /// Start a sandbox
    ///
    /// Starts a microVM from a template, on a host that holds the template and has room, and answers when its guest
    /// does: in some hundredths of a second from a snapshot, after a boot from an image. When it cannot be made
    /// nothing is left of it; the list tells it as `failed`, with a `reason`.
    #[oai(path = "/", method = "post", operation_id = "sandbox_create")]
    async fn create(
        &self,
        request: &Request,
        caller: Allowed<Builds>,
        body: Submitted<SandboxCreate>,
    ) -> Result<Created, Failure> {
        let SandboxCreate { template, vcpus, memory_mb, disk_mb, timeout_sec } = body.accepted()?;
        let draft = Draft { template, vcpus, memory_mb, disk_mb, timeout_sec };
        let request::Resource { id, again } = request::resource(request);
        let origin = Origin { caller: caller.into_caller(), id: SandboxId::from_uuid(id), again };
        let made = self.app.sandbox_create(draft, origin).await;
        let (row, template) = made.map_err(not_made)?;
        let sandbox = Sandbox::of(row, template.name)?;
        let location = format!("/v1/sandboxes/{}", sandbox.id);
        Ok(Created::Sandbox(Json(sandbox), location))
    }

    /// List sandboxes
    ///
    /// Newest first, those that are over included. A key of scope `build` sees its own.
    #[oai(path = "/", method = "get", operation_id = "sandbox_list")]
    async fn list(
        &self,
        caller: Allowed<Reads>,
        /// Only sandboxes in this state.
        status: Query<Option<SandboxStatus>>,
        /// Only sandboxes from this template.
        #[oai(validator(pattern = "^tpl_[0-7][0-9a-hjkmnp-tv-z]{25}$"))]
        template_id: Query<Option<String>>,
        /// `next_cursor` of the page before.
        #[oai(validator(max_length = 64))]
        cursor: Query<Option<String>>,
        /// Sandboxes of a page.
        #[oai(validator(minimum(value = "1"), maximum(value = "200")), default = "limit_default")]
        limit: Query<u32>,
    ) -> Result<Json<SandboxList>, Failure> {
        let template = template_id
            .0
            .map(|id| id.parse().map_err(|_| parameters::invalid("template_id", "is no id")));
        let template = template.transpose()?;
        let status = status.0.map(Into::into);
        let cursor = cursor.0.as_deref();
        let Page { items, next } =
            self.app.sandbox_list(&caller, status, template, cursor, limit.0).await?;
        let items = items.into_iter().map(|(row, template)| Sandbox::of(row, template));
        Ok(Json(SandboxList { items: items.collect::<Result<_, _>>()?, next_cursor: next }))
    }

    /// Get a sandbox
    ///
    /// One that is over is kept. A sandbox that another key of scope `build` asked for is not found. That one paused
    /// by itself, or ended by itself, is told some seconds later.
    #[oai(path = "/:id", method = "get", operation_id = "sandbox_get")]
    async fn get(
        &self,
        caller: Allowed<Reads>,
        /// The sandbox.
        #[oai(validator(pattern = "^sbx_[0-7][0-9a-hjkmnp-tv-z]{25}$"))]
        id: Path<String>,
    ) -> Result<Json<Sandbox>, Failure> {
        let found = self.app.sandbox_get(&caller, parameters::id(&id.0)?).await?;
        Ok(Json(Sandbox::try_from(found)?))
    }

    /// Delete a sandbox
    ///
    /// Ends whatever runs in it and removes everything. It is `destroyed` then; while its host does not answer it
    /// stays `destroying`, and goes as soon as the host does. Repeating it is fine.
    #[oai(path = "/:id", method = "delete", operation_id = "sandbox_delete")]
    async fn delete(
        &self,
        caller: Allowed<Builds>,
        /// The sandbox.
        #[oai(validator(pattern = "^sbx_[0-7][0-9a-hjkmnp-tv-z]{25}$"))]
        id: Path<String>,
    ) -> Result<Json<Sandbox>, Failure> {
        let deleted = self.app.sandbox_delete(&caller, parameters::id(&id.0)?).await?;
        Ok(Json(Sandbox::try_from(deleted)?))
    }

    /// Pause a sandbox
    ///
    /// Puts its memory on its host's disk; it keeps its processes, its address and its files, and takes no room.
    /// Commands that somebody waits for or follows are ended. Pausing a paused one is fine. When it takes longer than a
    /// minute the answer says `pausing`.
    #[oai(path = "/:id/pause", method = "post", operation_id = "sandbox_pause")]
    async fn pause(
        &self,
        caller: Allowed<Builds>,
        /// The sandbox.
        #[oai(validator(pattern = "^sbx_[0-7][0-9a-hjkmnp-tv-z]{25}$"))]
        id: Path<String>,
    ) -> Result<Json<Sandbox>, Failure> {
        let paused = self.app.sandbox_pause(&caller, parameters::id(&id.0)?).await?;
        Ok(Json(Sandbox::try_from(paused)?))
    }

    /// Resume a sandbox
    ///
    /// Lets it go on where it was paused, and may set another idle limit, also of one that runs. When its host has no
    /// room by now it stays paused.
    #[oai(path = "/:id/resume", method = "post", operation_id = "sandbox_resume")]
    async fn resume(
        &self,
        caller: Allowed<Builds>,
        /// The sandbox.
        #[oai(validator(pattern = "^sbx_[0-7][0-9a-hjkmnp-tv-z]{25}$"))]
        id: Path<String>,
        body: Optional<SandboxResume>,
    ) -> Result<Json<Sandbox>, Failure> {
        let SandboxResume { timeout_sec } = body.0.accepted()?;
        let id = parameters::id(&id.0)?;
        let resumed = self.app.sandbox_resume(&caller, id, timeout_sec).await?;
        Ok(Json(Sandbox::try_from(resumed)?))
    }

    /// Make a template of a sandbox
    ///
    /// Stores memory and disk as a snapshot template, and ends the sandbox: it is `destroyed` then, and `snapshot`
    /// names the template. When it takes longer than a minute the answer says `saving`; get the sandbox to learn its end.
    /// Which names a key of scope `build` takes is as for a build.
    #[oai(path = "/:id/snapshot", method = "post", operation_id = "sandbox_snapshot")]
    async fn snapshot(
        &self,
        request: &Request,
        caller: Allowed<Builds>,
        /// The sandbox.
        #[oai(validator(pattern = "^sbx_[0-7][0-9a-hjkmnp-tv-z]{25}$"))]
        id: Path<String>,
        body: Submitted<SandboxSave>,
    ) -> Result<Json<Sandbox>, Failure> {
        let SandboxSave { name, tag } = body.accepted()?;
        let id = parameters::id(&id.0)?;
        let request::Resource { id: template, again } = request::resource(request);
        let naming = Naming { name, tag, template: TemplateId::from_uuid(template), again };
        let saved = self.app.sandbox_snapshot(&caller, id, naming).await?;
        Ok(Json(Sandbox::try_from(saved)?))
    }

    /// Ping a sandbox
    ///
    /// Counts as use, so that it is not paused for being idle.
    #[oai(path = "/:id/ping", method = "post", operation_id = "sandbox_ping")]
    async fn ping(
        &self,
        caller: Allowed<Builds>,
        /// The sandbox.
        #[oai(validator(pattern = "^sbx_[0-7][0-9a-hjkmnp-tv-z]{25}$"))]
        id: Path<String>,
    ) -> Result<Pinged, Failure> {
        self.app.sandbox_ping(&caller, parameters::id(&id.0)?).await?;
        Ok(Pinged::Done)
    }

    /// Read a sandbox's metrics
    ///
    /// Processor, memory and disk, measured by its host. Asking is no use of the sandbox. Of one that is over: what it
    /// used last.
    #[oai(path = "/:id/metrics", method = "get", operation_id = "sandbox_metrics")]
    async fn metrics(
        &self,
        caller: Allowed<Reads>,
        /// The sandbox.
        #[oai(validator(pattern = "^sbx_[0-7][0-9a-hjkmnp-tv-z]{25}$"))]
        id: Path<String>,
        /// How far back, and how fine.
        #[oai(default = "range_default")]
        range: Query<MetricsRange>,
    ) -> Result<Json<SandboxMetrics>, Failure> {
        let points =
            self.app.sandbox_metrics(&caller, parameters::id(&id.0)?, range.0.into()).await?;
        Ok(Json(SandboxMetrics { points: points.into_iter().map(Into::into).collect() }))
    }
}

/// What is told when no sandbox was made. It may be tried again as if it had never been asked for, for nothing of this
/// id will run.
fn not_made(error: Error) -> Failure {
    let is_final = matches!(error, Error::NoCapacity(_) | Error::HostUnavailable { .. });
    let failure = Failure::from(error);
    if is_final { failure.having_made_nothing() } else { failure }
}

fn limit_default() -> u32 {
    app::page::LIMIT_DEFAULT
}

fn range_default() -> MetricsRange {
    MetricsRange::TenMinutes
}
