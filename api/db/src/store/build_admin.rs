//! Builds as the api sees them: submitted, listed, read. Nothing here moves a build that exists: cancels stand
//! in [`super::cancel`], the rest is the desk's.

use chrono::{DateTime, Utc};
use ovenbird_contract::{
    build::Status,
    id::{BuildId, TemplateId},
    log::Record,
};
use sea_orm::{
    ActiveValue::Set,
    ColumnTrait, Condition, EntityTrait, IntoActiveModel, Iterable, QueryFilter, QueryOrder,
    QuerySelect, Select,
    sea_query::{Expr, OnConflict},
};
use serde_json::Value as Json;
use uuid::Uuid;

use super::{Error, Store, corrupt, host::Labels};
use crate::{
    chunk,
    entity::{build_log_chunk, template, template_build},
};

/// A checked submission.
#[derive(Debug, Clone, PartialEq)]
pub struct NewBuild {
    /// Its id. A submission that is stored again has the same one.
    pub id: BuildId,
    /// Name of the template to be.
    pub name: String,
    /// Tag of the template to be.
    pub tag: String,
    /// The lane whose runners may take it.
    pub lane: String,
    /// The base as submitted.
    pub base_template: String,
    /// The base as resolved.
    pub base_template_id: TemplateId,
    /// The steps as submitted.
    pub recipe: Json,
    /// The recipe crate's plan.
    pub plan: Json,
    /// Digest of the plan.
    pub plan_digest: String,
    /// The healthcheck as submitted.
    pub healthcheck: Option<String>,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory, in MiB.
    pub memory_mb: u32,
    /// Root disk, in MiB.
    pub disk_mb: Option<u32>,
    /// sha256, in hex, of the context that `COPY` takes from.
    pub context: Option<String>,
    /// Leave out the hooks of the base template.
    pub skip_hooks: bool,
    /// Labels that its host must have.
    pub labels: Labels,
    /// Steps of the plan.
    pub total_steps: u32,
    /// `traceparent` of the request.
    pub trace: String,
    /// Who asks.
    pub requested_by: String,
    /// The build that this one repeats.
    pub retry_of: Option<BuildId>,
}

/// What [`Store::build_insert`] found.
#[derive(Debug, Clone, PartialEq)]
pub enum Inserted {
    /// The build is new.
    New(Box<template_build::Model>),
    /// It was stored before. Nothing was written.
    Before(Box<template_build::Model>),
}

/// A build with what it made.
#[derive(Debug, Clone, PartialEq)]
pub struct BuildDetail {
    /// The build.
    pub build: template_build::Model,
    /// Its template, once there is one.
    pub template: Option<template::Model>,
}

/// Which builds to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildFilter {
    /// Only in this state.
    pub status: Option<Status>,
    /// Only of this name.
    pub name: Option<String>,
    /// Only asked for by this requester.
    pub requested_by: Option<String>,
    /// Only submitted then or later.
    pub since: Option<DateTime<Utc>>,
}

/// The place after one row of a list that is sorted by creation, newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct After {
    /// When the row was created.
    pub created_at: DateTime<Utc>,
    /// Its id.
    pub id: Uuid,
}

impl Store {
    /// Stores a build as queued, unless it is stored already.
    ///
    /// # Errors
    /// [`Error::Database`]; nothing was written then, or the answer was lost: with the same id it is safe to
    /// repeat. [`Error::TemplateDeleted`], [`Error::ContextGone`].
    pub async fn build_insert(&self, new: &NewBuild) -> Result<Inserted, Error> {
        let row = template_build::ActiveModel {
            id: Set(new.id.uuid()),
            name: Set(new.name.clone()),
            tag: Set(new.tag.clone()),
            lane: Set(new.lane.clone()),
            base_template: Set(new.base_template.clone()),
            base_template_id: Set(Some(new.base_template_id.uuid())),
            recipe: Set(new.recipe.clone()),
            plan: Set(new.plan.clone()),
            plan_digest: Set(new.plan_digest.clone()),
            healthcheck: Set(new.healthcheck.clone()),
            vcpus: Set(signed(new.vcpus)),
            memory_mb: Set(signed(new.memory_mb)),
            disk_mb: Set(new.disk_mb.map(signed)),
            context_digest: Set(new.context.clone()),
            skip_hooks: Set(new.skip_hooks),
            labels: Set(super::json(&new.labels)?),
            total_steps: Set(signed(new.total_steps)),
            trace: Set(new.trace.clone()),
            requested_by: Set(new.requested_by.clone()),
            retry_of: Set(new.retry_of.map(|id| id.uuid())),
            ..Default::default()
        };
        let conflict = OnConflict::column(template_build::Column::Id).do_nothing().to_owned();
        let inserted = template_build::Entity::insert(row.into_active_model())
            .on_conflict(conflict)
            .exec_with_returning_many(&self.db)
            .await?
            .pop();
        if let Some(build) = inserted {
            return Ok(Inserted::New(Box::new(build)));
        }
        let before = template_build::Entity::find_by_id(new.id.uuid())
            .one(&self.db)
            .await?
            .ok_or_else(|| sea_orm::DbErr::RecordNotFound("the build of this id".into()))?;
        Ok(Inserted::Before(Box::new(before)))
    }

