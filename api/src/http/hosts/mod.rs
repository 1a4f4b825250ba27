//! `/v1/admin/hosts`. How their agents register stands in [`registration`].

pub mod registration;
mod types;

use std::{collections::BTreeMap, sync::Arc};

use chrono::{DateTime, Utc};
use ovenbird_contract::id::HostId;
use poem::Request;
use poem_openapi::{
    ApiResponse, Object, OpenApi,
    param::{Path, Query},
    payload::Json,
};

use self::types::told;
pub use self::types::{Host, HostAllocated, HostCapacity, HostDrain, HostStatus, HostVersions};
use super::{
    Tag,
    auth::{Administers, Allowed, Needs},
    body::{Optional, Submitted},
    error::Failure,
    parameters, request,
};
use crate::app::{
    self, App, Error,
    keys::Scope,
    page::Page,
    registration::{Announced, Wish, label_problems},
};

/// Looks at the machines.
#[derive(Debug)]
pub struct Watches;

impl Needs for Watches {
    const SCOPES: &'static [Scope] = &[Scope::Admin, Scope::Read];
}

/// The resource.
#[derive(Debug, Clone)]
pub struct HostRoutes {
    app: Arc<App>,
}

impl HostRoutes {
    /// The resource over the use cases.
    pub fn new(app: Arc<App>) -> Self {
        Self { app }
    }
}

/// A host to be. Unknown fields are refused.
#[derive(Debug, Object)]
pub struct HostCreate {
    /// What people call it; it need not be unique.
    #[oai(validator(
        min_length = 1,
        max_length = 128,
        pattern = "^[^\\x00-\\x1f\\x7f]*[^\\x00-\\x20\\x7f][^\\x00-\\x1f\\x7f]*$"
    ))]
    pub name: Option<String>,
    /// Words for placement: a build that asks for some runs on hosts that have all of them. At most 16; a name is 1 to
    /// 63 of a-z, 0-9 and, between them, `.`, `_`, `/` and `-`; a value at most 63 of A-Z, a-z, 0-9, `.`, `_`, `-`.
    pub labels: Option<BTreeMap<String, String>>,
}

/// Labels of a host.
#[derive(Debug, Object)]
pub struct HostRelabel {
    /// As in the announcement of a host. They replace those that it has.
    pub labels: BTreeMap<String, String>,
}

/// A host that waits for its agent.
#[derive(Debug, Object)]
pub struct NewHost {
    /// The host.
    pub host: Host,
    /// What its agent is to register with, `ovr_…`. It is told here only, and can be used once.
    pub token: String,
    /// When the token is over.
    pub token_expires_at: DateTime<Utc>,
}

/// The answer to the wish for a host.
#[derive(Debug, ApiResponse)]
pub enum HostAnnounced {
    /// The host, with a token for its agent.
    #[oai(status = 201)]
    Host(
        Json<NewHost>,
        /// Where the host is.
        #[oai(header = "Location")]
        String,
    ),
}

/// A page of hosts.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct HostList {
    /// Newest first.
    pub items: Vec<Host>,
    /// Pass it as `cursor` for the next page; absent on the last one.
    pub next_cursor: Option<String>,
}

/// The answer to a deletion.
#[derive(Debug, ApiResponse)]
pub enum HostDeleted {
    /// The host is gone.
    #[oai(status = 204)]
    Gone,
}

#[OpenApi(prefix_path = "/v1/admin/hosts", tag = "Tag::Hosts")]
impl HostRoutes {
    /// Announce a host
    ///
    /// It is `pending` until an agent has registered with the token of this answer (`ovenbird-agent register`) and has
    /// answered. The token can be used once and for a limited time; make another one where it was not.
    #[oai(path = "/", method = "post", operation_id = "host_create")]
    async fn create(
        &self,
        request: &Request,
        caller: Allowed<Administers>,
        body: Optional<HostCreate>,
    ) -> Result<HostAnnounced, Failure> {
        let id = HostId::from_uuid(request::resource(request).id);
        let HostCreate { name, labels } = body.0.accepted()?;
        let labels = accepted(labels.unwrap_or_default())?;
        let name = name.map(|name| name.trim().to_owned());
        announced(self.app.host_announce(&caller, Wish { id, name, labels }).await?)
    }

    /// Make another token for a host
    ///
    /// For an agent that has lost its key or whose certificate is over, or where the first token was not used in time.
    /// The token before it is worth nothing any more; the key that the agent has holds until another one registers.
    /// Not for a host of the bridges' configuration.
    #[oai(path = "/:id/token", method = "post", operation_id = "host_token")]
    async fn token(
        &self,
        caller: Allowed<Administers>,
        /// The host.
        #[oai(validator(pattern = "^hst_[0-7][0-9a-hjkmnp-tv-z]{25}$"))]
        id: Path<String>,
    ) -> Result<HostAnnounced, Failure> {
        announced(self.app.host_token(&caller, parameters::id(&id.0)?).await?)
    }

