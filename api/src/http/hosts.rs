//! `/v1/admin/hosts`.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use ovenbird_contract::id::HostId;
use ovenbird_db::store::{
    host::{Allocated, Capacity, Versions},
    host_admin::HostRow,
};
use poem_openapi::{
    ApiResponse, Enum, Object, OpenApi,
    param::{Path, Query},
    payload::Json,
};
use serde::de::DeserializeOwned;

use super::{
    Tag,
    auth::{Administers, Allowed, Needs},
    error::Failure,
    parameters,
};
use crate::app::{self, App, Error, keys::Scope, page::Page};

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

/// Where a host stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
pub enum HostStatus {
    /// It has not answered yet.
    Pending,
    /// It answers, and takes builds and sandboxes.
    Online,
    /// It answers, and takes nothing new.
    Draining,
    /// It does not answer.
    Unreachable,
}

/// A machine that runs sandboxes.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct Host {
    /// Its id.
    pub id: String,
    /// `host:port` of its agent.
    pub address: String,
    /// The name in its agent's certificate.
    pub server_name: String,
    /// Where it stands.
    pub status: HostStatus,
    /// There while the host is to take nothing new, also while it does not answer.
    pub drain: Option<HostDrain>,
    /// What it may promise to sandboxes.
    pub capacity: HostCapacity,
    /// What it has promised, by its agent's count.
    pub allocated: HostAllocated,
    /// What runs on it.
    pub versions: HostVersions,
    /// Builds that run there, or whose sandbox waits there for the next runner.
    #[oai(validator(minimum(value = "0")))]
    pub builds: u64,
    /// Sandboxes that were started from templates there, paused ones too.
    #[oai(validator(minimum(value = "0")))]
    pub sandboxes: u64,
    /// Templates that it holds.
    #[oai(validator(minimum(value = "0")))]
    pub templates: u64,
    /// When it last answered.
    pub heartbeat: Option<DateTime<Utc>>,
    /// When it was first seen.
    pub created_at: DateTime<Utc>,
}

/// Who wants a host to take nothing new.
#[derive(Debug, Object)]
pub struct HostDrain {
    /// Since when.
    pub at: DateTime<Utc>,
    /// Who asked first: the id of an API key.
    pub by: String,
}

/// What a host may promise to sandboxes.
#[derive(Debug, Object)]
pub struct HostCapacity {
    /// Virtual CPUs of all sandboxes together.
    #[oai(validator(minimum(value = "0")))]
    pub vcpus: u32,
    /// Memory of all sandboxes together, in MiB.
    #[oai(validator(minimum(value = "0")))]
    pub memory_mb: u32,
    /// Virtual CPUs of one sandbox at most.
    #[oai(validator(minimum(value = "0")))]
    pub max_sandbox_vcpus: u32,
    /// Memory of one sandbox at most, in MiB.
    #[oai(validator(minimum(value = "0")))]
    pub max_sandbox_memory_mb: u32,
    /// Free disk, in bytes.
    #[oai(validator(minimum(value = "0")))]
    pub disk_free_bytes: u64,
}

/// What a host's agent has promised.
#[derive(Debug, Object)]
pub struct HostAllocated {
    /// Virtual CPUs.
    #[oai(validator(minimum(value = "0")))]
    pub vcpus: u32,
    /// Memory, in MiB.
    #[oai(validator(minimum(value = "0")))]
    pub memory_mb: u32,
    /// Sandboxes, those of builds too.
    #[oai(validator(minimum(value = "0")))]
    pub sandboxes: u32,
}

/// What runs on a host. Empty texts until it has answered once.
#[derive(Debug, Object)]
pub struct HostVersions {
    /// Version of the agent.
    pub agent: String,
    /// Version of QEMU.
    pub qemu: String,
    /// Digest of the guest kernel.
    pub kernel: String,
    /// `kvm`, or `tcg` where there is no KVM.
    pub accelerator: String,
    /// Why that one.
    pub accelerator_reason: String,
    /// How root disks are made: `reflink`, `dm_snapshot` or `copy`.
    pub storage: String,
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
    /// Only a host that is drained or unreachable, on which there is no build, no sandbox and no template that
    /// no other host holds; otherwise everything that is in the way is listed. The bridges leave it alone from
    /// then on, even while it is in their configuration and answers; undrain it to have it back.
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

fn told(row: HostRow) -> Result<Host, Error> {
    let HostRow { host, load } = row;
    let status = match host.status.as_str() {
        "pending" => HostStatus::Pending,
        "online" => HostStatus::Online,
        "draining" => HostStatus::Draining,
        "unreachable" => HostStatus::Unreachable,
        other => {
            let what = format!("unknown status of a host `{other}`");
            return Err(Error::internal("reading a host's row", what));
        }
    };
    let capacity: Capacity = read(host.capacity)?;
    let allocated: Allocated = read(host.allocated)?;
    let versions: Versions = read(host.versions)?;
    Ok(Host {
        id: HostId::from_uuid(host.id).to_string(),
        address: host.address,
        server_name: host.server_name,
        status,
        drain: host
            .drain_requested_at
            .map(|at| HostDrain { at, by: host.drain_requested_by.unwrap_or_default() }),
        capacity: HostCapacity {
            vcpus: capacity.vcpus,
            memory_mb: capacity.memory_mb,
            max_sandbox_vcpus: capacity.max_sandbox_vcpus,
            max_sandbox_memory_mb: capacity.max_sandbox_memory_mb,
            disk_free_bytes: capacity.disk_free_bytes,
        },
        allocated: HostAllocated {
            vcpus: allocated.vcpus,
            memory_mb: allocated.memory_mb,
            sandboxes: allocated.sandboxes,
        },
        versions: HostVersions {
            agent: versions.agent,
            qemu: versions.qemu,
            kernel: versions.kernel,
            accelerator: versions.accelerator,
            accelerator_reason: versions.accelerator_reason,
            storage: versions.storage,
        },
        builds: load.builds.unsigned_abs(),
        sandboxes: load.sandboxes.unsigned_abs(),
        templates: load.templates.unsigned_abs(),
        heartbeat: host.heartbeat,
        created_at: host.created_at,
    })
}

fn read<T: DeserializeOwned>(value: serde_json::Value) -> Result<T, Error> {
    serde_json::from_value(value).map_err(|error| Error::internal("reading a host's row", error))
}
