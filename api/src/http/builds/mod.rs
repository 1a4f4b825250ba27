//! `/v1/admin/builds`.

mod submission;
mod types;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use ovenbird_contract::id::BuildId;
use poem::Request;
use poem_openapi::{
    ApiResponse, Object, OpenApi,
    param::{Path, Query},
    payload::Json,
};

pub use submission::{BuildCancel, BuildCreate, RecipeEntry, RecipeStep};
pub use types::{Build, BuildStatus};

use super::{
    Tag,
    auth::{Allowed, Builds, Reads},
    body::{Optional, Submitted},
    error::{Failure, Problem},
    parameters, request,
};
use crate::app::{
    self, App,
    builds::{Origin, Wanted},
    page::Page,
};

/// The resource.
#[derive(Debug, Clone)]
pub struct BuildRoutes {
    app: Arc<App>,
}

impl BuildRoutes {
    /// The resource over the use cases.
    pub fn new(app: Arc<App>) -> Self {
        Self { app }
    }
}

/// A page of builds.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct BuildList {
    /// Newest first, without logs.
    pub items: Vec<Build>,
    /// Pass it as `cursor` for the next page; absent on the last one.
    pub next_cursor: Option<String>,
}

/// What is wrong with a submission, or what it would do.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct Validation {
    /// Whether it would be accepted.
    pub valid: bool,
    /// Everything that is wrong with it.
    pub problems: Vec<Problem>,
    /// What it would do, when it is valid.
    pub steps: Option<Vec<PlannedStep>>,
}

/// A step as it is understood.
#[derive(Debug, Object)]
pub struct PlannedStep {
    /// Its number in log records and reasons.
    #[oai(validator(minimum(value = "1")))]
    pub step: u32,
    /// The step as one line.
    pub cmd: String,
}

/// The answer to a submission.
#[derive(Debug, ApiResponse)]
pub enum Created {
    /// The build, stored and queued.
    #[oai(status = 201)]
    Build(
        Json<Build>,
        /// Where the build is.
        #[oai(header = "Location")]
        String,
    ),
}

#[OpenApi(prefix_path = "/v1/admin/builds", tag = "Tag::Builds")]
impl BuildRoutes {
    /// Submit a build
    ///
    /// Checks everything first and lists everything that is wrong. What is accepted is stored and queued;
    /// follow it with `links.stream`. A key of scope `build` takes a name that is free, or that it built before, or a
    /// key of the same name as its own; other names are refused.
    #[oai(path = "/", method = "post", operation_id = "build_create")]
    async fn create(
        &self,
        request: &Request,
        caller: Allowed<Builds>,
        body: Submitted<BuildCreate>,
    ) -> Result<Created, Failure> {
        let (draft, problems) = read(body);
        let origin = origin(request, caller);
        let build = Build::whole(self.app.build_create(draft, problems, origin).await?)?;
        let location = build.links.itself.clone();
        Ok(Created::Build(Json(build), location))
    }

    /// Check a submission without storing it
    ///
    /// Takes the body of a build and lists everything that is wrong with it, or the steps as they are
    /// understood.
    #[oai(path = "/validate", method = "post", operation_id = "build_validate")]
    async fn validate(
        &self,
        caller: Allowed<Reads>,
        body: Submitted<BuildCreate>,
    ) -> Result<Json<Validation>, Failure> {
        let (draft, problems) = read(body);
        let found = match self.app.build_validate(&caller, draft, problems).await? {
            Ok(plan) => {
                let steps = plan.steps.into_iter();
                let steps = steps.map(|step| PlannedStep { step: step.number, cmd: step.cmd });
                Validation { valid: true, problems: Vec::new(), steps: Some(steps.collect()) }
            }
            Err(problems) => Validation {
                valid: false,
                problems: problems.into_iter().map(Into::into).collect(),
                steps: None,
            },
        };
        Ok(Json(found))
    }