    /// Set a host's labels
    ///
    /// They count for builds that are placed from now on; what runs there goes on.
    #[oai(path = "/:id/labels", method = "put", operation_id = "host_labels_set")]
    async fn labels(
        &self,
        _caller: Allowed<Administers>,
        /// The host.
        #[oai(validator(pattern = "^hst_[0-7][0-9a-hjkmnp-tv-z]{25}$"))]
        id: Path<String>,
        body: Submitted<HostRelabel>,
    ) -> Result<Json<Host>, Failure> {
        let labels = accepted(body.accepted()?.labels)?;
        Ok(Json(told(self.app.host_labels_set(parameters::id(&id.0)?, &labels).await?)?))
    }

    /// List hosts
    ///
    /// Newest first.
    #[oai(path = "/", method = "get", operation_id = "host_list")]
    async fn list(
        &self,
        _caller: Allowed<Watches>,
        /// `next_cursor` of the page before.
        #[oai(validator(max_length = 64))]
        cursor: Query<Option<String>>,
        /// Hosts of a page.
        #[oai(validator(minimum(value = "1"), maximum(value = "200")), default = "limit_default")]
        limit: Query<u32>,
    ) -> Result<Json<HostList>, Failure> {
        let Page { items, next } = self.app.host_list(cursor.0.as_deref(), limit.0).await?;
        let items = items.into_iter().map(told).collect::<Result<_, _>>()?;
        Ok(Json(HostList { items, next_cursor: next }))
    }

    /// Get a host
    ///
    /// With what it may promise, what it has promised and what is on it.
    #[oai(path = "/:id", method = "get", operation_id = "host_get")]
    async fn get(
        &self,
        _caller: Allowed<Watches>,
        /// The host.
        #[oai(validator(pattern = "^hst_[0-7][0-9a-hjkmnp-tv-z]{25}$"))]
        id: Path<String>,
    ) -> Result<Json<Host>, Failure> {
        Ok(Json(told(self.app.host_get(parameters::id(&id.0)?).await?)?))
    }

    /// Drain a host
    ///
    /// From now on it gets no new build and no new sandbox, until it is undrained; what runs there goes on, and
    /// a build whose runner changes goes on there, too. It is empty when `builds` and `sandboxes` are 0.
    /// Repeating it changes nothing.
    #[oai(path = "/:id/drain", method = "post", operation_id = "host_drain")]
    async fn drain(
        &self,
        caller: Allowed<Administers>,
        /// The host.
        #[oai(validator(pattern = "^hst_[0-7][0-9a-hjkmnp-tv-z]{25}$"))]
        id: Path<String>,
    ) -> Result<Json<Host>, Failure> {
        Ok(Json(told(self.app.host_drain(&caller, parameters::id(&id.0)?).await?)?))
    }

    /// Undrain a host
    ///
    /// It gets builds and sandboxes again. A host that was deleted is back, and `pending` until it answers.
    /// Repeating it changes nothing.
    #[oai(path = "/:id/undrain", method = "post", operation_id = "host_undrain")]
    async fn undrain(
        &self,
        _caller: Allowed<Administers>,
        /// The host.
        #[oai(validator(pattern = "^hst_[0-7][0-9a-hjkmnp-tv-z]{25}$"))]
        id: Path<String>,
    ) -> Result<Json<Host>, Failure> {
        Ok(Json(told(self.app.host_undrain(parameters::id(&id.0)?).await?)?))
    }

    /// Delete a host
    ///
    /// Only a host that is drained, unreachable or pending, on which there is no build, no sandbox and no template that
    /// no other host holds; otherwise everything that is in the way is listed. The bridges leave it alone from
    /// then on, even while it is in their configuration and answers, and its agent's certificate is not renewed;
    /// undrain it to have it back.
    #[oai(path = "/:id", method = "delete", operation_id = "host_delete")]
    async fn delete(
        &self,
        _caller: Allowed<Administers>,
        /// The host.
        #[oai(validator(pattern = "^hst_[0-7][0-9a-hjkmnp-tv-z]{25}$"))]
        id: Path<String>,
    ) -> Result<HostDeleted, Failure> {
        self.app.host_delete(parameters::id(&id.0)?).await?;
        Ok(HostDeleted::Gone)
    }
}

fn limit_default() -> u32 {
    app::page::LIMIT_DEFAULT
}

/// The labels, or everything that is wrong with them.
fn accepted(labels: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Error> {
    let problems = label_problems(&labels);
    if problems.is_empty() { Ok(labels) } else { Err(Error::Invalid(problems)) }
}

fn announced(made: Announced) -> Result<HostAnnounced, Failure> {
    let Announced { row, token, expires_at: token_expires_at } = made;
    let host = told(row)?;
    let location = format!("/v1/admin/hosts/{}", host.id);
    let new = NewHost { host, token: token.expose().clone(), token_expires_at };
    Ok(HostAnnounced::Host(Json(new), location))
}
