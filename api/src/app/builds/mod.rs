//! Builds: submitted, listed, read, cancelled, retried. What happens to a build after it is stored is the
//! business of the bridge and the runners.

mod cancel;
mod check;
mod retry;

use chrono::{DateTime, Utc};
use ovenbird_contract::{
    build::Status,
    id::{BuildId, TemplateId},
};
use ovenbird_db::{
    entity::template_build,
    store::{
        build_admin::{After, BuildDetail, BuildFilter, Inserted, NewBuild},
        host::Labels,
    },
};
use ovenbird_kit::telemetry;
use ovenbird_recipe::{Plan, Source};
use serde_json::Value;

use super::{
    App, Error, Problem,
    keys::Caller,
    page::{self, Page},
};

/// The tag of a build or base that names none.
pub const TAG_DEFAULT: &str = "latest";

/// A submission, as far as it could be read: a field whose form was wrong is `None`, and a [`Problem`]
/// says so.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Draft {
    /// Name of the template to be.
    pub name: Option<String>,
    /// Tag of the template to be.
    pub tag: Option<String>,
    /// `name` or `name:tag` of the template to start from.
    pub base_template: Option<String>,
    /// The steps.
    pub recipe: Option<Source>,
    /// When the template is ready.
    pub healthcheck: Option<String>,
    /// Virtual CPUs.
    pub vcpus: Option<u32>,
    /// Memory, in MiB.
    pub memory_mb: Option<u32>,
    /// Root disk, in MiB.
    pub disk_mb: Option<u32>,
    /// sha256 of an uploaded context.
    pub context: Option<String>,
    /// The lane whose runners may take it.
    pub lane: Option<String>,
    /// Leave out the hooks of the base template.
    pub skip_hooks: bool,
    /// Labels that its host must have.
    pub labels: Labels,
}

/// What comes with a submission.
#[derive(Debug, Clone)]
pub struct Origin {
    /// Who asks.
    pub caller: Caller,
    /// The id of the build to be.
    pub id: BuildId,
    /// The same request may have stored it before.
    pub again: bool,
    /// `traceparent` of the request.
    pub trace: String,
}

/// Which builds to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Only in this state.
    pub status: Option<Status>,
    /// Only of this name.
    pub name: Option<String>,
    /// Only submitted then or later.
    pub since: Option<DateTime<Utc>>,
}

impl App {
    /// Stores a build and puts it into the queue. One that is stored already is answered as it is.
    ///
    /// # Errors
    /// [`Error::Invalid`] with everything that is wrong, `problems` first; nothing is stored then.
    pub async fn build_create(
        &self,
        draft: Draft,
        problems: Vec<Problem>,
        origin: Origin,
    ) -> Result<BuildDetail, Error> {
        self.build_store(draft, problems, origin, None).await
    }

    async fn build_store(
        &self,
        draft: Draft,
        problems: Vec<Problem>,
        origin: Origin,
        retry_of: Option<BuildId>,
    ) -> Result<BuildDetail, Error> {
        if origin.again
            && let Some(before) = self.store.build_get(origin.id).await?
        {
            // Whatever the check would say of it by now.
            return Ok(before);
        }
        let checked =
            self.build_check(&origin.caller, &draft, problems).await?.map_err(Error::Invalid)?;
        let json = |error| Error::internal("writing a plan", error);
        let new = NewBuild {
            id: origin.id,
            base_template_id: TemplateId::from_uuid(checked.base.id),
            recipe: serde_json::to_value(&checked.recipe).map_err(json)?,
            plan: serde_json::to_value(&checked.plan).map_err(json)?,
            plan_digest: checked.plan.digest(),
            total_steps: u32::try_from(checked.plan.steps.len()).unwrap_or(u32::MAX),
            name: checked.name,
            tag: checked.tag,
            lane: checked.lane,
            base_template: checked.base_template,
            vcpus: checked.vcpus,
            memory_mb: checked.memory_mb,
            healthcheck: draft.healthcheck,
            disk_mb: draft.disk_mb,
            context: draft.context,
            skip_hooks: draft.skip_hooks,
            labels: draft.labels,
            trace: origin.trace,
            requested_by: origin.caller.name(),
            retry_of,
        };
        match self.store.build_insert(&new).await? {
            Inserted::New(build) => {
                self.build_push(new.id, &build).await;
                Ok(BuildDetail { build: *build, template: None })
            }
            Inserted::Before(before) => {
                let id = BuildId::from_uuid(before.id);
                self.store.build_get(id).await?.ok_or_else(|| Error::NotFound(id.to_string()))
            }
        }
    }

    /// The build is stored: whatever happens to the push, the sweep finds it.
    async fn build_push(&self, id: BuildId, build: &template_build::Model) {
        tracing::info!(build.id = %id, build.name = build.name, "build queued");
        if let Err(error) = self.queue.push(&id).await {
            tracing::warn!(
                build.id = %id,
                error = telemetry::chain(&error),
                "the build is stored but not on the Redis list; the sweep will push it"
            );
        }
    }

    /// The plan of a draft of `caller`, or everything that is wrong with it.
    ///
    /// # Errors
    /// Postgres.
    pub async fn build_validate(
        &self,
        caller: &Caller,
        draft: Draft,
        problems: Vec<Problem>,
    ) -> Result<Result<Plan, Vec<Problem>>, Error> {
        Ok(self.build_check(caller, &draft, problems).await?.map(|checked| checked.plan))
    }

    /// A page of builds that `caller` sees, newest first, without logs and plans.
    ///
    /// # Errors
    /// A cursor that is none; Postgres.
    pub async fn build_list(
        &self,
        caller: &Caller,
        wanted: Wanted,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Page<template_build::Model>, Error> {
        let after = cursor.map(page::decode).transpose()?;
        let Wanted { status, name, since } = wanted;
        // A year that Postgres cannot say is as good as the nearest that it can.
        let since = since.map(|since| since.clamp(page::FIRST, page::LAST));
        let filter = BuildFilter { status, name, requested_by: caller.sees(), since };
        let rows = self.store.build_list(&filter, after, u64::from(limit) + 1).await?;
        Ok(Page::of(rows, limit, |row| After { created_at: row.created_at, id: row.id }))
    }

    /// A build that `caller` sees.
    ///
    /// # Errors
    /// [`Error::NotFound`], also for a build that the caller may not see.
    pub async fn build_get(&self, caller: &Caller, id: BuildId) -> Result<BuildDetail, Error> {
        self.store
            .build_get(id)
            .await?
            .filter(|found| caller.sees_those_of(&found.build.requested_by))
            .ok_or_else(|| Error::NotFound(format!("build {id}")))
    }
}

/// The steps of a row, as they were submitted.
pub fn recipe_entries(recipe: Value) -> Vec<Value> {
    match recipe {
        Value::Array(entries) => entries,
        Value::Null => Vec::new(),
        text => vec![text],
    }
}