    /// A build, its step logs included.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn build_get(&self, id: BuildId) -> Result<Option<BuildDetail>, Error> {
        let Some(build) = template_build::Entity::find_by_id(id.uuid()).one(&self.db).await? else {
            return Ok(None);
        };
        let template = match build.template_id {
            Some(id) => template::Entity::find_by_id(id).one(&self.db).await?,
            None => None,
        };
        Ok(Some(BuildDetail { build, template }))
    }

    /// A build as lists tell it, unless `requested_by` names somebody else than who asked for it.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn build_brief(
        &self,
        id: BuildId,
        requested_by: Option<&str>,
    ) -> Result<Option<template_build::Model>, Error> {
        let mut select = small().filter(template_build::Column::Id.eq(id.uuid()));
        if let Some(requester) = requested_by {
            select = select.filter(template_build::Column::RequestedBy.eq(requester));
        }
        Ok(select.one(&self.db).await?)
    }

    /// Up to `limit` builds after `after`, newest first. `logs` and `plan` are left empty: they are what
    /// makes a row large.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn build_list(
        &self,
        filter: &BuildFilter,
        after: Option<After>,
        limit: u64,
    ) -> Result<Vec<template_build::Model>, Error> {
        use template_build::Column;
        let mut select =
            small().order_by_desc(Column::CreatedAt).order_by_desc(Column::Id).limit(limit);
        if let Some(status) = filter.status {
            select = select.filter(Column::Status.eq(status.as_str()));
        }
        if let Some(name) = &filter.name {
            select = select.filter(Column::Name.eq(name));
        }
        if let Some(requester) = &filter.requested_by {
            select = select.filter(Column::RequestedBy.eq(requester));
        }
        if let Some(since) = filter.since {
            select = select.filter(Column::CreatedAt.gte(since));
        }
        if let Some(After { created_at, id }) = after {
            select = select.filter(Condition::any().add(Column::CreatedAt.lt(created_at)).add(
                Condition::all().add(Column::CreatedAt.eq(created_at)).add(Column::Id.lt(id)),
            ));
        }
        Ok(select.all(&self.db).await?)
    }

    /// The stored runs of a build's log that end at `from_seq` or after it, at most `limit`, in order. A
    /// run may be missing between two others, for as long as another ledger takes to store it.
    ///
    /// # Errors
    /// [`Error::Database`]; [`Error::Chunk`] when a run cannot be unpacked.
    pub async fn build_log_runs(
        &self,
        id: BuildId,
        from_seq: u64,
        limit: u64,
    ) -> Result<Vec<Vec<Record>>, Error> {
        use build_log_chunk::Column;
        let from = i64::try_from(from_seq).unwrap_or(i64::MAX);
        let rows = build_log_chunk::Entity::find()
            .filter(Column::BuildId.eq(id.uuid()))
            .filter(Column::LastSeq.gte(from))
            .order_by_asc(Column::FirstSeq)
            .limit(limit)
            .all(&self.db)
            .await?;
        rows.into_iter().map(|row| Ok(chunk::decode(&row.records)?)).collect()
    }

    /// The stream sequence of the last stored run that ends before `seq`; 0 when there is none. What is
    /// not stored from `seq` on comes later in the stream.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn build_log_stored(&self, id: BuildId, seq: u64) -> Result<u64, Error> {
        use build_log_chunk::Column;
        let last: Option<i64> = build_log_chunk::Entity::find()
            .select_only()
            .column(Column::StreamSeq)
            .filter(Column::BuildId.eq(id.uuid()))
            .filter(Column::LastSeq.lt(i64::try_from(seq).unwrap_or(i64::MAX)))
            .order_by_desc(Column::FirstSeq)
            .limit(1)
            .into_tuple()
            .one(&self.db)
            .await?;
        Ok(last.unwrap_or(0).unsigned_abs())
    }

    /// With what record the log ended, and how the build; `None` as long as that is not stored.
    ///
    /// # Errors
    /// [`Error::Database`], [`Error::Corrupt`].
    pub async fn build_log_end(&self, id: BuildId) -> Result<Option<(u64, Status)>, Error> {
        use template_build::Column;
        let end: Option<(i64, String)> = template_build::Entity::find_by_id(id.uuid())
            .select_only()
            .columns([Column::LogSeq, Column::Status])
            .filter(Column::LogEndWritten.eq(true))
            .into_tuple()
            .one(&self.db)
            .await?;
        let Some((seq, status)) = end else { return Ok(None) };
        let status = status.parse().map_err(corrupt("template_builds", "status"))?;
        Ok(Some((seq.unsigned_abs(), status)))
    }
}

/// Builds without their `logs` and `plan`.
fn small() -> Select<template_build::Entity> {
    use template_build::Column;
    let small = Column::iter().filter(|column| !matches!(column, Column::Logs | Column::Plan));
    template_build::Entity::find()
        .select_only()
        .columns(small)
        .expr_as(Expr::cust("'[]'::jsonb"), "logs")
        .expr_as(Expr::cust("'null'::jsonb"), "plan")
}

/// For columns that are `integer` and never negative; callers keep far below the bound.
fn signed(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}
