//! `/v1/admin/audit`.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use ovenbird_db::entity::audit_log;
use poem_openapi::{Enum, Object, OpenApi, param::Query, payload::Json};

use super::{
    Tag,
    auth::{Administers, Allowed},
    error::Failure,
};
use crate::app::{self, App, page::Page};

/// The resource.
#[derive(Debug, Clone)]
pub struct AuditRoutes {
    app: Arc<App>,
}

impl AuditRoutes {
    /// The resource over the use cases.
    pub fn new(app: Arc<App>) -> Self {
        Self { app }
    }
}

/// What came of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
pub enum AuditOutcome {
    /// It was carried out.
    Granted,
    /// It was refused, and changed nothing.
    Refused,
    /// A fault kept it from its end; it may have been carried out.
    Failed,
    /// It is being carried out, or its end is not known: the api died over it.
    Open,
}

/// One request for a change.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct AuditEntry {
    /// Its id.
    pub id: String,
    /// When it came.
    pub at: DateTime<Utc>,
    /// The id of the key that asked, or of the host whose agent did; `anonymous` without a valid one, `command-line` for `ovenbird-api key`.
    pub actor: String,
    /// The operation, by its id in the OpenAPI document.
    pub action: String,
    /// The path.
    pub target: String,
    /// The request, as its answer's `X-Request-Id` has it.
    pub request_id: Option<String>,
    /// What came of it.
    pub outcome: AuditOutcome,
    /// HTTP status of the answer, once there is one.
    #[oai(validator(minimum(value = "100"), maximum(value = "599")))]
    pub status: Option<u32>,
    /// The stable word of the error, where one was answered.
    pub code: Option<String>,
    /// Where what was made is.
    pub location: Option<String>,
    /// Where the request came from.
    pub address: Option<String>,
    /// It was answered as the same request before it, and not carried out again.
    pub replayed: Option<bool>,
}

/// A page of the log.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct AuditList {
    /// Newest first.
    pub items: Vec<AuditEntry>,
    /// Pass it as `cursor` for the next page; absent on the last one.
    pub next_cursor: Option<String>,
}

#[OpenApi(prefix_path = "/v1/admin/audit", tag = "Tag::Audit")]
impl AuditRoutes {
    /// Read the audit log
    ///
    /// Who asked for which change, granted or refused, newest first. A change that cannot be noted is not made. Of
    /// callers without a valid key a sample is noted; requests over the rate limit are not.
    #[oai(path = "/", method = "get", operation_id = "audit_list")]
    async fn list(
        &self,
        _caller: Allowed<Administers>,
        /// Only of this key, of this host, of `anonymous`, or of `command-line`.
        actor: Query<Option<String>>,
        /// Only of this operation, by its id in the OpenAPI document.
        #[oai(validator(pattern = "^[a-z_]{1,64}$"))]
        action: Query<Option<String>>,
        /// Only from then on.
        since: Query<Option<DateTime<Utc>>>,
        /// `next_cursor` of the page before.
        #[oai(validator(max_length = 64))]
        cursor: Query<Option<String>>,
        /// Entries of a page.
        #[oai(validator(minimum(value = "1"), maximum(value = "200")), default = "limit_default")]
        limit: Query<u32>,
    ) -> Result<Json<AuditList>, Failure> {
        let Page { items, next } =
            self.app.audit_list(actor.0, action.0, since.0, cursor.0.as_deref(), limit.0).await?;
        let items = items.into_iter().map(told).collect();
        Ok(Json(AuditList { items, next_cursor: next }))
    }
}

fn limit_default() -> u32 {
    app::page::LIMIT_DEFAULT
}

fn told(row: audit_log::Model) -> AuditEntry {
    let status = row.status.map(i32::unsigned_abs);
    let text = |name: &str| row.details[name].as_str().map(str::to_owned);
    AuditEntry {
        outcome: match status {
            None => AuditOutcome::Open,
            Some(..400) => AuditOutcome::Granted,
            Some(..500) => AuditOutcome::Refused,
            Some(_) => AuditOutcome::Failed,
        },
        status,
        code: text("code"),
        location: text("location"),
        address: text("address"),
        replayed: row.details["replayed"].as_bool(),
        id: row.id.to_string(),
        at: row.at,
        actor: row.actor,
        action: row.action,
        target: row.target,
        request_id: row.request_id,
    }
}