    /// List builds
    ///
    /// Newest first. A key of scope `build` sees its own.
    #[oai(path = "/", method = "get", operation_id = "build_list")]
    async fn list(
        &self,
        caller: Allowed<Reads>,
        /// Only builds in this state.
        status: Query<Option<BuildStatus>>,
        /// Only builds of this name.
        #[oai(validator(pattern = "^[a-z0-9][a-z0-9_.-]{0,62}$"))]
        name: Query<Option<String>>,
        /// Only builds that were submitted then or later, such as `2026-01-31T12:00:00Z`.
        since: Query<Option<DateTime<Utc>>>,
        /// `next_cursor` of the page before.
        #[oai(validator(max_length = 64))]
        cursor: Query<Option<String>>,
        /// Builds of a page.
        #[oai(validator(minimum(value = "1"), maximum(value = "200")), default = "limit_default")]
        limit: Query<u32>,
    ) -> Result<Json<BuildList>, Failure> {
        let wanted = Wanted { status: status.0.map(Into::into), name: name.0, since: since.0 };
        let Page { items, next } =
            self.app.build_list(&caller, wanted, cursor.0.as_deref(), limit.0).await?;
        let items = items.into_iter().map(Build::brief).collect::<Result<_, _>>()?;
        Ok(Json(BuildList { items, next_cursor: next }))
    }

    /// Get a build
    ///
    /// With what each step did so far. A build that another key of scope `build` asked for is not found.
    #[oai(path = "/:id", method = "get", operation_id = "build_get")]
    async fn get(
        &self,
        caller: Allowed<Reads>,
        /// The build.
        #[oai(validator(pattern = "^bld_[0-7][0-9a-hjkmnp-tv-z]{25}$"))]
        id: Path<String>,
    ) -> Result<Json<Build>, Failure> {
        let found = self.app.build_get(&caller, parameters::id(&id.0)?).await?;
        Ok(Json(Build::whole(found)?))
    }

    /// Cancel a build
    ///
    /// A queued build is `cancelled` at once. A running one is `cancelling` until its command is killed and its
    /// sandbox destroyed; then it is `cancelled`, with `sandbox_destroyed_at`. Nothing is published after this
    /// answer, and the build never ends otherwise. While the host does not answer the build stays
    /// `cancelling`, and `reason` says so. Repeating it changes nothing: who cancelled first, and why, stays.
    #[oai(path = "/:id/cancel", method = "post", operation_id = "build_cancel")]
    async fn cancel(
        &self,
        caller: Allowed<Builds>,
        /// The build.
        #[oai(validator(pattern = "^bld_[0-7][0-9a-hjkmnp-tv-z]{25}$"))]
        id: Path<String>,
        body: Optional<BuildCancel>,
    ) -> Result<Json<Build>, Failure> {
        let (why, problems) = submission::why(body.0);
        let id = parameters::id(&id.0)?;
        Ok(Json(Build::whole(self.app.build_cancel(&caller, id, why, problems).await?)?))
    }

    /// Retry a build
    ///
    /// Submits the recipe of a build that failed or was cancelled again, with everything that came with it, as a
    /// new build whose `retry_of` names the old one. It is checked like any submission, and starts from what
    /// the name of its base template points to now.
    #[oai(path = "/:id/retry", method = "post", operation_id = "build_retry")]
    async fn retry(
        &self,
        request: &Request,
        caller: Allowed<Builds>,
        /// The build to repeat.
        #[oai(validator(pattern = "^bld_[0-7][0-9a-hjkmnp-tv-z]{25}$"))]
        id: Path<String>,
    ) -> Result<Created, Failure> {
        let origin = origin(request, caller);
        let id = parameters::id(&id.0)?;
        let build = Build::whole(self.app.build_retry(id, origin).await?)?;
        let location = build.links.itself.clone();
        Ok(Created::Build(Json(build), location))
    }
}

fn origin(request: &Request, caller: Allowed<Builds>) -> Origin {
    let request::Resource { id, again } = request::resource(request);
    tracing::Span::current().record("build.id", tracing::field::display(BuildId::from_uuid(id)));
    let trace = request::trace(request);
    Origin { caller: caller.into_caller(), id: BuildId::from_uuid(id), again, trace }
}

fn limit_default() -> u32 {
    app::page::LIMIT_DEFAULT
}

/// The recipe crate tells more of a broken step than its schema does.
fn read(body: Submitted<BuildCreate>) -> (app::builds::Draft, Vec<app::Problem>) {
    let mut problems = body.problems;
    problems.retain(|problem| !problem.field.starts_with("recipe["));
    let draft = submission::draft(&body.value, &problems);
    (draft, problems)
}
